"""Loaders of small datasets."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from tests.support.plans import make_request
from tests.support.samples import conversation, grey_frames, video_bytes, write_data_folder
from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.config.data import DataConfig
from vl3.data.build.dataset import build_dataset
from vl3.data.loader import decoder
from vl3.data.loader.decoder import DecoderSetup
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import StagePlan
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings, Pruner
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.system.processes import children_of

LEVELS = (100, 10, 140, 180, 220)
"""The grey of each video: the second is dark."""


def ids_of(loader: StageLoader) -> list[list[tuple[str, ...]]]:
    """The samples of each row of each step that is left; closes the loader."""
    with loader:
        return [[row.sample_ids for row in taken.rows] for taken in loader]


def decoders_of(pid: int) -> list[int]:
    """The decoding processes of a process, without those that have ended."""
    found = []
    for child in children_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if any(decoder.__name__ in part for part in child.cmdline()):
                found.append(child.pid)
    return found


@pytest.fixture
def make_loader(tokenizer: ChatTokenizer, config: DataConfig) -> Callable[..., StageLoader]:
    """A loader of one rank with one decoding process, unless told otherwise."""

    def make(
        plan: StagePlan,
        uri: str,
        *,
        max_bad_fraction: float = 0.0,
        former: Sequence[BadSample] = (),
        prune: Pruner = keep_mask,
        cache_bytes: int = 0,
        **options: object,
    ) -> StageLoader:
        setup = DecoderSetup(
            uris=(uri,),
            settings=PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=config),
            tokenizer=tokenizer,
            prune=prune,
            read_ahead_samples=2,
            cache_bytes=cache_bytes,
        )
        ledger = Ledger(fraction=max_bad_fraction, usable_samples=plan.facts.usable_samples, former=former)
        settings = {"processes": 1, "timeout_seconds": 60.0, "rank": 0, "world_size": 1}
        return StageLoader(plan, setup, ledger, **(settings | options))

    return make


@pytest.fixture(scope="session")
def videos(tokenizer: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of five videos, `v0` to `v4`, of which `v1` is dark."""
    from tests.unit.data.conftest import DATA_CONFIG

    root = tmp_path_factory.mktemp("videos")
    files = {f"{n}.mp4": video_bytes(grey_frames([level] * 4), fps=2) for n, level in enumerate(LEVELS)}
    train = [
        {"id": f"v{number}", "video": [f"{number}.mp4"], "conversations": conversation("<video> What?", "It is grey.")}
        for number, level in enumerate(LEVELS)
    ]
    folder = write_data_folder(root / "data", train=train, files=files)
    build_dataset(folder, root / "set", config=DATA_CONFIG, tokenizer=tokenizer, prune=keep_mask, workers=1)
    return root / "set"


@pytest.fixture
def video_plan(videos: Path, tmp_path: Path) -> StagePlan:
    """Two epochs of the videos."""
    (tmp_path / "plan").mkdir()
    request = make_request(mixture={"general_video": 1.0}, seed=0, steps=None, epochs=2.0, packs_per_step=1)
    plan_stage([videos], tmp_path / "plan", request)
    return StagePlan(tmp_path / "plan")
