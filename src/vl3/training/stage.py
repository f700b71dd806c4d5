"""One training stage in one rank: from a job to published weights."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vl3.config.codec import digest
from vl3.config.run import RunConfig
from vl3.config.stages import LIMITS, StageConfig
from vl3.data.build.index import INDEX_NAME
from vl3.data.corpus import datasets_of
from vl3.data.loader.decoder import DecoderSetup
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.loader.stage_loader import StageLoader, default_processes
from vl3.data.plan.facts import PLAN_NAME
from vl3.data.plan.packing import CostModel
from vl3.data.plan.stage_plan import StagePlan
from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import StorageError
from vl3.models.config import EncoderConfig
from vl3.store.artifacts import fetch, file_entry, files_uri
from vl3.store.reference import Reference
from vl3.system.imports import lean_imports
from vl3.training.activity import TimedSave, follow_engine
from vl3.training.checkpoint import Checkpoints, TrainerState, code_changes_of
from vl3.training.code_change import code_history, restart_note, resume_note
from vl3.training.collectives import gather_json
from vl3.training.engine import TrainingEngine, allocator, training_device
from vl3.training.events import EventLog
from vl3.training.heart import Activity, Heart
from vl3.training.job import StageJob, config_of
from vl3.training.loop import Callback, CheckpointSaver, MetricsWriter, StepSeed, merge_ledgers, run_steps
from vl3.training.meter import Meter
from vl3.training.mfu import FlopCounter, peak_of_stage
from vl3.training.optimizer_groups import freeze_parts, parameter_groups, trainable_parameters
from vl3.training.part_table import PartRow, require_rates, require_stage_table, table_event, table_text
from vl3.training.publication import Destination, Publication
from vl3.training.restore import candidates, restore
from vl3.training.saver import Saver
from vl3.training.skipped import SkipLimit, SkippedUpdates
from vl3.training.snapshot import EngineState
from vl3.training.straggler import PassTimer, StragglerWatch

with lean_imports():
    from vl3.data.sample.difffp import keep_mask
    from vl3.models.lora import add_adapters
    from vl3.models.unread import UnreadModel
    from vl3.training.loading import load, open_first_model, part_sizes

log = logging.getLogger("vl3.training")

_STOP_PATIENCE_SECONDS = 20.0
"""How long a store that refuses is asked again for the last word of a stage that was asked to stop."""
_END_PATIENCE_SECONDS = 900.0
"""The same for the final weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """The position of this process among those of the stage."""

    rank: int
    """Number of the process, from 0."""
    world_size: int
    """Number of processes of the stage."""
    launched_at: float
    """Unix time at which the stage was launched."""
    ranks_of_machine: int = 1
    """Number of the stage's processes on this machine."""
    heart: Heart = field(default_factory=lambda: Heart(None, 0))
    """Says what this process is doing to whoever watches it."""


def run_stage(job: StageJob, rank: Rank, *, stop_requested: Callable[[], bool]) -> bool:
    """Train a stage from the start or from its newest checkpoint, and publish its weights.

    Args:
        job: what to do.
        rank: which process this is; the process group must be initialised.
        stop_requested: whether this process was asked to stop, checked before each step.

    Returns:
        Whether the stage is finished; False if it was asked to stop and has written a checkpoint.

    Raises:
        Vl3Error: something is wrong with the configuration, the data or the storage.
    """
    config, stage = config_of(job), job.stage
    events = EventLog(Path(job.events_path) if rank.rank == 0 else None)
    started = time.monotonic()
    run = StageRun(job, config, stage, rank, events, _checkpoints(job, config))
    with contextlib.closing(run.saver):
        with run.loader:
            done = run.train(stop_requested)
        is_finished = done == run.plan.steps
        rank.heart.beat(Activity.SAVING)
        lost = run.saver.settle(_END_PATIENCE_SECONDS if is_finished else _STOP_PATIENCE_SECONDS)
        rank.heart.beat(Activity.PUBLISHING)
        if is_finished:
            run.publish(lost)
        bad_samples = [asdict(bad) for bad in merge_ledgers(run.loader.ledger, run.engine.device)]
        seconds = time.monotonic() - started
        if is_finished:
            skipped = len(run.skipped.steps)
            events.write(
                "end",
                time=time.time(),
                seconds=seconds,
                steps=done - run.start,
                bad_samples=bad_samples,
                skipped_updates=skipped,
            )
        else:
            kept = "the one before is kept" if lost else "the checkpoint is written"
            kept = kept if done > run.start else "it had not begun"
            events.note(f"stopped on request after step {done} of {run.plan.steps}; {kept}")
    return is_finished


