"""What one stage of a run really uses: its rows of the tables beside the shared groups."""

from typing import Any

from vl3.config.codec import to_dict
from vl3.config.run import RunConfig
from vl3.errors import ConfigError


def require_stage(config: RunConfig, stage: str) -> None:
    """Raise ConfigError unless the configuration has the stage; its stages are named."""
    if stage not in config.stages:
        raise ConfigError(f"recipe {config.name} has no stage {stage!r:.100}. Its stages: {', '.join(config.stages)}.")


def stage_view(config: RunConfig, stage: str) -> dict[str, Any]:
    """The effective configuration of one stage as plain data, without other stages' rows and other steps' pods.

    Raises:
        ConfigError: the configuration has no such stage.
    """
    require_stage(config, stage)
    data = to_dict(config)
    del data["step_pods"]
    row, placement = (data.pop(table)[stage] for table in ("stages", "placements"))
    return {"stage": stage, "stage_number": config.stage_number(stage), **row, **data, "placement": placement}
