"""A step reads one set of numbers from the device, whatever the ZeRO stage; a second read shows here."""

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vl3.config.run import RunConfig
from vl3.config.stages import LearningRates
from vl3.data.loader.rows import PackedRow
from vl3.training import one_fetch
from vl3.training.engine import TrainingEngine
from vl3.training.one_fetch import OneFetch, to_host
from vl3.training.optimizer_groups import freeze_parts, parameter_groups

RATES = LearningRates(vision=1e-3, projector=2e-3, language=3e-3)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")
"""Operations whose result depends on values: on a GPU the CPU waits for them."""


class Reads(TorchDispatchMode):
    """Names the operations that would make the CPU wait for a GPU, with where they were called.

    The norm that a step has fetched, and what is computed from it alone, would be on the CPU.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: list[str] = []
        self._on_host: list[Tensor] = []
        norm = OneFetch.norm

        def remembered(fetch: OneFetch, value: Tensor) -> Tensor:
            fetched = norm(fetch, value)
            self._on_host.append(fetched)
            return fetched

        monkeypatch.setattr(OneFetch, "norm", remembered)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [x for x in args if isinstance(x, Tensor)]
        is_on_host = bool(inputs) and all(any(x is known for known in self._on_host) for x in inputs)
        if not is_on_host and any(name in str(operation) for name in READS):
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            self.found.append(f"{operation} at {frames[-2].filename}:{frames[-2].lineno}")
        result = operation(*args, **(kwargs or {}))
        if is_on_host and isinstance(result, Tensor):
            self._on_host.append(result)
        return result


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of values of each transfer."""
    found: list[int] = []

    def counted(numbers: Any) -> list[float]:
        values = to_host(numbers)
        found.append(len(values))
        return values

    monkeypatch.setattr(one_fetch, "to_host", counted)
    yield found
    OneFetch._current = None


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("recompute", ["none", "selective"])
@pytest.mark.parametrize(
    ("zero_stage", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")],
)
def test_a_step_waits_for_the_device_once(
    zero_stage: int,
    precision: str,
    recompute: str,
    make_model: Callable[[], Any],
    make_row: Callable[..., PackedRow],
    make_config: Callable[..., RunConfig],
    fetches: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(zero_stage=zero_stage, precision=precision, recompute=recompute)
    model = make_model()
    freeze_parts(model.parts(), RATES)
    groups = parameter_groups(model.parts(), RATES, weight_decay=0.0)
    engine = TrainingEngine(model, groups, config, rows_per_rank=2)
    engine.set_learning_rates(1.0)
    engine.step([make_row(0), make_row(1)], stop_requested=False)  # makes the optimizer's state
    fetches.clear()
    with Reads(monkeypatch) as reads:
        result = engine.step([make_row(2), make_row(3)], stop_requested=True)
    norm = engine.grad_norm
    assert reads.found == []
    assert fetches == [1 + 2 + 2], "norm, supervised tokens and stops, and the loss of each row"
    assert norm > 0
    assert result.stop_requested
    assert result.loss_sum == pytest.approx(sum(result.row_losses))


def test_without_a_norm_the_numbers_are_fetched_all_the_same(fetches: list[int]) -> None:
    fetch = OneFetch()
    fetch.begin([torch.tensor([40.0, 0.0]), torch.tensor(60.0)])
    assert fetch.values() == [40, 0, 60]
    assert fetch.values() == [40, 0, 60]
    assert fetches == [3]


def test_the_norm_takes_the_numbers_along(fetches: list[int]) -> None:
    fetch = OneFetch()
    fetch.begin([torch.tensor([40.0, 0.0])])
    assert fetch.norm(torch.tensor(1.5)).item() == 1.5
    assert fetch.values() == [40, 0]
    assert fetches == [3]


def test_a_norm_that_is_not_finite_is_marked_without_a_copy() -> None:
    for value, marked in ((float("nan"), -1), (float("inf"), -1), (2.0, 2)):
        norm = torch.tensor(value)
        one_fetch._mask(norm, device="cpu")
        assert norm.item() == marked


def test_a_second_read_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with Reads(monkeypatch) as reads:
        norm = OneFetch().norm(torch.tensor(2.0))
        assert not (norm > 3)  # on the CPU by then
        assert torch.ones(1).item() == 1
    assert len(reads.found) == 1
    assert reads.found[0].startswith("aten._local_scalar_dense")
