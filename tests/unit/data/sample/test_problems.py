"""What a message shows of a file's values, and how equal refusals are listed."""

import pickle

import pytest

from vl3.data.sample.problems import ProblemKind, SampleProblem, list_refusals, printable, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        ("\ud800\x1b[2J\u202e", r"'\ud800\x1b[2J\u202e'"),
        ([[[[[1]]]]], "[[[[...]]]]"),
        (float("nan"), "nan"),
    ],
)
def test_values_are_shown_quoted_and_printable(value, text):
    assert shown(value) == text


def test_long_values_are_cut():
    assert len(shown("x" * 10**6)) <= 120
    assert len(shown({f"k{n}": ["x" * 99] * 99 for n in range(99)})) <= 120
    assert printable("x" * 2000) == "x" * 997 + "..."


def test_a_problem_is_one_printable_line_and_survives_pickling():
    problem = SampleProblem(ProblemKind.JSON, "a\nb", "x\x1b:1")
    assert str(problem) == r"x\x1b:1: a\nb"
    again = pickle.loads(pickle.dumps(problem))
    assert (again.kind, again.reason, again.where) == (ProblemKind.JSON, r"a\nb", r"x\x1b:1")


def test_equal_refusals_are_listed_once():
    listed = list_refusals(
        [
            ("a:1", "empty"),
            *((f"a:{n}", f"media file 'p{n}.png' does not exist") for n in range(2, 12)),
            ("a:12", "empty"),
            ("a:13", "the line is not JSON (char 5)"),
            ("a:14", "the line is not JSON (char 9)"),
            *((f"a:{n}", f"p {n}.png: the image ({n} bytes) cannot be decoded") for n in range(20, 24)),
        ]
    )
    assert listed == [
        "a:1, a:12 (2 lines): empty",
        "a:2, a:3, a:4 and 7 more (10 lines): media file 'p2.png' does not exist (the others differ in their values)",
        "a:13: the line is not JSON (char 5)",
        "a:14: the line is not JSON (char 9)",
        "a:20, a:21, a:22 and 1 more (4 lines): p 20.png: the image (20 bytes) cannot be decoded (the others differ in "
        "their values)",
    ]