class StageRun:
    """Everything that one rank needs for a stage: data, model, engine and meter."""

    def __init__(
        self,
        job: StageJob,
        config: RunConfig,
        stage: str,
        rank: Rank,
        events: EventLog,
        checkpoints: Checkpoints,
    ) -> None:
        """Load data, model and the newest checkpoint, and shard the model. All ranks must do so together."""
        self.job, self.config, self.stage, self.rank, self.events = job, config, stage, rank, events
        self.settings: StageConfig = config.stages[stage]
        self.checkpoints = checkpoints
        self.tokenizer_folder, unread = open_first_model(job, config)
        self.plan = _open_plan(job, config, unread, rank.world_size)
        vision = unread.config.vision
        steps = candidates(checkpoints, training_device())
        if not steps:  # the loader prepares rows while the model is read and sharded
            self.loader = self._open_loader(vision, None)
        self.part_rows: list[PartRow] = []
        self.engine, self.publication, self.state = self._shard(unread)
        found = self._restore() if steps else None
        self.start = found.step if found else 0
        self.code = code_history(job, found)
        if steps:
            self.loader = self._open_loader(vision, found)
        self.saver = Saver(checkpoints, self.state, events, rank=rank.rank, world_size=rank.world_size)
        self.meter = Meter(
            self.engine.device,
            rank.world_size,
            found.window if found else None,
            count_flops=FlopCounter(unread.config, self.settings),
            peak_flops_per_second=peak_of_stage(config, stage),
        )
        limit = SkipLimit.of(config.engine.max_skipped_fraction, steps=self.plan.steps)
        former = found.skipped_steps if found else ()
        self.skipped = SkippedUpdates(events, limit, self.engine.device, former)

    def train(self, stop_requested: Callable[[], bool]) -> int:
        """Run the remaining steps; returns the number of steps done."""
        if any(gather_json(stop_requested(), self.engine.device)):  # during start-up: nothing is to be saved
            return self.start
        startup_seconds = time.time() - self.rank.launched_at
        self.events.write(
            "start",
            resumed_from_step=self.start,
            world_size=self.rank.world_size,
            startup_seconds=startup_seconds,
            startup_cpu_seconds=time.process_time(),
            time=time.time(),
            code_changes=list(self.code.changes),
            parts=table_event(self.part_rows),
        )
        if self.rank.rank == 0:
            log.info("what trains in stage %s:\n%s", self.stage, table_text(self.part_rows))
        log.info("at step %d of %d after %.1f s of start-up", self.start, self.plan.steps, startup_seconds)
        follow_engine(self.rank.heart, self.engine.deepspeed.module, self.engine.deepspeed.basic_optimizer)
        return run_steps(
            self.engine,
            self.loader,
            self.meter,
            self.skipped,
            self._callbacks(),
            heart=self.rank.heart,
            start=self.start,
            steps=self.plan.steps,
            optimizer=self.config.optimizer,
            stop_requested=stop_requested,
        )

    def _callbacks(self) -> list[Callback]:
        """What follows each step, in order."""
        engine_config = self.config.engine
        metrics = MetricsWriter(
            self.events,
            self.meter,
            self.engine,
            skipped=self.skipped,
            every_steps=engine_config.log_every_steps,
            drawn=self.plan.mixture_drawn,
        )
        watch = StragglerWatch(
            self.events,
            PassTimer(self.engine.deepspeed.module, self.engine.device),
            self.meter.take_data_seconds,
            self.engine.device,
            every_steps=engine_config.log_every_steps,
        )
        saver = CheckpointSaver(
            self.saver,
            self.state,
            self.meter,
            every_steps=engine_config.checkpoint_every_steps,
            fingerprint=self.checkpoints.fingerprint,
            code=self.code,
            skipped=self.skipped,
            ledger=self.loader.ledger,
        )
        callbacks: list[Callback] = [metrics, watch, TimedSave(saver, self.rank.heart, self.meter.note_save)]
        if engine_config.profile_steps and self.rank.rank == 0:
            from vl3.training.profiling import StepProfiler  # only then its imports are worth their time

            profiler = StepProfiler(engine_config.profile_steps, self.job.work_uri, self.events, start=self.start)
            callbacks.insert(0, profiler)
        if self.settings.lora:  # only LoRA's dropout draws random numbers
            callbacks.append(StepSeed(self.config.seed, self.rank.rank, start=self.start))
        return callbacks

    def publish(self, lost: str) -> None:
        """Publish weights, tokenizer and run.json as the stage's checkpoint; each rank writes its shards.

        Raises:
            StorageError: the last step's fragments (`lost` says why), or what is made from them, cannot be stored.
        """
        if lost:
            raise StorageError(
                f"{self.checkpoints.uri(self.plan.steps)}: the stage's last weights cannot be stored, so they are not "
                f"published ({lost}). The checkpoint before is kept: start the run again when the store takes files."
            )
        to = Destination(
            uri=self.job.output_uri,
            work_uri=self.job.work_uri,
            tokenizer_folder=self.tokenizer_folder,
            run={"stage": self.job.stage, "config": self.job.config},
            created_by=self.job.created_by | code_changes_of(list(self.code.changes)),
            made_from=self.job.made_from,
        )
        self.publication.publish(self.checkpoints, self.plan.steps, to, self.engine.device)

    def _restore(self) -> TrainerState | None:
        """The checkpoint to go on from, which is in the engine then; None to start at step 0."""
        return restore(self.checkpoints, self.state, note=self._note, is_wanted=self._is_wanted)

    def _is_wanted(self, found: TrainerState) -> bool:
        """Whether to go on from a checkpoint of maybe other code, or remove all and start again; notes both cases."""
        if self.config.engine.on_code_change == "restart" and (note := restart_note(self.job, found)):
            self._note(note)
            self.checkpoints.drop()
            return False
        if note := resume_note(self.job, found):
            self._note(note)
        return True

    def _open_loader(self, vision: EncoderConfig, found: TrainerState | None) -> StageLoader:
        """The rows of this rank. Of the dataset only what it needs is read, and checked sample by sample."""
        for note in self.plan.facts.notes:
            self._note(note)
        data, loader = self.config.data, self.config.loader
        settings = PrepareSettings(
            image_merge_size=self.settings.image_merge_size,
            video_merge_size=self.settings.video_merge_size,
            difffp=self.settings.difffp,
            data=data,
            patch_size=vision.patch_size,
            picture=vision.picture,
        )
        setup = DecoderSetup(
            uris=tuple(files_uri(dataset) for dataset in datasets_of(Reference.from_dict(self.job.dataset)).values()),
            settings=settings,
            tokenizer=ChatTokenizer.from_folder(self.tokenizer_folder),
            prune=keep_mask,
            read_ahead_samples=loader.read_ahead_samples,
            cache_bytes=int(loader.cache_gib * 2**30),
        )
        ledger = Ledger(
            fraction=data.max_bad_fraction,
            usable_samples=self.plan.facts.usable_samples,
            former=[BadSample.from_dict(bad) for bad in found.bad_samples] if found else (),
        )
        return StageLoader(
            self.plan,
            setup,
            ledger,
            processes=loader.processes or default_processes(self.rank.ranks_of_machine),
            timeout_seconds=loader.sample_timeout_seconds,
            rank=self.rank.rank,
            world_size=self.rank.world_size,
            start_step=found.step if found else 0,
            allocate=allocator(training_device()),
        )

    def _shard(self, unread: UnreadModel) -> tuple[TrainingEngine, Publication, EngineState]:
        """Read, freeze, group and shard the model."""
        model = load(unread, self.config, training_device())
        if self.settings.lora:
            with lean_imports():
                add_adapters(model, self.settings.lora, seed=self.config.stage_seed(self.stage))
        parts, rates = model.parts(), self.settings.learning_rates
        freeze_parts(parts, rates, adapters_only=self.settings.lora is not None)
        named = trainable_parameters(parts)
        publication = Publication(
            model,
            unread.sources,
            dtype=self.config.published_type(self.stage),
            rank=self.rank.rank,
            world_size=self.rank.world_size,
        )
        groups = parameter_groups(parts, rates, weight_decay=self.config.optimizer.weight_decay)
        self.part_rows = require_stage_table(
            parts, groups, rates, adapters_only=self.settings.lora is not None, stage=self.stage
        )
        rows_per_rank = self.plan.packs_per_step // self.rank.world_size
        engine = TrainingEngine(model, groups, self.config, rows_per_rank=rows_per_rank)
        require_rates(engine.deepspeed.basic_optimizer.param_groups, self.part_rows)
        return engine, publication, EngineState(engine.deepspeed, named)

    def _note(self, text: str) -> None:
        if self.rank.rank == 0:
            log.warning(text)
        self.events.note(text)


