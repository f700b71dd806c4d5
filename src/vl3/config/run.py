"""The configuration of one whole run: what a recipe returns and a checkpoint records."""

import re
from dataclasses import dataclass, field
from typing import Annotated

from vl3.config.checks import (
    Count,
    Fraction,
    OneOf,
    PartialFraction,
    Range,
    Seconds,
    Workers,
    check_fields,
    require_name,
)
from vl3.config.data import DataConfig
from vl3.config.evaluation import EvaluationConfig
from vl3.config.fabric import FabricConfig, SchedulingConfig
from vl3.config.gates import GateConfig, check_gates
from vl3.config.loader import LoaderConfig
from vl3.config.placement import BUILD, RESERVED, PlacementConfig, PlacementTable
from vl3.config.stages import StageTable, check_stage_names
from vl3.config.step_pods import PodSize, StepPodsConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError

MAX_PROFILED_STEPS = 20
"""Most steps of one profile."""
_PROFILE = re.compile(r"(\d{1,9}):(\d{1,9})")
_SEEDS_PER_RUN = 4
"""Distance between the seeds of two runs: the number of stages in the paper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Where stage 1 starts from. Sizes are read from the bases themselves."""

    vision_base: str
    """URI of a SigLIP vision model folder or a VideoLLaMA3, whose encoder is taken (package://, file://, s3://,
    hf://), or run://RUN or models:/name@alias: the encoder that its first stage has tuned."""
    language_base: str
    """URI of a Qwen2 folder with its tokenizer (package://, file://, s3:// or hf://)."""
    vision_width: Annotated[int, Range(at_least=1, at_most=1_000_000)] | None = None
    """Width that the encoder must have; None takes any."""
    picture_side_px: Annotated[int, Range(at_least=PATCH_SIZE_PX, at_most=4096)] | None = None
    """Side of the square to which every picture is resized for a CLIP or SigLIP that is used as it is, which must be
    the encoder's own (336, 378, 384); None takes pictures of any size, with the encoder of the method."""
    skipped_blocks: Annotated[int, Range(at_least=0, at_most=1000)] = 1
    """With picture_side_px: blocks at the encoder's end that do not run. 1 gives the features of LLaVA, which are
    transformers' `hidden_states[-2]`."""

    def __post_init__(self) -> None:
        check_fields(self, "model")

    @property
    def fixed_resolution(self) -> dict[str, int]:
        """What of an encoder is used at its own resolution, for the keys of steps; empty if pictures keep their sizes.

        The files of the bases are the same with other values, so that their digests do not tell.
        """
        if self.picture_side_px is None:
            return {}
        return {"picture_side_px": self.picture_side_px, "skipped_blocks": self.skipped_blocks}

    @property
    def side_patches(self) -> int | None:
        """Patches along the side of the square that every picture becomes; None if they keep their shapes."""
        return None if self.picture_side_px is None else self.picture_side_px // PATCH_SIZE_PX


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its schedule: linear warm-up, then cosine decay (paper sec. 3.3)."""

    beta1: PartialFraction
    """Decay of the first moment."""
    beta2: PartialFraction
    """Decay of the second moment."""
    epsilon: Annotated[float, Range(at_least=1e-37, at_most=1)]
    """Term that keeps the division by the second moment finite."""
    weight_decay: Annotated[float, Range(at_least=0, at_most=1e3)]
    """Decoupled weight decay of matrices; biases and norms have none."""
    max_grad_norm: Annotated[float, Range(above=0, at_most=1e12)]
    """Norm over all parts to which gradients are clipped."""
    warmup_ratio: Fraction
    """Share of a stage's steps in which the rate rises linearly from 0."""
    min_lr_ratio: Fraction
    """Share of the peak rate at which the cosine ends."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How DeepSpeed runs the training loop."""

    zero_stage: Annotated[int, OneOf((0, 1, 2, 3))]
    """DeepSpeed ZeRO stage: 0 replicates, 1 shards optimizer state, 2 gradients too, 3 weights too."""
    precision: Annotated[str, OneOf(("fp32", "bf16"))]
    """Arithmetic of forward and backward: fp32 or bf16."""
    recompute: Annotated[str, OneOf(("none", "selective", "full"))]
    """What backward computes again to save memory: `none`; `selective`, all but matrix products and attention, for a
    third less memory and a few percent more time; `full`, everything, for the least memory and a quarter to a third
    more time."""
    offload_optimizer: bool = False
    """Whether fp32 weights and AdamW's moments are in host memory and updated there (ZeRO 1 to 3): a GPU then holds
    less, and each step takes longer."""
    fit_check: Annotated[str, OneOf(("refuse", "warn", "off"))] = "refuse"
    """What becomes of a stage that cannot fit where it is placed, by the planner's numbers: `refuse` it before it is
    queued, `warn` and try, or do not look (`off`)."""
    checkpoint_every_steps: Count
    """Steps between two resumable checkpoints."""
    keep_checkpoints: Count
    """The last resumable checkpoints that are kept while a stage runs."""
    keep_every_steps: Annotated[int, Range(at_least=0, at_most=2**31)] = 0
    """Besides the last ones, the checkpoints of every so many steps are kept while a stage runs; 0 keeps no others."""
    published_weights: Annotated[str, OneOf(("fp32", "bf16", "release"))] = "fp32"
    """Type of the weights that a stage publishes: `fp32` (the masters), `bf16`, or `release`: masters between stages,
    so that nothing is rounded on the way, and bf16 of the last one."""
    log_every_steps: Count
    """Steps between two batches of metrics."""
    max_skipped_fraction: PartialFraction = 0.1
    """Share of the last 100 steps (of all steps in a shorter stage) whose update may be left out because the gradient
    is not finite; more end the stage."""
    rank_stall_seconds: Seconds = 45.0
    """How much longer than the slowest step so far all ranks may be silent before the one that the others wait for is
    taken for stalled: its stack is shown, and the stage is started again from its checkpoint. Waits for the store have
    `stages.<stage>.stall_seconds`."""
    profile_steps: str = ""
    """Steps that rank 0 profiles, as FIRST:LAST counted from 1, `10:13`; a Chrome trace of them becomes an artifact of
    the stage. Empty profiles none."""
    on_code_change: Annotated[str, OneOf(("resume", "restart"))]
    """What happens to a stage's checkpoints of other code: `resume` continues from them and logs it, `restart` removes
    them and starts again at step 0."""

    def __post_init__(self) -> None:
        check_fields(self, "engine")
        if self.offload_optimizer and not self.zero_stage:
            raise ConfigError(
                "engine.offload_optimizer=true needs ZeRO, which owns the optimizer's state, but engine.zero_stage=0. "
                "Set engine.zero_stage=1, 2 or 3."
            )
        if self.profile_steps:
            profiled_steps(self.profile_steps)


