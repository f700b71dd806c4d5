"""The families of errors."""

from vl3.errors import FAMILIES, Vl3Error


def test_each_family_has_its_own_exit_code() -> None:
    assert {name: family.exit_code for name, family in FAMILIES.items()} == {
        "ConfigError": 2,
        "DataError": 3,
        "ClusterError": 4,
        "GateError": 5,
        "StorageError": 6,
    }
    assert all(issubclass(family, Vl3Error) for family in FAMILIES.values())


def test_only_the_platform_is_worth_a_retry() -> None:
    assert [name for name, family in FAMILIES.items() if family.is_retryable] == ["ClusterError"]