def stage_fingerprint(job: StageJob) -> str:
    """Digest of everything that determines a stage's weights, except the code and the number of processes."""
    config = job.config
    row = {name: value for name, value in config["stages"][job.stage].items() if name not in LIMITS}
    return digest(
        {
            "stage": job.stage,
            "number": list(config["stages"]).index(job.stage),  # seeds the order of samples
            "row": row,
            "seed": config["seed"],
            "data": {name: value for name, value in config["data"].items() if name != "build_workers"},
            "optimizer": config["optimizer"],
            "precision": config["engine"]["precision"],
            "dataset": job.dataset["sha256"],
            "plan": job.plan["sha256"],
            "initial_model": job.initial_model["sha256"],
        }
    )


def _checkpoints(job: StageJob, config: RunConfig) -> Checkpoints:
    return Checkpoints(
        job.work_uri,
        fingerprint=stage_fingerprint(job),
        keep=config.engine.keep_checkpoints,
        keep_every_steps=config.engine.keep_every_steps,
        created_by=job.created_by,
    )


def _open_plan(job: StageJob, config: RunConfig, model: UnreadModel, world_size: int) -> StagePlan:
    """The stage's plan. Its arrays are checked block by block as they are read, not by every rank at every start."""
    plan = StagePlan(
        fetch(Reference.from_dict(job.plan), verified=(PLAN_NAME,)),
        cost_model=_cost_model(model, config.stages[job.stage]),
    )
    datasets = datasets_of(Reference.from_dict(job.dataset)).values()
    indexes = tuple(file_entry(dataset, INDEX_NAME).sha256 for dataset in datasets)
    plan.check(world_size=world_size, index_sha256=indexes)
    return plan


def _cost_model(model: UnreadModel, stage: StageConfig) -> CostModel:
    """The cost of a row in this model and stage, used to balance the ranks."""
    sizes, text, vision = part_sizes(model), model.config.text, model.config.vision
    return CostModel(
        decoder_parameters=sizes["language"],
        decoder_layers=text.num_hidden_layers,
        decoder_width=text.hidden_size,
        encoder_parameters=sizes["vision"],
        encoder_layers=vision.num_hidden_layers,
        encoder_width=vision.hidden_size,
        decoder_passes=6 if stage.learning_rates.language is not None and stage.lora is None else 4,
        encoder_passes=6 if stage.learning_rates.vision is not None else 2,
    )
