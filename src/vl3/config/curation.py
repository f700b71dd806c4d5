"""Which images of a collection become training data, as data: scorers, and steps with thresholds and their source."""

from dataclasses import dataclass, field
from typing import Annotated

from vl3.config.checks import Count, Fraction, OneOf, Range, Seconds, Threshold, Workers, check_fields, require_name
from vl3.config.endpoint import EndpointConfig
from vl3.config.placement import CURATE, PlacementConfig
from vl3.config.step_pods import PodSize, StepPodsConfig
from vl3.errors import ConfigError

CAPTIONS = "captions"
"""The kind of scorer that asks an endpoint."""
SCORER_KINDS = (
    "image_facts",
    "benchmarks",
    "clip",
    "clip_head",
    "classifier",
    "blip2",
    "similarity",
    "ocr",
    CAPTIONS,
)
"""What a scorer can be (vl3.curation.scorers)."""
FILTER, EXACT, NEAR, CLUSTERS = "filter", "exact_duplicates", "near_duplicates", "clusters"
GLOBAL_KINDS = (EXACT, NEAR, CLUSTERS)
"""Steps that compare images with each other; all others judge one image at a time."""

Setting = str
"""The value of a scorer's setting, as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerConfig:
    """One scorer: what computes columns of an image."""

    kind: Annotated[str, OneOf(SCORER_KINDS)]
    """What it is."""
    weights: str = ""
    """URI of its weights: package://, file://, s3:// or hf://; empty for one without a model."""
    endpoint: EndpointConfig | None = None
    """The server of a model that is asked over the network; None for one whose weights are loaded here."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Its own settings by name, as texts; those that its kind does not know are refused."""
    batch_images: Count = 64
    """Images that its model is given together; a batch is filled up, so that each has the same shape."""
    gpus: Annotated[float, Range(at_least=0, at_most=8)] = 0.0
    """GPUs of each of its actors on a cluster; a fraction shares one. 0 runs on cores."""
    copies: Annotated[int, Range(at_least=0, at_most=4096)] = 0
    """Its actors on a cluster; 0 takes as many as its GPUs or cores allow."""

    def __post_init__(self) -> None:
        check_fields(self, "scorers")
        if (self.kind == CAPTIONS) != (self.endpoint is not None):
            raise ConfigError(
                f"scorers: kind={self.kind} with {'no' if self.endpoint is None else 'an'} endpoint. Only {CAPTIONS} "
                "asks one: set `endpoint` with url, model and version there, and leave it out elsewhere."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionStep:
    """One step of the selection: which images it drops."""

    kind: Annotated[str, OneOf((FILTER, *GLOBAL_KINDS))]
    """`filter` judges a column; `exact_duplicates` keeps the first of equal files; `near_duplicates` the first of those
    whose hashes differ in few bits; `clusters` a fixed number of each cluster."""
    column: str = ""
    """The column that it takes: a score, a hash of 64 bits, features. Empty for exact_duplicates."""
    minimum: Threshold | None = None
    """Smallest value that a filter keeps."""
    maximum: Threshold | None = None
    """Largest value that a filter keeps."""
    allowed: tuple[str, ...] = ()
    """Words that a filter keeps."""
    max_distance: Annotated[int, Range(at_least=0, at_most=15)] = 4
    """Bits in which the hashes of near duplicates differ at most."""
    num_clusters: Count = 1
    """Clusters of the features."""
    per_cluster: Count = 1
    """Images that are kept of each cluster, those nearest to its centre."""
    train_images: Count = 1_000_000
    """Images, evenly drawn, on which the centres are found; all are then assigned to them."""
    max_similarity: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """Cosine similarity above which an image of a cluster is left out beside one that is kept; 1 leaves none out."""
    source: str
    """Where the threshold is from: a section of the paper, a reference, or `ours` with the reason."""

    def __post_init__(self) -> None:
        check_fields(self, "steps")
        if self.kind != EXACT and not self.column:
            raise ConfigError(f"steps: a step of kind {self.kind} has no column, so nothing can be judged. Set it.")
        if not self.source.strip():
            raise ConfigError(
                f"steps: the threshold of {self.column or self.kind} has no source, so nobody could defend it. Name a "
                "section of the paper or a reference, or write `ours: why`."
            )

    @property
    def is_global(self) -> bool:
        """Whether it compares images with each other, so that all must be scored before it."""
        return self.kind in GLOBAL_KINDS


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationLaunch:
    """Where the scorers run."""

    backend: Annotated[str, OneOf(("local", "trainjob"))] = "local"
    """`local`: in the step's own process, or by Ray on this machine; `trainjob`: on the cluster, as a RayJob where
    `placements` has one named `curate`."""
    ray_workers: Annotated[int, Range(at_least=0, at_most=4096)] = 0
    """Cores that Ray takes on this machine, at least two; 0 scores in the step's own process, without Ray."""
    task_stall_seconds: Seconds = 1800.0
    """Time without progress after which a run on this machine stops a task."""

    def __post_init__(self) -> None:
        check_fields(self, "launch")


@dataclass(frozen=True, kw_only=True, slots=True)
class HandedDataset:
    """One dataset that the run hands to training."""

    caption: str
    """The column with its captions."""
    texts: str = ""
    """The column of an `ocr` scorer whose texts and boxes follow the caption (paper sec. 3.2.2); empty for none."""
    category: str = "scene_image"
    """Category of its samples in the mixtures."""
    prompt: str = "<image>\nDescribe the image."
    """The question of each sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSynthesis:
    """Captions and questions for clips of the collection's videos (paper sec. 3.2.4), by models behind endpoints."""

    captioner: EndpointConfig
    """Writes the dense captions."""
    asker: EndpointConfig | None = None
    """Writes the pairs and answers their questions again; None takes the captioner."""
    dataset: str = "video_synthesis"
    """Name of the dataset that is handed over."""
    pattern: str = "videos/*"
    """Which files of the collection are videos: names with `*`, `?` and `[...]`, folder by folder."""
    answers: str = ""
    """Folder of what endpoints answered, on a disk that all pods share; empty for beside the scores, or, where these
    are in a bucket, for the pod's own disk: then a finished video is kept in the bucket, and a lost one asked again."""
    workers: Workers = 2
    """Videos at once, each with a process that decodes."""
    max_bad_fraction: Fraction = 0.05
    """Share of the videos that may be undecodable; above it the run is refused."""

    def __post_init__(self) -> None:
        check_fields(self, "videos")
        parts = self.pattern.split("/")
        if self.pattern.startswith("/") or {"", ".", "..", "**"} & set(parts):
            raise ConfigError(
                f"videos.pattern={self.pattern!r} is no pattern of files in the collection. Write it folder by folder "
                "below the data folder, as `videos/*.mp4`, without `..` and `**`."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationConfig:
    """Everything that determines the result of a curation."""

    name: str
    """Name of the recipe."""
    seed: Annotated[int, Range(at_least=0, below=2**31)]
    """Seed of the clusters."""
    scorers: dict[str, ScorerConfig]
    """The scorers by name (docs/curation.md says which columns each kind makes)."""
    steps: dict[str, SelectionStep]
    """The steps in order. Cheap ones first: a dropped image is not scored again."""
    datasets: dict[str, HandedDataset]
    """What is handed over, by name."""
    videos: VideoSynthesis | None = None
    """What is made of the videos of the collection; None leaves them alone."""
    part_images: Count = 1000
    """Lines of annotations in one unit of work; a tar shard is one unit whatever it holds."""
    chunk_images: Annotated[int, Range(at_least=1, at_most=4096)] = 64
    """Images that travel together through the scorers."""
    max_image_bytes: Annotated[int, Range(at_least=1024, at_most=1 << 28)] = 32 << 20
    """Larger files fail, and are named."""
    max_image_px: Annotated[int, Range(at_least=1024, at_most=1 << 26)] = 1 << 26
    """Images with more pixels fail before they are decoded, and are named."""
    max_failed_fraction: Fraction = 0.1
    """Share of images that may fail (damaged, unreadable, a model without an answer); above it the run is refused."""
    download_workers: Workers = 8
    """Images of a bucket that are read at the same time."""
    launch: CurationLaunch = field(default_factory=CurationLaunch)
    """Where the scorers run."""
    placements: dict[str, PlacementConfig] = field(default_factory=dict)
    """`curate`: the pool of nodes with GPUs on which Ray runs the scorers."""
    step_pods: StepPodsConfig = field(default_factory=StepPodsConfig)
    """What the pods of the workflow's own steps take on a cluster."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        require_name("name", self.name)
        made = [self.videos.dataset] if self.videos is not None else []
        if set(made) & set(self.datasets):
            raise ConfigError(f"videos.dataset={made[0]} is the name of a dataset of images, too. Choose another.")
        for name in (*self.scorers, *self.steps, *self.datasets, *made):
            if not name.isidentifier():
                raise ConfigError(f"{name!r} cannot name a scorer, step or dataset. Use letters, digits and '_'.")
        if unknown := set(self.placements) - {CURATE}:
            raise ConfigError(
                f"placements names {', '.join(sorted(unknown))}; a curation has only {CURATE}. Remove it."
            )
        if bool(self.steps) != bool(self.datasets) or not (self.steps or self.videos):
            raise ConfigError(
                "steps or datasets are empty: nothing would be selected or handed over. Add one of each, or leave out "
                "both and set `videos`."
            )

    @property
    def step_sizes(self) -> dict[str, PodSize]:
        """The pods of the workflow's own steps, by kind."""
        return self.step_pods.of(("launcher", "data", "curator"))

    def of_part(self, part: str) -> tuple["CurationConfig", str]:
        """See RunConfig: a curation is one run, whose steps have no parts."""
        return self, part
