"""The checks as data: which expectation, on which table, how severe, and what a failure means.

Severity decides: a critical failure refuses the dataset, a warning is reported. Lines that the builder refused are
left out by name; up to `data.max_bad_fraction` of them are a warning, more are critical.
"""

from collections.abc import Iterable

from vl3.config.run import RunConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.problems import ProblemKind
from vl3.validation.check import CRITICAL, WARNING, Check, among, between, empty

MAX_ASPECT_RATIO = 200
"""Above it one side would shrink to less than a patch at any budget (the limit of the released processor)."""
WIDE_ASPECT_RATIO = 20
"""Above it little of the picture survives the resize."""
MAX_SIDE_PX = 16384
"""Longest side that is decoded: a square of it takes 800 MB."""
MAX_DURATION_SECONDS = 24 * 3600
"""A longer duration is a damaged header."""
SPARSE_SECONDS_PER_FRAME = 30
"""Gap between sampled frames above which short events are not seen."""
MAX_SOURCE_FPS = 240
"""A higher frame rate is a damaged header."""
FAR_FROM_ASKED = 10
"""Factor between asked share and share in the data above which samples repeat, or go unused, conspicuously."""


def all_checks(config: RunConfig, *, bad_severity: str, kinds: Iterable[str] = ()) -> list[Check]:
    """Every check for a run.

    Args:
        config: limits, mixtures and the held-out samples asked for.
        bad_severity: severity of refused lines: `warning` below the tolerated share, else `critical`.
        kinds: kinds of problem that the index holds, so that none goes without a check of its own.
    """
    return [
        *schema_checks(),
        *_line_checks(bad_severity, kinds),
        *_structure_checks(),
        *_size_checks(),
        *_video_checks(),
        *_length_checks(config),
        *_identity_checks(),
        *_mixture_checks(),
        *_heldout_checks(config),
    ]


def schema_checks() -> list[Check]:
    """The columns of the index; nothing else can be checked where they fail."""
    return [
        Check(
            name="schema",
            table="schema",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "fits", "value_set": [True]},
            severity=CRITICAL,
            meaning="columns of the index are missing or hold another type. Build the dataset again with this version",
            reason_columns=("asked", "found"),
        )
    ]


_KIND_MEANINGS = {
    ProblemKind.JSON: "lines are not JSON",
    ProblemKind.STRUCTURE: "lines lack required fields or have fields of a wrong type",
    ProblemKind.NO_TURNS: "conversations are empty",
    ProblemKind.NO_ANSWER: "conversations have no answer to learn from",
    ProblemKind.TURNS: "turns do not alternate between human and gpt",
    ProblemKind.TAGS: "<image> and <video> tags do not match the media",
    ProblemKind.TIMES: "timestamps run backwards or leave the video",
    ProblemKind.BOXES: "boxes leave the range 0 to 1000 or have no area",
    ProblemKind.DUPLICATE: "sample ids are used twice",
    ProblemKind.OUTSIDE_FOLDER: "paths lead outside the data folder",
    ProblemKind.MISSING_FILE: "media files are missing",
    ProblemKind.UNDECODABLE: "media files cannot be decoded",
    ProblemKind.TOO_LONG: "samples exceed the token limits",
}


def _line_checks(severity: str, kinds: Iterable[str]) -> list[Check]:
    names = list(dict.fromkeys([*(kind.value for kind in ProblemKind), *kinds]))
    meanings = {kind.value: meaning for kind, meaning in _KIND_MEANINGS.items()}
    return [
        Check(
            name=f"refused_{name}",
            table="lines",
            expectation="ExpectColumnValuesToNotBeInSet",
            arguments={"column": "problem_kind", "value_set": [name]},
            severity=severity,
            meaning=f"{meanings.get(name, f'lines are refused as {name}')}. They are left out; correct or drop them",
            reason_columns=("problem",),
        )
        for name in names
    ]


def _structure_checks() -> list[Check]:
    """Facts of the samples that were kept; one that fails here slipped past the builder."""
    facts = {
        "media_present": "media files are missing",
        "media_decodable": "media files cannot be decoded",
        "path_inside": "paths lead outside the data folder",
        "turns_alternate": "turns do not alternate between human and gpt",
        "tags_match": "<image> and <video> tags do not match the media",
        "timestamps_ordered": "timestamps run backwards",
        "boxes_in_range": "boxes leave the range 0 to 1000",
    }
    checks = [
        among(fact, fact, [True], CRITICAL, f"{meaning}, though the sample was kept. Correct it and build again")
        for fact, meaning in facts.items()
    ]
    splits = "samples belong to no known split. Build the dataset again"
    has_samples = Check(
        name="has_samples",
        table="samples",
        expectation="ExpectTableRowCountToBeBetween",
        arguments={"min_value": 1},
        severity=CRITICAL,
        meaning="no usable sample is left. Look at the refused lines",
    )
    return [has_samples, *checks, among("split_known", "split", ["train", "heldout"], CRITICAL, splits)]


