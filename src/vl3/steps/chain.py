"""The chain of a run's checkpoints: the manifest of each names the one that it was trained from.

So a step gets only the last checkpoint and finds the others, whatever stages the recipe has.

Example: stages a, b, c give checkpoints A, B, C. C was made from B, B from A, and A from the start artifact (the
digests of the two bases, or the model that the run was given), where the chain ends: trained_stages(C) is
[(a, A), (b, B), (c, C)].
"""

from dataclasses import dataclass

from vl3.errors import ConfigError, StorageError
from vl3.store.artifacts import find, read_manifest
from vl3.store.manifest import Origin
from vl3.store.reference import Reference
from vl3.store.uris import check_key, join_uri

INITIAL = "initial"
"""Name of the input with a checkpoint's initial weights: the previous checkpoint, or the start artifact."""
MODEL = "model"
"""Kind of the start artifact of a run that starts from a whole model, or evaluates it: the model, imported."""
PLAN = "plan"
"""Name of the input with the plan of a stage's steps."""
SOURCE = "source"
"""Name of the origin of an imported model: where it came from."""
_MAX_STAGES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedStage:
    """A stage with its checkpoint."""

    name: str
    """Name of the stage in the recipe."""
    checkpoint: Reference
    """Its result."""


def origin_of(reference: Reference, artifacts_uri: str) -> Origin:
    """An input for a manifest: below the root of artifacts with its relative path.

    So a checkpoint has the same digest in every store: `s3://bucket/run/steps/train-video/KEY/checkpoint` below
    `s3://bucket/run` is written as `steps/train-video/KEY/checkpoint`.
    """
    root = artifacts_uri.rstrip("/") + "/"
    uri = reference.uri.removeprefix(root)
    return {"uri": uri, "sha256": reference.sha256, "kind": reference.kind}


def trained_stages(checkpoint: Reference, artifacts_uri: str) -> list[TrainedStage]:
    """The stages that led to a checkpoint, from the first one to its own.

    Raises:
        StorageError: a checkpoint of the chain is missing, is another one, or does not name its origin.
    """
    stages: list[TrainedStage] = []
    reference: Reference | None = checkpoint
    while reference is not None:
        manifest = read_manifest(reference)
        name, origin = manifest.created_by.get("stage"), manifest.made_from.get(INITIAL)
        if name is None or origin is None or len(stages) == _MAX_STAGES:
            raise StorageError(
                f"{reference.uri}: the manifest does not name the stage and the initial weights of the checkpoint, so "
                "the stages before it cannot be found. Train it with this version of vl3."
            )
        stages.append(TrainedStage(name=name, checkpoint=reference))
        is_first = origin["kind"] != "checkpoint"  # it was trained from bases or from an imported model
        reference = None if is_first else _found(origin, reference, artifacts_uri)
    return stages[::-1]


def plan_of(checkpoint: Reference, artifacts_uri: str) -> Reference | None:
    """The plan that a checkpoint was trained by; None if it names none, as those of earlier versions.

    Raises:
        StorageError: the plan is missing or is another one.
    """
    origin = read_manifest(checkpoint).made_from.get(PLAN)
    return _found(origin, checkpoint, artifacts_uri) if origin else None


def root_of(reference: Reference) -> str:
    """The root of the artifacts of the run that published an output of a step, by its place below it.

    `s3://bucket/run/steps/train-video/KEY/checkpoint` gives `s3://bucket/run`; what is elsewhere gives itself.
    """
    root, found, _ = reference.uri.rpartition("/steps/")
    return root if found else reference.uri


def _found(origin: Origin, child: Reference, artifacts_uri: str) -> Reference:
    """What a checkpoint was made from."""
    uri = origin["uri"]
    if "://" not in uri:
        try:
            uri = join_uri(artifacts_uri, check_key(uri, child.uri))
        except ConfigError as error:
            raise StorageError(f"{error} The manifest of that checkpoint cannot be trusted.") from error
    found = find(uri)
    if found is None or found.sha256 != origin["sha256"]:
        raise StorageError(
            f"{uri}: the {origin['kind']} that {child.uri} was trained from is "
            f"{'gone' if found is None else 'another one'} (expected sha256 {origin['sha256']}). Run the workflow "
            "again: it recreates what is missing."
        )
    return found
