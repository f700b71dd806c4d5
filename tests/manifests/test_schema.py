"""Every rendered object against its schema, unknown fields refused."""

from copy import deepcopy
from typing import Any

import pytest

from tests.manifests.policies import of_kind
from tests.manifests.schema import schema_problems


def test_every_object_fits_its_schema(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, objects = overlay
    assert [problem for obj in objects for problem in schema_problems(obj)] == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "expected"),
    [
        ("Deployment", ("spec", "replicaz"), 1, "'replicaz' was unexpected"),
        ("ClusterQueue", ("spec", "cohort"), "vl3", "'cohort' was unexpected"),
        ("ClusterTrainingRuntime", ("spec", "mlPolicy", "torch"), {"numProcPerNode": 2}, "'numProcPerNode'"),
        ("ResourceFlavor", ("spec", "nodeLabels"), ["a100"], "is not of type 'object'"),
        ("ExternalSecret", ("spec", "secretStore"), "vault", "'secretStore' was unexpected"),
    ],
)
def test_a_wrong_field_is_named(
    production: list[dict[str, Any]], kind: str, path: tuple[str, ...], value: Any, expected: str
) -> None:
    obj = deepcopy(of_kind(production, kind)[0])
    holder = obj
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    problems = list(schema_problems(obj))
    assert len(problems) == 1
    assert expected in problems[0]
    assert problems[0].startswith(f"{kind} {obj['metadata']['name']}: ")


def test_an_unknown_kind_is_no_pass() -> None:
    obj = {"apiVersion": "example.org/v1", "kind": "Gadget", "metadata": {"name": "x"}}
    assert list(schema_problems(obj)) == [
        "Gadget x: no schema of example.org/v1 Gadget is known. Vendor its definition."
    ]
