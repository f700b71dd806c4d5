"""The configuration of an ablation: one run for each of several encoders that shares everything else with the others.

What the arms share is the run itself: data, stages, optimizer, evaluation. An arm only names its encoder; its stages
are the shared ones under names of their own, so that tasks, checkpoints and jobs of all arms can be in one run:

    stages of the ablation   projector, alignment, instruction
    stages of the arm clip   clip_projector, clip_alignment, clip_instruction
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated

from vl3.config.checks import Range, check_fields
from vl3.config.placement import RESERVED
from vl3.config.run import RunConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError

MAX_ARMS = 5
"""Arms that the step which compares them takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig:
    """One encoder."""

    title: str
    """What tables call it."""
    vision_base: str
    """URI of its folder, as model.vision_base."""
    picture_side_px: Annotated[int, Range(at_least=PATCH_SIZE_PX, at_most=4096)]
    """Side of the square to which every picture is resized; must be the encoder's own."""
    vision_width: Annotated[int, Range(at_least=1, at_most=1_000_000)] | None = None
    """Width that the encoder must have; None takes any."""
    published: dict[str, Annotated[float, Range(at_least=0, at_most=1e6)]]
    """Published score of each benchmark (`vl3 eval list`), which the comparison shows beside ours; may be empty."""

    def __post_init__(self) -> None:
        check_fields(self, "arms")


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationConfig(RunConfig):
    """What all arms share, and the arms.

    `model` gives the decoder. Its encoder is not used; in our recipes it is that of the first arm, so that commands
    which take any recipe (`vl3 plan`) show that arm.
    """

    arms: dict[str, ArmConfig]
    """The encoders by a short name, in the order of the tables."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        if not 2 <= len(self.arms) <= MAX_ARMS:
            raise ConfigError(
                f"arms has {len(self.arms)} encoder(s), but an ablation compares 2 to {MAX_ARMS}. Add or remove some."
            )
        clashing = [name for name in self.arms if any(other.startswith(f"{name}_") for other in self.arms)]
        if clashing:
            raise ConfigError(
                f"arms has {clashing[0]!r} and a name that begins with {clashing[0]}_, so the names of their stages "
                "could be equal. Rename one."
            )
        for name in self.arms:
            self.arm(name)  # its stages' names and sizes are checked as those of any run

    def arm(self, name: str) -> RunConfig:
        """The run of one arm, as a run of its own would be configured.

        Raises:
            ConfigError: there is no such arm, or its encoder contradicts the stages.
        """
        if name not in self.arms:
            raise ConfigError(f"recipe {self.name} has no arm {name!r:.100}. Its arms: {', '.join(self.arms)}.")
        arm = self.arms[name]
        shared = {field.name: getattr(self, field.name) for field in fields(RunConfig)}
        model = replace(
            self.model,
            vision_base=arm.vision_base,
            picture_side_px=arm.picture_side_px,
            vision_width=arm.vision_width,
        )
        placements = {key if key in RESERVED else f"{name}_{key}": row for key, row in self.placements.items()}
        promotion = replace(self.promotion, registered_model=f"{self.promotion.registered_model}-{name}")
        own = {
            "model": model,
            "stages": {f"{name}_{stage}": row for stage, row in self.stages.items()},
            "placements": placements,
            "promotion": promotion,
        }
        try:
            return RunConfig(**shared | own)
        except ConfigError as error:
            raise ConfigError(f"arm {name}: {error}") from error

    def runs(self) -> list[RunConfig]:
        """See RunConfig: the run of each arm."""
        return [self.arm(name) for name in self.arms]

    def of_part(self, part: str) -> tuple[RunConfig, str]:
        """See RunConfig: `clip` is a step of the arm, `clip_projector` a stage of it; all else is shared."""
        if part in self.arms:
            return self.arm(part), ""
        for name in self.arms:
            if part.startswith(f"{name}_"):
                return self.arm(name), part
        return self, part
