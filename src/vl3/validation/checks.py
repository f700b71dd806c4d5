"""The checks as data: expectation, table, severity, and what a failure means.

A critical failure refuses the dataset; a warning is only reported. Lines that the builder refused are left out and
listed: up to `data.max_bad_fraction` of all lines they are a warning, above it they are critical.
"""

from vl3.config.data import Category
from vl3.config.run import RunConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.problems import ProblemKind
from vl3.validation.check import CRITICAL, WARNING, Check, among, between, empty
from vl3.validation.profile import STABILITY_BOUND

MAX_ASPECT_RATIO = 200
"""Above it one side would become smaller than a patch at any budget (the limit of the released processor)."""
WIDE_ASPECT_RATIO = 20
"""Above it the resize leaves little detail."""
MAX_SIDE_PX = 16384
"""Longest allowed side: a square picture of this size takes 800 MB."""
MAX_DURATION_SECONDS = 24 * 3600
"""A longer duration means a damaged header."""
SPARSE_SECONDS_PER_FRAME = 30
"""Gap between sampled frames above which short events are missed."""
MAX_SOURCE_FPS = 240
"""A higher frame rate means a damaged header."""
FAR_FROM_ASKED = 10
"""Factor between the share in the mixture and in the data above which samples repeat often, or many are unused."""


def all_checks(config: RunConfig, *, bad_severity: str) -> list[Check]:
    """Every check for a run.

    Args:
        config: limits, mixtures and the wanted number of held-out samples.
        bad_severity: severity of refused lines: `warning` up to the tolerated share, else `critical`.
    """
    return [
        *schema_checks(),
        *_line_checks(bad_severity),
        *_structure_checks(),
        *_size_checks(),
        *_video_checks(),
        *_length_checks(config),
        *_identity_checks(),
        *_mixture_checks(),
        *_heldout_checks(config),
        *_drift_checks(),
    ]


def schema_checks() -> list[Check]:
    """The check of the index's columns; if it fails, nothing else can be checked."""
    return [
        Check(
            name="schema",
            table="schema",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "fits", "value_set": [True]},
            severity=CRITICAL,
            meaning="columns of the index are missing or have another type. Build the dataset again with this version",
            reason_columns=("asked", "found"),
        )
    ]


_AGAIN = "Build the dataset again"
_KIND_MEANINGS = {
    ProblemKind.JSON: "lines are not JSON",
    ProblemKind.STRUCTURE: "lines lack required fields or have fields of the wrong type",
    ProblemKind.NO_TURNS: "conversations are empty",
    ProblemKind.NO_ANSWER: "conversations have no answer to learn from",
    ProblemKind.TURNS: "turns do not alternate between human and gpt",
    ProblemKind.TAGS: "<image> and <video> tags do not match the media",
    ProblemKind.TIMES: "timestamps are not in order or are outside the video",
    ProblemKind.BOXES: "boxes exceed the range 0 to 1000 or have their corners in the wrong order",
    ProblemKind.DUPLICATE: "sample ids are used twice",
    ProblemKind.OUTSIDE_FOLDER: "paths lead outside the data folder",
    ProblemKind.MISSING_FILE: "media files are missing",
    ProblemKind.UNDECODABLE: "media files cannot be decoded",
    ProblemKind.TOO_LONG: "samples exceed the token limits",
}


def _line_checks(severity: str) -> list[Check]:
    undecided = Check(
        name="problem_known",
        table="lines",
        expectation="ExpectColumnValuesToBeNull",
        arguments={"column": "undecided"},
        severity=CRITICAL,
        meaning="lines have a problem without its kind or a kind without its problem. Build the dataset again",
        reason_columns=("problem", "problem_kind"),
    )
    refused = [
        _refused(kind.value, "ExpectColumnValuesToNotBeInSet", [kind.value], severity, meaning)
        for kind, meaning in _KIND_MEANINGS.items()
    ]
    known = [kind.value for kind in _KIND_MEANINGS]
    other = _refused("other", "ExpectColumnValuesToBeInSet", known, severity, "lines have another problem")
    return [undecided, *refused, other]


def _refused(name: str, expectation: str, kinds: list[str], severity: str, meaning: str) -> Check:
    return Check(
        name=f"refused_{name}",
        table="lines",
        expectation=expectation,
        arguments={"column": "problem_kind", "value_set": kinds},
        severity=severity,
        meaning=f"{meaning}. They are left out; correct or drop them",
        reason_columns=("problem",),
    )


def _structure_checks() -> list[Check]:
    """Facts about the samples that were kept; a failure here means that the builder missed a problem."""
    facts = {
        "media_present": "media files are missing",
        "media_decodable": "media files cannot be decoded",
        "path_inside": "paths lead outside the data folder",
        "turns_alternate": "turns do not alternate between human and gpt",
        "tags_match": "<image> and <video> tags do not match the media",
        "timestamps_ordered": "timestamps are not in order",
        "boxes_in_range": "boxes exceed the range 0 to 1000",
    }
    checks = [
        among(fact, fact, [True], CRITICAL, f"{meaning}, but the samples were kept. Correct them and build again")
        for fact, meaning in facts.items()
    ]
    named = [
        among("split_known", "split", ["train", "heldout"], CRITICAL, f"samples have an unknown split. {_AGAIN}"),
        among(
            "category_known",
            "category",
            [category.value for category in Category],
            CRITICAL,
            f"samples have an unknown category. {_AGAIN}",
        ),
    ]
    facts_known = empty(
        "facts_known",
        "unknown_facts",
        CRITICAL,
        f"samples were kept although facts about them are unknown, so nothing says that they are good. {_AGAIN}",
    )
    negative = empty(
        "facts_not_negative", "negative_facts", CRITICAL, f"samples have counts or sizes below 0. {_AGAIN}"
    )
    has_samples = between(
        "has_samples",
        "samples",
        1,
        None,
        CRITICAL,
        "there is no usable sample. Look at the refused lines",
        table="dataset",
    )
    return [*checks, *named, facts_known, negative, has_samples]


