"""The ledger: each bad sample once, a limit that counts on after a resume, one list for all ranks."""

from dataclasses import asdict, replace

import pytest

from vl3.data.build.shards import ShardSpan
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.plan.stage_plan import PlannedSample
from vl3.errors import DataError

FIRST = BadSample(dataset=0, row=3, sample_id="a", where="annotations/train.jsonl:4", step=7, reason="it hung.")
SECOND = replace(FIRST, row=4, sample_id="b", step=2)
THIRD = replace(FIRST, dataset=1, step=9)


def planned(bad: BadSample) -> PlannedSample:
    span = ShardSpan(shard="shard-000000.tar", offset_bytes=0, length_bytes=512, sha256="0" * 64)
    return PlannedSample(dataset=bad.dataset, row=bad.row, span=span)


def test_each_sample_is_entered_once_in_the_order_of_steps() -> None:
    ledger = Ledger(fraction=0.5, usable_samples=4)
    for bad in (FIRST, SECOND, replace(FIRST, step=12)):
        ledger.add(bad)
    assert ledger.bad_samples == [SECOND, FIRST]
    assert ledger.has(planned(FIRST))
    assert not ledger.has(planned(THIRD))


def test_one_more_than_the_limit_is_refused_by_name() -> None:
    ledger = Ledger(fraction=0.5, usable_samples=4)
    ledger.add(FIRST)
    ledger.add(SECOND)
    with pytest.raises(DataError) as caught:
        ledger.add(replace(THIRD, sample_id="c"))
    assert str(caught.value) == (
        "sample 'c' (annotations/train.jsonl:4) cannot be used in step 9: it hung. It is bad sample number 3, and "
        "data.max_bad_fraction=0.5 allows 2. Repair the data and build the dataset again, or raise the limit."
    )


def test_the_limit_counts_on_after_a_resume() -> None:
    ledger = Ledger(fraction=0.5, usable_samples=4, former=[FIRST, SECOND])
    ledger.add(FIRST)
    with pytest.raises(DataError, match="bad sample number 3"):
        ledger.add(THIRD)


def test_ranks_that_merge_know_the_same_and_raise_together() -> None:
    ranks = [Ledger(fraction=0.5, usable_samples=4) for _ in range(2)]
    ranks[0].add(FIRST)
    ranks[1].add(FIRST)
    ranks[1].add(SECOND)
    found = [bad for ledger in ranks for bad in ledger.bad_samples]
    assert [ledger.merge(found) for ledger in ranks] == [[FIRST, SECOND]] * 2
    assert [ledger.bad_samples for ledger in ranks] == [[SECOND, FIRST]] * 2
    for ledger in ranks:
        with pytest.raises(DataError, match="bad sample number 3"):
            ledger.merge([*found, THIRD])


def test_what_a_rank_found_meanwhile_does_not_make_it_raise_alone() -> None:
    ledger = Ledger(fraction=0.25, usable_samples=4)
    ledger.add(FIRST)
    assert ledger.merge([SECOND]) == [SECOND]
    assert ledger.bad_samples == [SECOND, FIRST]


@pytest.mark.parametrize(
    "change",
    [{"row": "3"}, {"row": True}, {"step": None}, {"reason": 5}, {"more": 1}],
    ids=["text", "bool", "none", "number", "unknown"],
)
def test_an_entry_of_another_form_is_refused(change: dict[str, object]) -> None:
    assert BadSample.from_dict(asdict(FIRST)) == FIRST
    with pytest.raises(ValueError, match="is no entry of a ledger"):
        BadSample.from_dict(asdict(FIRST) | change)
    with pytest.raises(ValueError, match="is no entry of a ledger"):
        BadSample.from_dict([FIRST])  # type: ignore[arg-type]