def profiled_steps(text: str) -> tuple[int, int]:
    """The first and the last step of `engine.profile_steps`, counted from 1: `10:13` is (10, 13).

    Raises:
        ConfigError: it is not of that form, or asks for so many steps that the trace could not be read.
    """
    found = _PROFILE.fullmatch(text)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last < first + MAX_PROFILED_STEPS:
        raise ConfigError(
            f"engine.profile_steps={text!r:.60} must be FIRST:LAST, the steps to profile counted from 1, and at most "
            f"{MAX_PROFILED_STEPS} of them: a trace of more could not be opened. Use 10:13, for example."
        )
    return first, last


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """How the processes of a training stage are started."""

    backend: Annotated[str, OneOf(("local", "trainjob"))]
    """`local`: processes on this machine; `trainjob`: a Kubeflow TrainJob placed as `placements` says."""
    processes_per_node: Workers
    """Training processes on this machine (`local`): one a GPU, or one a core."""
    threads_per_process: Workers
    """CPU threads of each training process."""
    task_stall_seconds: Seconds = 1800.0
    """Time without progress after which a run on this machine stops a task that trains nothing, and any run a dataset's
    build on a cluster; ten times the longest pause of that task if that is longer."""

    def __post_init__(self) -> None:
        check_fields(self, "launch")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionConfig:
    """What a candidate must show to become champion. Missing evidence refuses."""

    registered_model: str
    """Name of the model in the registry."""
    gates: dict[str, GateConfig]
    """The gates by name, in the order in which they are shown. All must pass, beside those that every candidate must:
    whole and fresh evidence, data that passed validation, a checkpoint whose digests match."""

    def __post_init__(self) -> None:
        check_fields(self, "promotion")
        require_name("promotion.registered_model", self.registered_model)
        check_gates(self.gates)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that determines a run's result."""

    name: str
    """Name of the recipe."""
    seed: Annotated[int, Range(at_least=0, below=2**32)]
    """Seed of the sample order and of the projector's first weights."""
    model: ModelConfig
    """Where stage 1 starts from."""
    data: DataConfig
    """How media and text become packed rows."""
    stages: StageTable
    """The training stages by name, in the order in which they run; each starts from the previous one's weights."""
    optimizer: OptimizerConfig
    """AdamW and its schedule."""
    engine: EngineConfig
    """How DeepSpeed runs."""
    launch: LaunchConfig
    """How a stage's processes are started."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How a training process reads and decodes its samples."""
    placements: PlacementTable
    """Where each stage runs on a cluster, by its name; `build`: where the dataset is built, by Ray on several nodes;
    `evaluation`: where models are evaluated, by pods that share the questions."""
    step_pods: StepPodsConfig = field(default_factory=StepPodsConfig)
    """What the pods of the workflow's own steps take on a cluster."""
    evaluation: EvaluationConfig
    """How held-out accuracy is measured."""
    promotion: PromotionConfig
    """What a champion must show."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        require_name("name", self.name)
        check_stage_names(self.stages)
        if set(self.stages) != set(self.placements) - set(RESERVED):
            unplaced = [name for name in self.stages if name not in self.placements]
            unknown = [name for name in self.placements if name not in (*self.stages, *RESERVED)]
            problem = f"lacks {', '.join(unplaced)}" if unplaced else f"places {', '.join(unknown)}, which is no stage"
            raise ConfigError(
                f"placements {problem}; the stages are {', '.join(self.stages)}. Give each stage one placement."
            )
        if BUILD in self.placements:
            _check_build(self.placements[BUILD])
        for stage in self.stages:
            validate_stage(self, stage)
            _check_resolution(self, stage)

    @property
    def step_sizes(self) -> dict[str, PodSize]:
        """The pods of the workflow's own steps, by kind."""
        return self.step_pods.of(("launcher", "data", "evaluator"))

    def runs(self) -> list["RunConfig"]:
        """The runs that it stands for: itself, or one for each arm of an ablation."""
        return [self]

    def of_part(self, part: str) -> tuple["RunConfig", str]:
        """The configuration of one task and which stage it is about, from the constant that the workflow passes it."""
        return self, part

    def stage_number(self, stage: str) -> int:
        """Position of a stage in the table, from 1: for messages and for the stage's random seed."""
        return list(self.stages).index(stage) + 1

    def stage_seed(self, stage: str) -> int:
        """Seed of what a stage draws at random: the order of its samples, the first values of its adapters.

        A stage that is added at the end leaves the seeds of the others as they are: with seed 10 the first four
        stages have 41, 42, 43 and 44, and a fifth has 45 (as the first one has under seed 11, which does no harm:
        they are stages of different runs).
        """
        return self.seed * _SEEDS_PER_RUN + self.stage_number(stage)

    def shared_packs(self, stage: str) -> int:
        """Packed rows of a stage's step, or what their number is a multiple of: processes share them evenly."""
        row = self.stages[stage]
        return row.packs_divisible_by if row.packs_per_step is None else row.packs_per_step

    def world_sizes(self, stage: str) -> list[int]:
        """Numbers of processes with which a stage may run under the chosen backend, the largest first."""
        if self.launch.backend == "local":
            return [self.launch.processes_per_node]
        placement = self.placements[stage]
        return [count * placement.processes_per_node for count in placement.node_counts(self.shared_packs(stage))]

    def published_type(self, stage: str) -> str:
        """Type of the weights that a stage publishes, fp32 or bf16."""
        if self.engine.published_weights != "release":
            return self.engine.published_weights
        return "bf16" if self.stage_number(stage) == len(self.stages) else "fp32"

    def num_processes(self, stage: str) -> int:
        """World size of a stage under the chosen backend."""
        if self.launch.backend == "local":
            return self.launch.processes_per_node
        return self.placements[stage].num_processes


