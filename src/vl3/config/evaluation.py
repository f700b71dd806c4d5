"""The configuration of an evaluation: which models are asked what, and how."""

from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import Count, OneOf, PartialFraction, Seconds, Workers, check_fields
from vl3.config.data import Category
from vl3.config.endpoint import EndpointConfig
from vl3.errors import ConfigError

EVALUATED = ("before", "stages", "last", "champion")
"""What `evaluation.models` may name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Held-out accuracy by greedy generation."""

    samples_per_task: Count
    """Held-out samples of each category that are evaluated."""
    max_new_tokens: Count
    """Tokens that one answer may have."""
    batch_size: Count
    """Answers that a process generates at the same time."""
    processes: Workers
    """Processes on this machine that share the models and samples, one a GPU or a core; pods have those of
    `placements.evaluation`."""
    models: str = "before,stages,champion"
    """Which models are asked, with commas between: `before` (what the first stage starts from), `stages` (the
    checkpoint of each), `last` (only that of the last one), `champion` (the registry's, if there is one)."""
    benchmarks: tuple[str, ...] = ()
    """Benchmarks and groups of the catalogue (`vl3 eval list`) that the models are asked too."""
    benchmark_data: str = ""
    """URI of the folder that has a copy of each benchmark, as `vl3 eval data` makes them."""
    judge: EndpointConfig | None = None
    """Where the benchmarks that need a judge find it; None leaves their answers not judged."""
    dtype: Annotated[str, OneOf(("stored", "fp32", "bf16"))] = "stored"
    """Type in which checkpoints are loaded: as they are stored, fp32 or bf16."""
    max_failed_fraction: PartialFraction = 0.01
    """Share of a model's questions that may fail, because their media cannot be read or decoded; they are named and
    have no score. More end the evaluation."""
    prepare_threads: Workers = 2
    """Samples that each process reads and decodes at the same time, beside generation."""
    prepare_timeout_seconds: Seconds = 300.0
    """How long the media of one sample may take to be decoded before it counts as failed."""
    categories: tuple[Category, ...] = ()
    """The held-out categories that are asked; empty asks all."""

    def __post_init__(self) -> None:
        check_fields(self, "evaluation")
        evaluated_models(self.models)
        if self.benchmarks and not self.benchmark_data:
            raise ConfigError(
                f"evaluation.benchmarks names {', '.join(self.benchmarks)}, but evaluation.benchmark_data does not say "
                "where their data are. Set it to the folder below which `vl3 eval data` has written them."
            )


def evaluated_models(text: str) -> tuple[str, ...]:
    """The words of `evaluation.models`: `before, last` is ("before", "last").

    Raises:
        ConfigError: there is none, an unknown one, or one twice.
    """
    words = tuple(word.strip() for word in text.split(","))
    if len(set(words)) < len(words) or not set(words) <= set(EVALUATED):
        raise ConfigError(
            f"evaluation.models={text!r:.200} must be some of {', '.join(EVALUATED)}, each once, with commas between. "
            "Set before,stages,champion to ask what training starts from, what each stage made of it, and the champion."
        )
    return words
