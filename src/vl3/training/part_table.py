"""What really trains, against the row of the stage table: parameters and learning rate of each part, said at the start.

    part        parameters   trained       peak rate   weight decay
    vision      412,442,352  412,442,352   1e-05       0.01 (matrices)
    projector     8,918,784    8,918,784   0.001       0.01 (matrices)
    language  1,543,714,304            0   frozen

A stage whose encoder was frozen by mistake trains as fast as ever and ends with a loss that looks right.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vl3.config.stages import LearningRates
from vl3.errors import ConfigError
from vl3.models.lora import is_adapter
from vl3.training.optimizer_groups import PARTS, NamedParameters, num_values


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRow:
    """One part of the model."""

    part: str
    parameters: int
    """All of its numbers."""
    trained: int
    """Those that the optimizer has."""
    peak_rates: tuple[float, ...]
    """Peak rates of its groups in the optimizer, each once."""
    weight_decays: tuple[float, ...]
    """Weight decays of its groups, each once."""


def part_rows(parts: Mapping[str, NamedParameters], groups: Sequence[Mapping[str, Any]]) -> list[PartRow]:
    """The rows, from the optimizer's groups and the parts of the model."""
    rows = []
    for part in PARTS:
        mine = [group for group in groups if group["part"] == part]
        held = {id(parameter) for group in mine for parameter in group["params"]}
        rows.append(
            PartRow(
                part=part,
                parameters=num_values(parameter for _, parameter in parts[part]),
                trained=num_values(parameter for _, parameter in parts[part] if id(parameter) in held),
                peak_rates=tuple(dict.fromkeys(group["peak_lr"] for group in mine)),
                weight_decays=tuple(sorted({group["weight_decay"] for group in mine}, reverse=True)),
            )
        )
    return rows


def require_stage_table(
    parts: Mapping[str, NamedParameters],
    groups: Sequence[Mapping[str, Any]],
    rates: LearningRates,
    *,
    adapters_only: bool,
    stage: str,
) -> list[PartRow]:
    """Check what the optimizer got against the stage table, before the model is sharded; returns the rows.

    Args:
        parts: the model's parameters by part.
        groups: the optimizer's.
        rates: the row of the stage table.
        adapters_only: whether only the adapters of the language model train (LoRA).
        stage: name of the stage, for messages.

    Raises:
        ConfigError: a part trains other parameters, or with another rate, than the stage table says.
    """
    rows = part_rows(parts, groups)
    for row in rows:
        rate = getattr(rates, row.part)
        if rate is None:
            expected = 0
        elif row.part == "language" and adapters_only:
            expected = num_values(parameter for name, parameter in parts[row.part] if is_adapter(name))
        else:
            expected = row.parameters
        if row.trained != expected or row.peak_rates != (() if rate is None else (rate,)):
            raise ConfigError(
                f"stages.{stage}: {row.part} would train {row.trained:,} of its {row.parameters:,} parameters with "
                f"{_rates(row)}, and the stage table says {expected:,} with {'none' if rate is None else f'{rate:g}'}. "
                "The weights would not be those of this recipe, and the loss would not tell. Something between recipe "
                f"and optimizer changed them: report it with the recipe, or set stages.{stage}.learning_rates."
            )
    return rows


def require_rates(groups: Iterable[Mapping[str, Any]], rows: Sequence[PartRow]) -> None:
    """Check that the engine's groups still have the rates that the table was made of; it wraps and splits them.

    Raises:
        ConfigError: a part lost a group, or its rate.
    """
    found: dict[str, set[float]] = {}
    for group in groups:
        found.setdefault(group["part"], set()).add(group["peak_lr"])
    expected = {row.part: set(row.peak_rates) for row in rows if row.peak_rates}
    if found != expected:
        raise ConfigError(
            f"the engine's optimizer has the peak rates {found}, and was given {expected}. A part would train with "
            "another rate. Use the version of DeepSpeed in constraints.txt."
        )


def table_text(rows: Sequence[PartRow]) -> str:
    """The table, as the log shows it."""
    lines = [("part", "parameters", "trained", "peak rate", "weight decay")]
    for row in rows:
        decays = ", ".join(f"{decay:g}" for decay in row.weight_decays)
        lines.append((row.part, f"{row.parameters:,}", f"{row.trained:,}", _rates(row), decays))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def table_event(rows: Sequence[PartRow]) -> dict[str, Any]:
    """The table, as the `start` event has it: by part."""
    return {
        row.part: {
            "parameters": row.parameters,
            "trained": row.trained,
            "peak_rates": list(row.peak_rates),
            "weight_decays": list(row.weight_decays),
        }
        for row in rows
    }


def _rates(row: PartRow) -> str:
    return ", ".join(f"{rate:g}" for rate in row.peak_rates) or "frozen"
