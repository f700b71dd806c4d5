"""`vl3 base make`: trains both tiny bases, in parallel, and writes their model card."""

import json
import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from vl3.system.folders import whole_folder

VISION_STEPS = 8000
LANGUAGE_STEPS = 9000
VISION_NAME = "tiny_vision"
LANGUAGE_NAME = "tiny_language"
CARD_NAME = "README.md"


def make_bases(out: Path, *, seed: int) -> None:
    """Train each base in its own process and write their folders and the model card into `out`.

    Args:
        out: folder to write; it must not exist or be empty.
        seed: seed of weights, pictures and exercises.

    Raises:
        StorageError: `out` is not empty.
    """
    with (
        whole_folder(out) as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_prepare_process) as pool,
    ):
        vision = pool.submit(_make_vision, folder / VISION_NAME, VISION_STEPS, seed)
        language = pool.submit(_make_language, folder / LANGUAGE_NAME, LANGUAGE_STEPS, seed)
        facts = {VISION_NAME: vision.result(), LANGUAGE_NAME: language.result()}
        (folder / CARD_NAME).write_text(_card(facts), encoding="utf-8")


def _prepare_process() -> None:
    """Use one thread: at this size two are slower than one, and they would change the last digits."""
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)


def _make_vision(folder: Path, steps: int, seed: int) -> dict:
    from vl3.toy.vision_base import make_vision_base

    return make_vision_base(folder, steps=steps, seed=seed)


def _make_language(folder: Path, steps: int, seed: int) -> dict:
    from vl3.toy.language_base import make_language_base

    return make_language_base(folder, steps=steps, seed=seed)


def _card(facts: dict[str, dict]) -> str:
    return _CARD.replace("VISION_FACTS", json.dumps(facts[VISION_NAME], indent=2)).replace(
        "LANGUAGE_FACTS", json.dumps(facts[LANGUAGE_NAME], indent=2)
    )


_CARD = f"""\
# The bases of the tiny recipe

What are the two small pretrained models that the `tiny` recipe starts from, and what can they do?

VideoLLaMA3 starts from a pretrained encoder (SigLIP) and a pretrained decoder (Qwen2.5). `tiny` does the same with two
small bases, which have the file formats of the real ones and are read by the same code. `vl3 base make` trains both
from scratch. They were trained only on the generated world (`vl3.toy.world`), with seeds that no corpus uses, so they
have seen no held-out sample. No other data, no other model and no person's work went into them.

## {VISION_NAME}

A folder that transformers loads as a SigLIP vision model: 3 layers, width 128, patch 14. **Objective: supervised
classification of what covers each patch (49 classes: shapes by colour, bars, words, digits, empty) and of where in the
picture the patch is. It is not SigLIP's contrastive training**, and the model has seen no text. The format's position
embedding and pooling head are zero: training used 2D-RoPE, as stage 1 does, and stage 1 drops both.

```json
VISION_FACTS
```

## {LANGUAGE_NAME}

A transformers Qwen2 folder with its tokenizer: 4 layers, width 128. **Objective: next token on answers only, over
generated exercises**: long repeats, pairs to recall, and conversations in which a picture is given as a map of words,
one word per patch. It has seen no picture, no encoder feature and no text-only sample of the world. `accuracy` is the
share of held-out exercises in which every supervised token is predicted correctly.

```json
LANGUAGE_FACTS
```

## Use

For the tiny recipe, its tests and experiments; they are useless for anything else. They are in the repository (7 MB)
because training them takes half an hour, and a first run should take minutes. Licence: the project's.
"""
