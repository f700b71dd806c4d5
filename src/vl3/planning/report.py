"""The plan of a stage as text for a terminal."""

from collections.abc import Mapping, Sequence

from vl3.models.config import VideoLlama3Config
from vl3.planning.memory import GIB
from vl3.planning.parameters import TrainedParts, count_parameters
from vl3.planning.stage import StageForecast

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Head and rows."""


def parameter_table(model: VideoLlama3Config, trained: Mapping[str, TrainedParts]) -> Table:
    """Parameters of each part, and what each stage trains of them."""
    counts = {stage: count_parameters(model, lora_rank=parts.lora_rank) for stage, parts in trained.items()}
    any_count = next(iter(counts.values()))
    rows: list[tuple[str, ...]] = [
        ("parameters", f"{any_count.vision:,}", f"{any_count.projector:,}", f"{any_count.language:,}", "")
    ]
    for stage, parts in trained.items():
        count = counts[stage]
        language = count.adapters if parts.lora_rank else count.language * parts.language
        cells = (count.vision * parts.vision, count.projector * parts.projector, language)
        rows.append((f"trained in {stage}", *(f"{cell:,}" if cell else "-" for cell in cells), f"{sum(cells):,}"))
    rows[0] = (*rows[0][:4], f"{any_count.vision + any_count.projector + any_count.language:,}")
    return ("", "encoder", "projector", "language model", "in all"), rows


def memory_table(plans: Sequence[StageForecast]) -> Table:
    """GiB of one GPU by part at the moment when most is needed, and of a node's host, for each sharding."""
    names = list(plans[0].memory.parts)
    head = ("sharding", *names, "one GPU", "at", "host", "hours", "cost", "")
    rows: list[tuple[str, ...]] = []
    for plan in plans:
        cost = "" if plan.cost.amount is None else f"{plan.cost.amount:,.0f} {plan.cost.currency}"
        rows.append(
            (
                plan.sharding.describe(),
                *(_gib(plan.memory.parts[name]) for name in names),
                f"{_gib(plan.memory.peak)} of {plan.usable_gib:.1f}",
                plan.memory.moment,
                f"{plan.host.peak / GIB:.0f}" + (f" of {plan.node_memory_gib:g}" if plan.node_memory_gib else ""),
                f"{plan.hours:,.1f}",
                cost,
                "too large" if plan.problems else "fits",
            )
        )
    return head, rows


def host_table(plan: StageForecast) -> Table:
    """GiB of a node's host memory by part."""
    return ("host memory of a node", "GiB"), [(name, _gib(size)) for name, size in plan.host.parts.items()]


def flops_table(plan: StageForecast) -> Table:
    """TFLOP of a mean row by part."""
    flops = plan.time.flops
    rows: list[tuple[str, ...]] = [
        (name, f"{part.forward / 1e12:.2f}", f"{part.backward / 1e12:.2f}", f"{part.recomputed / 1e12:.2f}")
        for name, part in [*flops.parts.items(), ("in all", flops.total)]
    ]
    return ("TFLOP of a row", "forward", "backward", "recomputed"), rows


def time_table(plans: Sequence[StageForecast]) -> Table:
    """What each stage takes under the configured sharding."""
    head = (
        "stage",
        "GPUs",
        "sharding",
        "steps",
        "rows a step",
        "s a step",
        "rows/s",
        "MFU",
        "hours",
        "GPU-hours",
        "cost",
    )
    rows: list[tuple[str, ...]] = []
    for plan in plans:
        cost = "price unknown" if plan.cost.amount is None else f"{plan.cost.amount:,.0f} {plan.cost.currency}"
        rows.append(
            (
                plan.stage,
                f"{plan.sharding.ranks} {plan.device.name}",
                plan.sharding.describe(),
                f"{plan.rows.steps:,}",
                f"{plan.rows.packs_per_step:,}",
                f"{plan.time.seconds:.2f}",
                f"{plan.time.rows_per_second:.2f}",
                f"{plan.time.mfu:.1%}",
                f"{plan.hours:,.1f}",
                f"{plan.cost.gpu_hours:,.0f}",
                cost,
            )
        )
    return head, rows


def step_line(plan: StageForecast) -> str:
    """What a step's seconds are made of, as shares."""
    shares = ", ".join(f"{name} {part / plan.time.seconds:.0%}" for name, part in plan.time.parts.items() if part)
    return f"a step of {plan.time.seconds:.2f} s: {shares}"


def assumptions(plans: Sequence[StageForecast], notes: Sequence[str]) -> list[str]:
    """What had to be assumed, each sentence once."""
    device = plans[0].device
    own = [
        f"{device.title}: {device.source}",
        f"linear layers reach {device.product_share:.0%} and attention {device.attention_share:.0%} of the peak, norms "
        f"and activations {device.bandwidth_share:.0%} of the bandwidth",
        "data are always ready; start-up, saves and retries are not counted; 25 GB/s for each GPU between nodes",
        "memory is that of the largest row, and 6 % of a GPU's memory are kept for the allocator and the collectives",
    ]
    found = [*own, *notes, *(line for plan in plans for line in plan.rows.assumptions)]
    return list(dict.fromkeys(found))


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