def _size_checks() -> list[Check]:
    return [
        between("side_px", "min_side_px", 1, None, CRITICAL, "media have no extent. Replace them"),
        between(
            "side_px_limit",
            "max_side_px",
            None,
            MAX_SIDE_PX,
            CRITICAL,
            f"media exceed {MAX_SIDE_PX} px a side. Scale them down",
        ),
        between(
            "side_px_small",
            "min_side_px",
            PATCH_SIZE_PX,
            None,
            WARNING,
            f"media are smaller than one patch ({PATCH_SIZE_PX} px) and are enlarged",
        ),
        between(
            "aspect_ratio",
            "aspect_ratio",
            1,
            MAX_ASPECT_RATIO,
            CRITICAL,
            f"media have an aspect ratio above {MAX_ASPECT_RATIO}. Crop them",
        ),
        between(
            "aspect_ratio_wide",
            "aspect_ratio",
            None,
            WIDE_ASPECT_RATIO,
            WARNING,
            f"media have an aspect ratio above {WIDE_ASPECT_RATIO}; little survives the resize",
        ),
    ]


def _video_checks() -> list[Check]:
    return [
        between(
            "duration",
            "duration_seconds",
            0,
            MAX_DURATION_SECONDS,
            CRITICAL,
            "videos have an impossible duration. Re-encode them",
            strict_min=True,
        ),
        between(
            "frame_rate",
            "source_fps",
            0,
            None,
            CRITICAL,
            "videos have no frame rate, so frames cannot be sampled by time. Re-encode them",
            strict_min=True,
        ),
        between(
            "frame_rate_high",
            "source_fps",
            None,
            MAX_SOURCE_FPS,
            WARNING,
            f"videos claim more than {MAX_SOURCE_FPS} frames a second",
        ),
        between(
            "frames_sparse",
            "seconds_per_frame",
            None,
            SPARSE_SECONDS_PER_FRAME,
            WARNING,
            f"sampled frames lie more than {SPARSE_SECONDS_PER_FRAME} s apart, so short events are not seen. "
            "Cut the videos or raise data.max_frames",
        ),
    ]


def _length_checks(config: RunConfig) -> list[Check]:
    length, visual = config.data.max_length_tokens, config.data.visual_budget_tokens
    return [
        between(
            "length_tokens",
            "longest_tokens",
            1,
            length,
            CRITICAL,
            f"samples exceed data.max_length_tokens={length} and fit no row. "
            "Raise it, shorten them or lower the visual budget",
        ),
        between(
            "visual_tokens",
            "visual_tokens",
            0,
            visual,
            CRITICAL,
            f"samples exceed data.visual_budget_tokens={visual}. Raise it or lower data.max_frames",
        ),
        between(
            "supervised_tokens",
            "supervised_tokens",
            1,
            None,
            CRITICAL,
            "samples have no token to learn from. Give them an answer",
        ),
    ]


def _identity_checks() -> list[Check]:
    return [
        Check(
            name="sample_id_unique",
            table="samples",
            expectation="ExpectColumnValuesToBeUnique",
            arguments={"column": "sample_id"},
            severity=CRITICAL,
            meaning="sample ids are used twice, so one would hide the other. Give each sample its own id",
        ),
        empty("mended", "warning", WARNING, "samples were mended on reading. Look whether that is what was meant"),
        empty(
            "duplicates",
            "first_copy",
            WARNING,
            "samples repeat an earlier one of the same split. Drop them, or they weigh double",
        ),
        empty(
            "splits_disjoint",
            "held_out_copy",
            CRITICAL,
            "held-out samples are also trained on, so accuracy would be flattered. Drop them from one split",
        ),
        between(
            "chance",
            "chance",
            0,
            1,
            CRITICAL,
            "the chance of guessing right is no probability below 1. Correct the field",
            strict_max=True,
        ),
    ]


def _mixture_checks() -> list[Check]:
    shares = ("asked_share", "data_share")
    return [
        between(
            "stage_has_samples",
            "samples",
            1,
            None,
            CRITICAL,
            "a stage finds no sample of any kind in its mixture. Add data or change the stage's mixture",
            table="stages",
        ),
        between(
            "mixture_present",
            "samples",
            1,
            None,
            WARNING,
            "kinds of a stage's mixture are absent from the data; their weight goes to the others",
            table="mixture",
        ),
        between(
            "mixture_source_present",
            "exact_samples",
            1,
            None,
            WARNING,
            "the data has no samples of the very source that a mixture names; the whole category stands in",
            table="mixture",
        ),
        between(
            "mixture_share",
            "oversampling",
            1 / FAR_FROM_ASKED,
            FAR_FROM_ASKED,
            WARNING,
            f"the asked share is over {FAR_FROM_ASKED} times off the share in the data: samples repeat or go unused",
            table="mixture",
            reasons=shares,
        ),
    ]


def _heldout_checks(config: RunConfig) -> list[Check]:
    wanted = config.evaluation.samples_per_task
    return [
        between(
            "heldout_samples",
            "samples",
            wanted,
            None,
            WARNING,
            f"categories have fewer than evaluation.samples_per_task={wanted} held-out samples; "
            "the gates will refuse for want of evidence",
            table="heldout",
        ),
        between(
            "heldout_chance",
            "without_chance",
            None,
            0,
            WARNING,
            "held-out samples do not say what guessing would give; the gates will refuse for want of evidence",
            table="heldout",
        ),
    ]
