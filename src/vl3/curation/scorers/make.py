"""The scorers of a recipe: from their configuration and the folders of their weights."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vl3.config.curation import CAPTIONS, CurationConfig, ScorerConfig
from vl3.curation.scorer import Scorer
from vl3.errors import ConfigError
from vl3.store.uris import scheme_of
from vl3.system.folders import own_temporary_folder
from vl3.system.uris import file_path

ANSWERS_FILE = "answers.sqlite"
"""What endpoints answered, beside the scores."""


def make_scorers(config: CurationConfig, folders: Mapping[str, Path], scores_uri: str) -> dict[str, Scorer]:
    """Every scorer of a recipe by name; models are loaded with their first batch.

    Args:
        config: the recipe.
        folders: by scorer, the folder of its weights.
        scores_uri: where scores are kept; beside them the answers of endpoints, if it is a folder.

    Raises:
        ConfigError: a setting is unknown or missing, weights are of another layout, or a library is not installed.
    """
    answers = _answers_folder(scores_uri)
    places = {name: answers if one.kind == CAPTIONS else folders.get(name) for name, one in config.scorers.items()}
    _require_lasting_answers(config, scores_uri)
    return {name: _make(name, one, config, places[name]) for name, one in config.scorers.items()}


def close_scorers(scorers: Mapping[str, Scorer]) -> None:
    """Close the connections of those that have any."""
    for scorer in scorers.values():
        close = getattr(scorer, "close", None)
        if close is not None:
            close()


def _answers_folder(scores_uri: str) -> Path:
    """Where answers are kept: beside the scores, or, where these are in a bucket, on this machine."""
    if scheme_of(scores_uri) == "file":
        return file_path(scores_uri)
    return own_temporary_folder("vl3-answers") / hashlib.sha256(scores_uri.encode()).hexdigest()[:16]


def _require_lasting_answers(config: CurationConfig, scores_uri: str) -> None:
    """Refuse a spend limit that a lost machine would forget: the sum that was spent is in the file of the answers."""
    for name, one in config.scorers.items():
        is_limited = one.endpoint is not None and one.endpoint.spend_limit_usd is not None
        if is_limited and scheme_of(scores_uri) != "file" and not one.settings.get("answers"):
            raise ConfigError(
                f"scorers.{name}.endpoint has a spend limit, and scores are in {scores_uri}: what was spent would be "
                f"known only to the pod that spent it. Set scorers.{name}.settings.answers to a folder on a disk that "
                "all pods share, or caption in a run on one machine."
            )


def _make(name: str, given: ScorerConfig, config: CurationConfig, folder: Path | None) -> Scorer:
    make, settings, needs_weights = _KINDS[given.kind]
    if unknown := set(given.settings) - set(settings):
        raise ConfigError(
            f"scorers.{name}.settings has {', '.join(sorted(unknown))}, which {given.kind} does not know. It knows "
            f"{', '.join(settings) or 'none'}."
        )
    values = {key: given.settings.get(key, default) for key, default in settings.items()}
    if missing := [key for key, value in values.items() if value is None]:
        raise ConfigError(f"scorers.{name}.settings lacks {', '.join(missing)}, which {given.kind} needs. Add it.")
    if needs_weights and folder is None:
        raise ConfigError(f"scorers.{name}: a scorer of kind {given.kind} needs weights. Set scorers.{name}.weights.")
    return make(name, given, config, folder, values)


def _image_facts(name: str, _: ScorerConfig, config: CurationConfig, __: Any, ___: Any) -> Scorer:
    from vl3.curation.scorers.image_facts import ImageFacts

    return ImageFacts(name, config.max_image_px)


def _benchmarks(name: str, _: ScorerConfig, __: CurationConfig, folder: Any, ___: Any) -> Scorer:
    from vl3.curation.scorers.benchmarks import BenchmarkNearness

    return BenchmarkNearness(name, folder)


def _clip(name: str, given: ScorerConfig, _: CurationConfig, folder: Any, __: Any) -> Scorer:
    from vl3.curation.scorers.clip import ClipFeatures

    return ClipFeatures(name, folder, given.batch_images)


def _similarity(name: str, given: ScorerConfig, _: CurationConfig, folder: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.scorers.clip import ClipSimilarity

    return ClipSimilarity(name, folder, values["features"], values["text"], given.batch_images)


def _clip_head(name: str, _: ScorerConfig, __: CurationConfig, folder: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.scorers.heads import ClipHead

    return ClipHead(name, folder, values["layout"], values["features"])


def _classifier(name: str, given: ScorerConfig, _: CurationConfig, folder: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.scorers.classifier import LabelProbability

    return LabelProbability(name, folder, values["label"], given.batch_images)


def _blip2(name: str, given: ScorerConfig, _: CurationConfig, folder: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.scorers.blip2 import Blip2Caption

    return Blip2Caption(name, folder, given.batch_images, _number(name, values, "max_new_tokens"), values["prompt"])


def _ocr(name: str, _: ScorerConfig, __: CurationConfig, ___: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.scorers.ocr import OcrText

    return OcrText(name, float(_number(name, values, "min_confidence_percent")) / 100)


def _number(name: str, values: Mapping[str, str], key: str) -> int:
    if not values[key].isdecimal():
        raise ConfigError(f"scorers.{name}.settings.{key}={values[key]!r} is not a whole number. Write digits.")
    return int(values[key])


def _captions(name: str, given: ScorerConfig, _: CurationConfig, folder: Any, values: Mapping[str, str]) -> Scorer:
    from vl3.curation.captions.captioner import Captioner
    from vl3.curation.captions.rules import DEFAULT_RULES, CaptionStyle, read_caption_rules

    assert given.endpoint is not None
    if values["style"] not in tuple(CaptionStyle):
        raise ConfigError(
            f"scorers.{name}.settings.style={values['style']!r} is unknown. Use one of {', '.join(CaptionStyle)}."
        )
    store = Path(values["answers"] or folder) / ANSWERS_FILE
    rules = read_caption_rules(Path(values["rules"] or DEFAULT_RULES))
    return Captioner(name, CaptionStyle(values["style"]), given.endpoint, store, rules=rules)


_KINDS: dict[str, tuple[Callable[..., Scorer], dict[str, str | None], bool]] = {
    "image_facts": (_image_facts, {}, False),
    "benchmarks": (_benchmarks, {"heldout": "no"}, True),
    "clip": (_clip, {}, True),
    "similarity": (_similarity, {"features": None, "text": None}, True),
    "clip_head": (_clip_head, {"layout": None, "features": None}, True),
    "classifier": (_classifier, {"label": None}, True),
    "blip2": (_blip2, {"max_new_tokens": "30", "prompt": ""}, True),
    "ocr": (_ocr, {"min_confidence_percent": "50"}, False),
    CAPTIONS: (_captions, {"style": None, "rules": "", "answers": ""}, False),
}
"""Of each kind: what makes it, its settings with their defaults (None: must be given), and whether it has weights."""
