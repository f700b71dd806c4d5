"""Objects against their schemas, without a cluster; a field that the schema does not know is an error.

Kubernetes' own kinds come from the package kubernetes-validate, custom ones from the vendored definitions, and the
few kinds whose operators are not vendored from `schemas.yaml` beside this file, which lists the fields that we use.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.support.manifests import custom_schemas

KUBERNETES = "1.36"
_BUILT_IN = re.compile(r"v1|apps/v1|batch/v1|(rbac\.authorization|networking|policy|scheduling)(\.k8s\.io)?/v1")
_OWN = Path(__file__).with_name("schemas.yaml")


def schema_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    """What the API server would refuse or drop, with the path of each."""
    where = f"{obj['kind']} {obj['metadata']['name']}"
    if _BUILT_IN.fullmatch(obj["apiVersion"]):
        try:
            kubernetes_validate.validate(dict(obj), KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{where}: {'.'.join(map(str, error.path))}: {error.message}"
        return
    validator = _validator(obj["apiVersion"], obj["kind"])
    if validator is None:
        yield f"{where}: no schema of {obj['apiVersion']} {obj['kind']} is known. Vendor its definition."
        return
    for error in validator.iter_errors(obj):
        path = ".".join(map(str, error.absolute_path)) or "(top)"
        yield f"{where}: {path}: {error.message[:200]}"


@cache
def _validator(api_version: str, kind: str) -> jsonschema.Draft7Validator | None:
    schema = _own_schemas().get(f"{api_version} {kind}") or custom_schemas().get((api_version, kind))
    return jsonschema.Draft7Validator(_strict(schema)) if schema else None


@cache
def _own_schemas() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(_OWN.read_text(encoding="utf-8"))


def _strict(schema: Any, *, top: bool = True) -> Any:
    """The schema in JSON Schema's terms: unknown fields refused, Kubernetes' extensions translated."""
    if isinstance(schema, list):
        return [_strict(item, top=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: value for key, value in schema.items() if key not in ("description", "format", "default")}
    for key in ("properties", "patternProperties"):
        if key in strict:
            strict[key] = {name: _strict(part, top=False) for name, part in strict[key].items()}
    for key in ("items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"):
        if key in strict:
            strict[key] = _strict(strict[key], top=False)
    if "properties" in strict and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    if top:
        strict["properties"] = {**strict["properties"], "metadata": {"type": "object"}}
    return strict
