"""What others published: the scores of VideoLLaMA3 and its peers on the paper's 26 benchmarks, and how they were asked.

Source: arXiv 2501.13106v4, tables 5 to 8, and the released evaluation scripts for the protocol. A number with `*` was
reproduced by the paper's authors, one with `+` is from the benchmark's own leaderboard. Where versions of the paper
differ, v4's table is taken and the other number is in the row's `differences`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from vl3.config.gates import HELDOUT
from vl3.evaluation.catalogue.entry import groups, read_benchmarks

SOURCE = "arXiv 2501.13106v4, tables 5 to 8"
OURS = "VideoLLaMA3"
"""The paper's model in the tables, with its size: VideoLLaMA3-2B."""
SIZES = ("2B", "7B")
IMAGE, VIDEO = "image", "video"

_IMAGE_2B = """
benchmark    SmolVLM-2B  InternVL2.5-2B  Qwen2-VL-2B  VideoLLaMA3-2B
chartqa      65.3*       79.2            73.5         79.8
docvqa       81.6        88.7            90.1         91.9
infovqa      -           60.9            65.5         69.4
ocrbench     622*        804             767*         779
mathvista    44.6        51.3            43.0         59.2
mathvision   6.5*        14.7            12.4         15.5
mmmu_pro     17.1*       23.7            26.0         28.6
mmmu         38.8        43.6            41.1         45.3
blink        42.3*       44.0            43.1*        44.2
realworldqa  48.8*       60.1            62.9         67.3
ai2d         62.1*       74.9            69.9         78.2
gqa          49.2*       59.5*           59.8*        62.7
mme          1600*       2005*           1872         1901
"""
_IMAGE_7B = """
benchmark    Molmo-7B-D  InternVL2.5-8B  LLaVA-OV-7B  NVILA-8B  Qwen2-VL-7B  VideoLLaMA3-7B
chartqa      84.1        84.8            80.0         86.1      83.0         86.3
docvqa       92.2        93.0            87.5         93.7      94.5         94.9
infovqa      72.6        77.6            68.8         70.7      76.5         78.9
ocrbench     -           822             621          676*      845          828
mathvista    51.6        64.4            63.2         65.4      58.2         67.1
mathvision   -           19.7            -            11.9*     16.3         26.2
mmmu_pro     -           34.3            24.1+        29.5*     31.4*        33.6
mmmu         45.3        56.0            48.8         49.9      54.1         48.8
blink        -           54.8            48.2         47.0*     43.1*        56.7
realworldqa  70.7        70.1            66.3         68.6      70.1         72.7
ai2d         93.2        84.5            81.4         92.3      83.0         84.7
gqa          -           -               62.3         -         62.4*        64.9
mme          -           2344            1998         2219      2327         2102
"""
_VIDEO_2B = """
benchmark       Apollo-2B  InternVL2.5-2B  Qwen2-VL-2B  VideoLLaMA3-2B
videomme        53.0       51.9            55.6         59.6
videomme_sub    54.6       54.1            60.4         63.4
mmvu            -          33.6*           36.5+        39.9
mvbench         -          68.8            63.2         65.5
egoschema       -          58.1*           54.9         58.5
perception_test 61.0       66.3*           53.9         68.0
activitynet_qa  -          54.1*           53.3*        58.2
mlvu            63.3       58.9*           62.7*        65.4
longvideobench  -          52.0            48.7*        57.1
lvbench         -          37.9*           39.4*        41.6
tempcompass     60.8       57.7*           62.2*        63.4
nextqa          -          75.6*           77.2*        81.1
charades_sta    -          -               -            55.5
"""
_VIDEO_7B = """
benchmark       Qwen2-VL-7B  InternVL2.5-8B  LLaVA-Video-7B  NVILA-8B  Apollo-7B  VideoLLaMA2.1-7B  VideoLLaMA3-7B
videomme        63.3         64.2            63.3            64.2      61.3       54.9              66.2
videomme_sub    69.0         66.9            69.7            70.0      63.3       56.4              70.3
mmvu            42.1+        41.1+           42.4*           43.7*     -          39.5+             44.1
mvbench         67.0         72.0            58.6            68.1      -          57.3              69.7
egoschema       66.7         66.2*           57.3            54.3*     -          53.1              63.3
perception_test 62.3         68.9*           67.9*           65.4*     -          54.9              72.8
activitynet_qa  57.4*        58.9*           56.5            60.9      -          53.0              61.3
mlvu            69.8*        69.0*           70.8*           70.6*     70.9       57.4              73.0
longvideobench  55.6+        60.0            58.2            57.7      58.5       -                 59.8
lvbench         44.7*        43.2*           41.5*           44.0*     -          36.2              45.3
tempcompass     67.9+        68.3*           65.4            69.7*     64.9       56.8              68.1
nextqa          81.2*        85.0*           83.2            82.2      -          75.6              84.5
charades_sta    -            -               -               -         -          -                 60.7
"""
_METRICS = {
    "chartqa": "relaxed accuracy, mean of the human and the augmented half",
    "docvqa": "ANLS",
    "infovqa": "ANLS",
    "ocrbench": "right answers of 1000",
    "mathvista": "accuracy",
    "mathvision": "accuracy",
    "mmmu_pro": "accuracy",
    "mmmu": "accuracy",
    "blink": "accuracy",
    "realworldqa": "accuracy",
    "ai2d": "accuracy",
    "gqa": "exact match",
    "mme": "points, perception and cognition",
    "videomme": "accuracy",
    "videomme_sub": "accuracy",
    "mmvu": "accuracy",
    "mvbench": "accuracy",
    "egoschema": "accuracy",
    "perception_test": "accuracy",
    "activitynet_qa": "accuracy by a judge",
    "mlvu": "accuracy",
    "longvideobench": "accuracy",
    "lvbench": "accuracy",
    "tempcompass": "accuracy",
    "nextqa": "accuracy",
    "charades_sta": "mIoU",
}
_SCALES: dict[str, float | None] = {"ocrbench": 1000.0, "mme": None}
"""What a mean score of 1 is in the paper's unit, where that is not 100; None where a mean of items cannot be it."""
_MME_POINTS = 2800.0
"""MME's maximum: 2000 for perception, 800 for cognition."""
_DIFFERENCES = {
    "chartqa": ("the released script also takes answers 100 times too large or small, and a GPT judge's match",),
    "docvqa": ("the released script's local score is on val, without the cut of ANLS at 0.5; test needs the server",),
    "infovqa": ("the released script's local score is on val, without the cut of ANLS at 0.5; test needs the server",),
    "mathvista": ("GPT extracts the answer",),
    "mathvision": ("GPT or the boxed text is the answer",),
    "mmmu_pro": ("only the standard subset is in the released script",),
    "mmmu": ("GPT reads answers that the parser cannot",),
    "blink": ("7B: 55.2 in v1 and in the repository's figure",),
    "mmvu": ("judged by GPT-4o; a chain-of-thought prompt; 2B: the prose says 37.6",),
    "egoschema": ("answers are sent to the public server",),
    "perception_test": ("answers are sent to the server; the released script has no local score",),
    "activitynet_qa": ("a GPT judge scores the answers",),
    "mlvu": ("only the 7 multiple-choice tasks",),
    "longvideobench": ("subtitles between the frames",),
    "lvbench": ("v1: 40.4 (2B), 43.7 (7B); several peers' numbers changed from v1 to v4, too",),
    "tempcompass": ("the captioning part is judged by GPT",),
    "videomme_sub": ("subtitles of the sampled moments stand before the question",),
    "charades_sta": ("several predicted intervals count by their summed overlap over the union",),
}
_OF_IMAGES = (
    "images keep all tokens (merge 1), though stage 4 trains them with merge 2: presumably the checkpoint of stage 3",
)
_OF_VIDEOS = ("1 frame a second, at most 180 frames and 16384 vision tokens, greedy, no system prompt",)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedNumbers:
    """One benchmark as the paper reports it for one size of model."""

    benchmark: str
    """Name in the catalogue."""
    title: str
    """Name and split as in the paper."""
    kind: str
    """`image` or `video`."""
    metric: str
    """What is measured."""
    higher_is_better: bool
    """Direction of the metric."""
    scale: float | None
    """What a mean item score of 1 is in the paper's unit: 100 for percent. None if the metric is no mean of items."""
    paper: float
    """VideoLLaMA3's number."""
    peers: Mapping[str, float]
    """Each peer's number."""
    footnotes: Mapping[str, str]
    """Peers whose number the authors reproduced (`*`) or took from a leaderboard (`+`)."""
    differences: tuple[str, ...]
    """Where the paper's or the scripts' protocol is not the plain one, so that numbers may differ for that alone."""

    @property
    def full(self) -> float:
        """The largest number that there can be."""
        return _MME_POINTS if self.scale is None else self.scale

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """Name and number of the best peer; None if the paper has no other."""
        ranked = sorted(self.peers.items(), key=lambda one: (-one[1] if self.higher_is_better else one[1], one[0]))
        return ranked[0] if ranked else None


