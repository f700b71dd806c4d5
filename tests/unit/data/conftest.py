"""Small real media, tokenizers and datasets for the tests of the data room."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support.samples import write_data_folder
from vl3.config.data import DataConfig
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.toy.tokenizer import build_tokenizer

SHARED_MEDIA = Path(__file__).resolve().parents[4] / "shared" / "media"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DATA_CONFIG = DataConfig(
    max_length_tokens=640,
    visual_budget_tokens=256,
    max_row_visual_tokens=256,
    min_item_tokens=4,
    video_fps=1.0,
    max_frames=16,
    difffp_threshold=0.1,
    difffp_min_tokens=1,
    max_bad_fraction=0.0,
    holdout_fraction=0.0,
    build_workers=1,
)


@pytest.fixture
def config() -> DataConfig:
    return DATA_CONFIG


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """The tiny recipe's tokenizer: an explicit vocabulary."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return ChatTokenizer.from_folder(folder)


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer with Qwen2.5's split rule and control tokens, but without `<image>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(
        ["user\nassistant\nsystem\nstream\nTime 0.0s: What colour is the circle?"] * 3, trainer
    )
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def shared_media() -> Path:
    if not (SHARED_MEDIA / "annotations").is_dir():
        pytest.skip(f"the folder of real media {SHARED_MEDIA} is absent")
    return SHARED_MEDIA


@pytest.fixture
def data_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data folder: `data_folder(train=[...], heldout=[...], files={path: bytes})`."""
    return functools.partial(write_data_folder, tmp_path / "data")
