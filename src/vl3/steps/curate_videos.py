"""Step: captions and questions for clips of the collection's videos, by models behind endpoints (paper sec. 3.2.4).

A recipe without `videos` gets an empty result, so that the workflow is one for all recipes. Decoding takes the cores of
this step's pod, and nearly all of the time goes to the endpoint: 68 thousand clips are a day of eight GPUs that answer,
and an hour or two of 16 cores that decode.
"""

from dataclasses import asdict
from typing import Any

from vl3.config.curation import CurationConfig
from vl3.curation.scorer import version_digest
from vl3.curation.scorers.make import answers_file
from vl3.curation.video.rules import read_video_rules
from vl3.curation.video.whole import curate_videos
from vl3.data.build.source import source_digest
from vl3.steps.curate_images import SCORES
from vl3.store.uris import join_uri
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork
from vl3.workflow.tracking import dataset_name


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Find clips, ask, and publish.

    Raises:
        ConfigError: an endpoint refuses its key or model, or its spend limit is reached.
        DataError: there is no video, or too many cannot be decoded.
        StorageError: the store fails.
        ClusterError: an endpoint is gone.
    """
    request, config = work.request, work.request.config.videos
    with work.step_run() as step_run, work.fresh_folder("videos") as folder:
        scores_uri = join_uri(request.artifacts_uri, SCORES)
        facts = curate_videos(
            config,
            read_video_rules(),
            request.data_uri,
            join_uri(scores_uri, "videos"),
            answers_file(scores_uri, config.answers if config else "", _limited(request)),
            folder,
            lambda done, total: work.progress(done, total, "videos"),
        )
        made = work.publish(folder, "videos", kind="video-synthesis")
        if facts["dataset"]:
            step_run.log_dataset(dataset_name(request), made.sha256, made.uri, context="curation")
            counts = {name: float(facts["funnel"][name]) for name in ("clips", "captions")}
            step_run.log_metrics(
                [(0, {"videos": float(facts["videos"]), "samples": float(facts["samples"]), **counts})]
            )
    work.clear()
    return StepOutcome(outputs={"videos": made}, values={name: facts[name] for name in ("videos", "samples", "funnel")})


def _limited(request: StepRequest[CurationConfig]) -> str:
    """The endpoint with a spend limit, which needs answers that last; empty if there is none."""
    config = request.config.videos
    asked = {"captioner": config.captioner, "asker": config.asker} if config is not None else {}
    found = [name for name, one in asked.items() if one is not None and one.spend_limit_usd is not None]
    return f"videos.{found[0]}" if found else ""


def key_parts(request: StepRequest[CurationConfig]) -> dict[str, Any]:
    """The data, the rules, and what of the endpoints decides an answer."""
    config = request.config.videos
    if config is None:
        return {}
    return {
        "captioner": config.captioner.decisive(),
        "asker": (config.asker or config.captioner).decisive(),
        "dataset": config.dataset,
        "pattern": config.pattern,
        "max_bad_fraction": config.max_bad_fraction,
        "rules": version_digest({"rules": asdict(read_video_rules())}),
        "source": source_digest(request.data_uri),
    }


STEP = Step(
    libraries=("av", "opencv-python-headless", "openai", "pillow", "scenedetect-headless"),
    run=run,
    key_parts=key_parts,
)
