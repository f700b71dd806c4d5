"""What MLflow's page of a run says."""

from vl3.tracking.words import ChangedSetting, Results, changes, describe_end, describe_failure, describe_start

RESULTS = Results(
    state="champion",
    reason="every gate passed",
    model="vl3-tiny",
    version=4,
    before=0.05,
    after={"alignment": 0.5, "video": 0.871},
    categories={"chart": 0.9, "streaming": None},
    report="/runs/a/report/report.html",
)


def test_changes_are_the_settings_that_differ_in_the_recipes_order() -> None:
    recipe = {"seed": 0, "data": {"max_frames": 8, "fps": 1.0}, "stages": {"a": {"mixture": {"chart": 1.0}}}}
    run = {"seed": 1, "data": {"max_frames": 8, "fps": 2.0}, "stages": {"a": {"mixture": {"document": 1.0}}}}
    assert changes(recipe, run) == [
        ChangedSetting(setting="seed", recipe="0", run="1"),
        ChangedSetting(setting="data.fps", recipe="1.0", run="2.0"),
        ChangedSetting(setting="stages.a.mixture.document", recipe="-", run="1.0"),
        ChangedSetting(setting="stages.a.mixture.chart", recipe="1.0", run="-"),
    ]
    assert changes(recipe, recipe) == []


def test_the_description_begins_with_the_verdict_and_the_accuracy() -> None:
    text = describe_end(describe_start("tiny", "file:///data", []), RESULTS)
    assert text.split("\n\n") == [
        "[vl3-tiny version 4](#/models/vl3-tiny/versions/4) is the **champion**: every gate passed.",
        "Mean held-out accuracy **0.871** over 2 categories (before training 0.050; after each stage: alignment 0.500, "
        "video 0.871).",
        "The report is `report.html` among the artifacts, and at `/runs/a/report/report.html`.",
        "Recipe **tiny** on the data `file:///data`.",
        "Every setting is the recipe's.",
    ]


def test_a_setting_cannot_break_out_of_its_cell() -> None:
    text = describe_start("tiny", "d", [ChangedSetting(setting="a", recipe="x|y\nz", run="`<script>`")])
    assert text.splitlines()[-1] == "| `a` | `x\\|y z` | `'<script>'` |"


def test_a_failure_names_task_and_error() -> None:
    assert describe_failure("FAILED", "train-video", "ClusterError: gone") == (
        "The run **failed** in **train-video**: ClusterError: gone"
    )
    assert describe_failure("KILLED", "", "") == (
        "The run **was stopped**: it was cancelled, or a pod was killed before it could say why"
    )
    assert describe_failure("KILLED", "evaluate", "ClusterError: gone") == (
        "The run **was stopped** in **evaluate**: ClusterError: gone"
    )


def test_a_run_that_only_evaluates_names_the_model_and_promotes_nothing() -> None:
    results = Results(
        state="none",
        reason="it evaluates",
        model="hf://owner/a|b",
        version=None,
        before=0.5,
        after={},
        categories={"chart": 0.5},
        report="/r/report.html",
    )
    text = describe_end("Recipe **tiny**.", results)
    assert text.startswith(
        "Evaluates `hf://owner/a\\|b`; nothing is trained.\n\nMean held-out accuracy **0.500** over 1"
    )
    assert "version" not in text
