"""Step: let Great Expectations judge a curation before anything is trained on it, and list what passed as a corpus."""

import json
from collections.abc import Mapping
from typing import Any

from vl3.config.curation import CurationConfig
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_text
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork

CORPUS_NAME = "corpus.yaml"


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Judge, and publish the corpus; the validation report is published for a refused curation, too.

    Raises:
        DataError: it is refused; the message lists what is wrong.
    """
    from vl3.validation.curation import validate_curation

    config, made = work.request.config, {name: work.request.inputs[name] for name in ("curation", "videos")}
    with work.step_run() as step_run, work.fresh_folder("validation") as folder:
        work.progress(0, 1, "judging the decisions")
        result = validate_curation(fetch(made["curation"]), fetch(made["videos"]), config, folder)
        report = work.publish(folder, "validation", kind="validation-report")
        step_run.log_metrics([(0, {"checks_failed": float(len(result.critical))})])
        result.require_passed()
    with work.fresh_folder("corpus") as folder:
        atomic_write_text(folder / CORPUS_NAME, corpus_text(config, made))
        corpus = work.publish(folder, "corpus", kind="curated-corpus")
    work.clear()
    return StepOutcome(outputs={"corpus": corpus, "validation": report}, values=result.facts)


def corpus_text(config: CurationConfig, made: Mapping[str, Reference]) -> str:
    """The corpus file of all datasets of a curation: `make run-pipeline DATA=.../corpus.yaml` trains on it.

    datasets:
      syn_short: "s3://bucket/steps/curate-images/9f2c../curation/syn_short"
      video_synthesis: "s3://bucket/steps/curate-videos/07a1../videos/video_synthesis"
    """
    folders = {name: join_uri(made["curation"].uri, name) for name in config.datasets}
    if config.videos is not None:
        folders[config.videos.dataset] = join_uri(made["videos"].uri, config.videos.dataset)
    return "\n".join(["datasets:", *(f"  {name}: {json.dumps(uri)}" for name, uri in folders.items())]) + "\n"


def key_parts(request: StepRequest[CurationConfig]) -> dict[str, Any]:
    """The thresholds that the decisions are compared with, and where the datasets are."""
    config = request.config
    return {
        "steps": {
            name: [one.column, one.minimum, one.maximum, list(one.allowed)] for name, one in config.steps.items()
        },
        "datasets": sorted(config.datasets),
        "videos": config.videos.dataset if config.videos is not None else None,
        "max_failed_fraction": config.max_failed_fraction,
        "made": {name: request.inputs[name].uri for name in ("curation", "videos")},
    }


STEP = Step(libraries=("pyarrow", "great-expectations"), run=run, key_parts=key_parts)