def _size_checks() -> list[Check]:
    return [
        between("side_px", "min_side_px", 1, None, CRITICAL, "media have a side of 0 px. Replace them"),
        between(
            "side_px_limit",
            "max_side_px",
            None,
            MAX_SIDE_PX,
            CRITICAL,
            f"media have a side above {MAX_SIDE_PX} px. Scale them down",
        ),
        between(
            "side_px_small",
            "min_side_px",
            PATCH_SIZE_PX,
            None,
            WARNING,
            f"media are smaller than one patch ({PATCH_SIZE_PX} px) and will be enlarged",
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
            f"media have an aspect ratio above {WIDE_ASPECT_RATIO}; little detail is left after the resize",
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
            f"videos report more than {MAX_SOURCE_FPS} frames per second",
        ),
        between(
            "frames_sparse",
            "seconds_per_frame",
            None,
            SPARSE_SECONDS_PER_FRAME,
            WARNING,
            f"sampled frames are more than {SPARSE_SECONDS_PER_FRAME} s apart, so short events are missed. "
            "Cut the videos or raise data.max_frames",
        ),
    ]


def _length_checks(config: RunConfig) -> list[Check]:
    length, visual = config.data.max_length_tokens, config.data.max_row_visual_tokens
    return [
        between(
            "length_tokens",
            "longest_tokens",
            1,
            length,
            CRITICAL,
            f"samples exceed data.max_length_tokens={length} and do not fit into a row. "
            "Raise it, shorten them or lower data.visual_budget_tokens",
        ),
        between(
            "visual_tokens",
            "visual_tokens",
            0,
            visual,
            CRITICAL,
            f"samples exceed data.max_row_visual_tokens={visual} and do not fit into a row. Raise it, or lower "
            "data.visual_budget_tokens or data.max_frames",
        ),
        between(
            "supervised_tokens",
            "supervised_tokens",
            1,
            None,
            CRITICAL,
            "samples have no supervised token. Give them an answer",
        ),
    ]


def _identity_checks() -> list[Check]:
    return [
        empty(
            "sample_id_unique",
            "same_id",
            CRITICAL,
            "sample ids are used twice, so one would hide the other. Give each sample its own id",
        ),
        empty("corrected", "warning", WARNING, "samples were corrected while reading. Check that this is intended"),
        empty(
            "unknown_keys",
            "unknown_keys",
            WARNING,
            "annotations have keys that vl3 does not read. Check that nothing is lost with them",
        ),
        empty(
            "duplicates",
            "first_copy",
            WARNING,
            "samples repeat an earlier one of the same split. Drop them, or they count twice",
        ),
        empty(
            "splits_disjoint",
            "held_out_copy",
            CRITICAL,
            "held-out samples are also trained on: a training line has one of their files, or the same texts and "
            "media, so the accuracy would be too high. Drop them from one split",
        ),
        between(
            "chance",
            "chance",
            0,
            1,
            CRITICAL,
            "the chance of guessing right is not from 0 to below 1. Correct the field",
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
            "the data has no sample for any kind of a stage's mixture. Add data or change the stage's mixture",
            table="stages",
        ),
        between(
            "mixture_served",
            "required_samples",
            1,
            None,
            CRITICAL,
            "the data lack something that a stage's mixture asks for. Add the data, take it out of the mixture, or set "
            "the stage's `missing` to drop",
            table="mixture",
        ),
        between(
            "mixture_present",
            "dropped_samples",
            1,
            None,
            WARNING,
            "the data lack something that a stage's mixture asks for; the stage goes without it (missing=drop)",
            table="mixture",
        ),
        between(
            "mixture_share",
            "oversampling",
            1 / FAR_FROM_ASKED,
            FAR_FROM_ASKED,
            WARNING,
            f"shares in a mixture and in the data differ by more than a factor of {FAR_FROM_ASKED}, so samples repeat "
            "often or many are unused",
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
            f"categories have fewer than evaluation.samples_per_task={wanted} held-out samples, so the gates will "
            "refuse the model for lack of evidence",
            table="heldout",
        ),
        between(
            "heldout_chance",
            "without_chance",
            None,
            0,
            WARNING,
            "held-out samples have no `chance`, so the gates will refuse the model for lack of evidence",
            table="heldout",
        ),
    ]


def _drift_checks() -> list[Check]:
    return [
        between(
            "drift",
            "stability_index",
            None,
            STABILITY_BOUND,
            WARNING,
            f"mix or lengths differ from the former build by a population stability index above {STABILITY_BOUND}, so "
            "losses and scores of the two cannot be compared. Check that the change is intended",
            table="drift",
            reasons=("samples_before", "samples_now"),
        )
    ]
