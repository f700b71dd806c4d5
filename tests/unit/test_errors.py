"""The families of errors."""

from vl3.errors import ENDINGS, FAMILIES, DataError, InterruptError, Vl3Error, family_name


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


def test_an_end_on_request_has_the_exit_code_of_its_signal() -> None:
    assert {name: ending.exit_code for name, ending in ENDINGS.items()} == {
        "TerminatedError": 143,
        "InterruptError": 130,
    }


def test_the_family_of_an_error_is_the_nearest_that_has_a_name() -> None:
    class ShardError(DataError):
        pass

    assert family_name(ShardError()) == "DataError"
    assert family_name(InterruptError()) == "InterruptError"
    assert family_name(ValueError()) == family_name(Vl3Error()) == "Vl3Error"
