"""What one stage of a run really uses: its rows of the tables beside the shared groups."""

from typing import Any

from vl3.config.codec import to_dict
from vl3.config.run import RunConfig
from vl3.config.stages import Stage


def stage_view(config: RunConfig, stage: Stage) -> dict[str, Any]:
    """The effective configuration of one stage as plain data: the other stages' rows are left out."""
    data = to_dict(config)
    row, placement = (data.pop(table)[stage.value] for table in ("stages", "placements"))
    return {"stage": stage.value, "stage_number": stage.number, **row, **data, "placement": placement}
