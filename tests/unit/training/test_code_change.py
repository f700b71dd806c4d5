"""What is said where other code wrote the checkpoint that a stage would go on from."""

from dataclasses import replace

import pytest

from tests.unit.training.test_job import JOB
from vl3.training.checkpoint import TrainerState
from vl3.training.code_change import code_history, restart_note, resume_note

JOB = replace(JOB, code_version="b" * 64, commit="commit-b")
FOUND = TrainerState(
    step=300, optimizer_step=300, fingerprint="f", window={}, code_version="a" * 64, commit="commit-a", code_changes=[]
)
SAME = replace(FOUND, code_version=JOB.code_version, commit=JOB.commit)
CHANGE = "step 300: commit commit-a (version aaaaaaaaaaaa) -> commit commit-b (version bbbbbbbbbbbb)"


def test_other_code_is_said_with_both_commits() -> None:
    assert resume_note(JOB, FOUND) == (
        "resumes at step 300 with other code: checkpoint written by commit commit-a (version aaaaaaaaaaaa), now commit "
        "commit-b (version bbbbbbbbbbbb)"
    )
    assert code_history(JOB, FOUND).changes == (CHANGE,)


def test_the_same_code_under_another_commit_is_no_change() -> None:
    other = replace(SAME, commit="a-commit-of-docs")
    assert resume_note(JOB, other) == restart_note(JOB, other) == ""
    assert code_history(JOB, other).changes == ()
    assert code_history(JOB, None).changes == ()


def test_changes_add_up() -> None:
    assert code_history(JOB, replace(FOUND, code_changes=["step 10: a -> b"])).changes == ("step 10: a -> b", CHANGE)
    assert code_history(JOB, replace(SAME, code_changes=["step 10: a -> b"])).changes == ("step 10: a -> b",)


def test_a_checkpoint_from_before_code_was_noted_is_of_unknown_code() -> None:
    old = TrainerState(step=7, optimizer_step=7, fingerprint="f", window={})
    assert resume_note(JOB, old).startswith(
        "resumes at step 7 with other code: checkpoint written by commit unknown (version unknown), now commit commit-b"
    )


@pytest.mark.parametrize("found", [FOUND, replace(SAME, code_changes=["step 10: a -> b"])])
def test_restart_asks_for_one_code_from_the_first_step(found: TrainerState) -> None:
    note = restart_note(JOB, found)
    assert "starts again at step 0 because of engine.on_code_change=restart: the checkpoint of step 300" in note