@cache
def published() -> dict[str, dict[str, PublishedNumbers]]:
    """The paper's numbers by size and benchmark, in the order of its tables."""
    tables = {"2B": ((_IMAGE_2B, IMAGE), (_VIDEO_2B, VIDEO)), "7B": ((_IMAGE_7B, IMAGE), (_VIDEO_7B, VIDEO))}
    return {
        size: {row.benchmark: row for text, kind in parts for row in _rows(text, kind, size)}
        for size, parts in tables.items()
    }


def titles() -> dict[str, str]:
    """What people call each benchmark, the held-out one among them."""
    return {HELDOUT: "held-out", **{name: one.title for name, one in read_benchmarks().items()}}


def paper_groups() -> dict[str, list[str]]:
    """The groups of the paper's benchmarks, for gates and means: `image` and `video`."""
    return {kind: list(groups()[kind]) for kind in (IMAGE, VIDEO)}


def size_of(recipe: str) -> str | None:
    """The size of the paper's model that a recipe is after: `vl3_2b` is 2B; None for one of another size."""
    return next((size for size in SIZES if recipe.lower().endswith(size.lower())), None)


def _rows(text: str, kind: str, size: str) -> Iterator[PublishedNumbers]:
    """`gqa  49.2*  62.7` below `benchmark  SmolVLM-2B  VideoLLaMA3-2B`: the paper's 62.7, and a reproduced peer."""
    header, *lines = text.strip().splitlines()
    names = header.split()[1:]
    for line in lines:
        benchmark, *cells = line.split()
        by_model = {name: cell for name, cell in zip(names, cells, strict=True) if cell != "-"}
        paper = by_model.pop(f"{OURS}-{size}")
        yield PublishedNumbers(
            benchmark=benchmark,
            title=read_benchmarks()[benchmark].title,
            kind=kind,
            metric=_METRICS[benchmark],
            higher_is_better=True,
            scale=_SCALES.get(benchmark, 100.0),
            paper=float(paper),
            peers={name: float(cell.rstrip("*+")) for name, cell in by_model.items()},
            footnotes={name: cell[-1] for name, cell in by_model.items() if cell[-1] in "*+"},
            differences=(*_DIFFERENCES.get(benchmark, ()), *(_OF_IMAGES if kind == IMAGE else _OF_VIDEOS)),
        )
