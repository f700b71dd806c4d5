"""`vl3 base make`: trains the tiny bases, two at a time, and writes their model card."""

import json
import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from vl3.system.folders import whole_folder

VISION_STEPS = 8000
LANGUAGE_STEPS = 9000
FIXED_STEPS = 3000
VISION_NAME = "tiny_vision"
LANGUAGE_NAME = "tiny_language"
FIXED_NAMES = ("tiny_clip", "tiny_dfn", "tiny_siglip")
"""The encoders of the ablation (vl3.toy.fixed_base)."""
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
        fixed = {name: pool.submit(_make_fixed, name, folder / name, FIXED_STEPS, seed) for name in FIXED_NAMES}
        made = {VISION_NAME: vision, LANGUAGE_NAME: language, **fixed}
        facts = {name: one.result() for name, one in made.items()}
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


def _make_fixed(name: str, folder: Path, steps: int, seed: int) -> dict:
    from vl3.toy.fixed_base import make_fixed_base

    return make_fixed_base(name, folder, steps=steps, seed=seed)


def _card(facts: dict[str, dict]) -> str:
    fixed = {name: facts[name] for name in FIXED_NAMES}
    shown = {"VISION_FACTS": facts[VISION_NAME], "LANGUAGE_FACTS": facts[LANGUAGE_NAME], "FIXED_FACTS": fixed}
    card = _CARD
    for place, found in shown.items():
        card = card.replace(place, json.dumps(found, indent=2))
    return card


_CARD = f"""\
# The bases of the tiny recipes

What are the small pretrained models that the recipes `tiny` and `ablation_tiny` start from, and what can they do?

VideoLLaMA3 starts from a pretrained encoder (SigLIP) and a pretrained decoder (Qwen2.5). `tiny` does the same with two
small bases, which have the file formats of the real ones and are read by the same code; the ablation has three encoders
more. `vl3 base make` trains all from scratch. They were trained only on the generated world (`vl3.toy.world`), with
seeds that no corpus uses, so they have seen no held-out sample. No other data, no other model and no person's work went
into them.

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

## {", ".join(FIXED_NAMES)}

Folders that transformers loads as CLIP or SigLIP vision models, each with its preprocessor_config.json: 3 blocks of
which the recipe uses 2, width 64, 80 and 72, patch 14, pictures of 56, 70 and 60 px. **Objective: the same supervised
classification as that of {VISION_NAME}, on squares of one size; it is neither CLIP's nor SigLIP's contrastive
training.** The last block, the final norm and the pooling head are zero, because the features are taken before them.

```json
FIXED_FACTS
```

## Use

For the tiny recipes, their tests and experiments; they are useless for anything else. They are in the repository (8 MB)
because training them takes half an hour, and a first run should take minutes. Licence: the project's.
"""