def _check_build(build: PlacementConfig) -> None:
    """Refuse what the build cannot use."""
    if build.gpus_per_node:
        raise ConfigError(
            f"placements.{BUILD}.gpus_per_node={build.gpus_per_node}: the build decodes on CPUs, so GPUs would be "
            f"idle. Set placements.{BUILD}.gpus_per_node=0 and a pool without GPUs."
        )
    unused = {
        "min_nodes": build.min_nodes is not None,
        "fabric": build.fabric != FabricConfig(),
        "scheduling": build.scheduling != SchedulingConfig(),
    }
    if named := [name for name, is_set in unused.items() if is_set]:
        raise ConfigError(
            f"placements.{BUILD} sets {', '.join(named)}, which only training stages use: the build's pods are made "
            "after the pool's PodTemplate (manifests/base/ray). Leave it out, and change the template if they need it."
        )


def validate_stage(run: RunConfig, stage: str) -> None:
    """Check what involves two parts of the configuration.

    Raises:
        ConfigError: the global batch of the stage is not divisible by its processes.
    """
    row = run.stages[stage]
    name = "packs_divisible_by" if row.packs_per_step is None else "packs_per_step"
    packs = run.shared_packs(stage)
    is_local = run.launch.backend == "local"
    source = "launch.processes_per_node" if is_local else f"placements.{stage}"
    for processes in _world_sizes(run, stage):
        if packs % processes:
            raise ConfigError(
                f"stages.{stage}.{name}={packs} is not divisible by the {processes} processes of {source}. Some "
                f"processes would wait for others in every step. Set {name} to a multiple of {processes}."
            )


def _check_resolution(run: RunConfig, stage: str) -> None:
    """Refuse what an encoder of fixed resolution cannot do."""
    side, row = run.model.side_patches, run.stages[stage]
    if side is None:
        return
    if row.difffp:
        raise ConfigError(
            f"stages.{stage}.difffp=true with model.picture_side_px={run.model.picture_side_px}: an encoder of fixed "
            "resolution needs whole squares, and datasets count what DiffFP keeps at the sizes of any resolution. Set "
            f"stages.{stage}.difffp=false, or model.picture_side_px=null."
        )
    if side % row.image_merge_size:
        raise ConfigError(
            f"stages.{stage}.image_merge_size={row.image_merge_size} does not divide the {side} x {side} patches of "
            f"model.picture_side_px={run.model.picture_side_px}. Set it to 1."
        )


def _world_sizes(run: RunConfig, stage: str) -> list[int]:
    """The numbers of processes that a stage must be able to have: the one that it asks for, and the fewest."""
    placement = run.placements[stage]
    if run.launch.backend == "local" or placement.min_nodes is None:
        return [run.num_processes(stage)]
    return [placement.num_processes, placement.min_nodes * placement.processes_per_node]
