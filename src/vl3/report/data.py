"""The data of the report: the report step fills it, the renderer draws it.

Only `run` is required. A part that the run did not reach is None (or empty), and `missing` has the reason under the
section's name, one of SECTIONS. The section then shows "Not available" and that reason.
"""

from dataclasses import dataclass, field
from typing import Any

from vl3.config.checks import require_choice

STEP_STATES = ("done", "reused", "failed", "running", "pending")
VERDICTS = ("champion", "refused", "none")
SECTIONS = (
    "accuracy",
    "published",
    "champion",
    "changed",
    "gates",
    "chain",
    "curves",
    "throughput",
    "cost",
    "difffp",
    "mix",
    "extremes",
    "predictions",
    "validation",
    "lineage",
)
"""Names of the report's sections in the order of the page; the keys of ReportData.missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """Facts about the run."""

    run_id: str
    """Identifier of the workflow run."""
    run_name: str
    """Name that the user gave the run."""
    recipe: str
    """Name of the recipe."""
    seed: int
    """Seed of the run."""
    started_at: float | None = None
    """Start of the run, unix seconds."""
    overrides: list[str] = field(default_factory=list)
    """Overrides of the recipe, `path.to.field=value`."""
    ran: list[dict[str, str]] = field(default_factory=list)
    """What ran for this report and for each checkpoint: `what`, `commit`, `tree`, `command`, `machine` and `image`."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions by name: vl3, python, torch, deepspeed, transformers."""
    machine: str = ""
    """Description of the machine, for example `2 cores, 24 GiB`."""
    mlflow_page: str = ""
    """Address of the run's page in MLflow; empty if its store is no server."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateVerdict:
    """The decision about the candidate."""

    state: str
    """`champion`, `refused` or `none` (no decision was made)."""
    reason: str = ""
    """One sentence: why it was refused, or why there is no decision."""

    def __post_init__(self) -> None:
        require_choice("verdict", "state", self.state, VERDICTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainStep:
    """One task of the workflow with its times."""

    name: str
    """Name of the task, for example `train-alignment`."""
    state: str
    """One of STEP_STATES."""
    started_at: float | None = None
    """Start, unix seconds."""
    ended_at: float | None = None
    """End, unix seconds."""
    seconds: float | None = None
    """Time that the step worked in this run, in seconds."""
    produced_in_seconds: float | None = None
    """For a reused step: how long making its output took originally, in seconds."""
    note: str = ""
    """A short remark or, for a failed step, its error message."""

    def __post_init__(self) -> None:
        require_choice(f"step {self.name!r}", "state", self.state, STEP_STATES)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageData:
    """One training stage: its settings and the raw events of its worker."""

    stage: str
    """Name of the stage."""
    config: dict[str, Any]
    """The stage's row of the stage table: to_dict(StageConfig)."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The lines of the stage's event file, unchanged (types metrics, start, end, note, progress), of all attempts."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The stage's plan in numbers: PlanFacts.summary()."""
    notes: list[str] = field(default_factory=list)
    """Remarks, for example the plan's notes."""
    spent: dict[str, Any] | None = None
    """What the stage took of its pool: vl3.launch.spent.Spent as plain data; None in logs of older versions."""
    planned: dict[str, Any] | None = None
    """The same as it was planned; None if nothing was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One promotion gate with its evidence."""

    name: str
    passed: bool
    value: Any = None
    """What was measured, a number or a text; None if there is no evidence."""
    threshold: Any = None
    """What was required, a number or a text."""
    detail: str = ""
    """A sentence about the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedChampion:
    """The champion that the candidate was compared with."""

    version: int
    """Its version in the registry."""
    model: str
    """Its name in the evidence."""
    candidate: str
    """The candidate's name there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownFinding:
    """One finding of data validation."""

    severity: str
    """`critical` or `warning`."""
    check: str
    """Name of the check."""
    message: str
    """What was found."""
    count: int | None = None
    """Number of affected rows."""
    examples: list[str] = field(default_factory=list)
    """Locations, for example `annotations/train.jsonl:12`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationData:
    """Result of data validation."""

    passed: bool
    findings: list[ShownFinding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts about the dataset to show, for example samples, train, heldout, refused, expectations."""
    docs: str = ""
    """Path of the Data Docs' first page beside the report; empty if there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageNode:
    """One artifact on the way from the data and the bases to the model version."""

    key: str
    """Its name in the `parents` of others."""
    parents: list[str] = field(default_factory=list)
    """Keys of the artifacts that it was made from."""
    kind: str
    """`data`, `base`, `checkpoint`, `evaluation` or `model`."""
    name: str
    """For example `dataset`, `vision base`, `alignment`, `vl3-tiny`."""
    sha256: str = ""
    """Digest; empty if the node has none."""
    uri: str = ""
    """Where it is stored."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further facts to show, for example version, alias, samples, steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """Everything that the report shows."""

    run: RunFacts
    verdict: CandidateVerdict = field(default_factory=lambda: CandidateVerdict(state="none"))
    chain: list[ChainStep] = field(default_factory=list)
    """Tasks in the order of the workflow."""
    wall_seconds: float | None = None
    """Duration of the whole run so far, in seconds."""
    stages: list[StageData] = field(default_factory=list)
    """Training stages in order."""
    evaluation: dict[str, Any] | None = None
    """Content of evaluation.json (vl3.evaluation.result.Evaluation.to_dict())."""
    items: dict[str, Any] = field(default_factory=dict)
    """Content of items.json (vl3.evaluation.result.list_items); empty if the evaluation kept none."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Content of evidence.json (vl3.evaluation.evidence.make_evidence); empty if the evaluation has none."""
    published: list[dict[str, Any]] = field(default_factory=list)
    """Our scores beside the published ones (vl3.evaluation.beside.beside_published)."""
    titles: dict[str, str] = field(default_factory=dict)
    """What people call a benchmark, by its name."""
    shown_items: dict[str, Any] = field(default_factory=dict)
    """The last model's best and worst items, and what changed (vl3.evaluation.changes.shown_items)."""
    item_pictures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Paths of pictures within the evaluation's folder, by benchmark and item."""
    champion: ComparedChampion | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """The effective configuration."""
    gates: list[Gate] | None = None
    validation: ValidationData | None = None
    lineage: list[LineageNode] = field(default_factory=list)
    """From the data and the bases to the model version; each after its parents."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a part is missing, by section name."""

    def __post_init__(self) -> None:
        for section in self.missing:
            require_choice("report.missing", "section", section, SECTIONS)
