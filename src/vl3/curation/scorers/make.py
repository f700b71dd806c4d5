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
    places = {
        name: _answers_of(name, one, scores_uri) if one.kind == CAPTIONS else folders.get(name)
        for name, one in config.scorers.items()
    }
    return {name: _make(name, one, config, places[name]) for name, one in config.scorers.items()}


def close_scorers(scorers: Mapping[str, Scorer]) -> None:
    """Close the connections of those that have any."""
    for scorer in scorers.values():
        close = getattr(scorer, "close", None)
        if close is not None:
            close()


def answers_file(scores_uri: str, given: str, limited: str) -> Path:
    """The file of what endpoints answered: in the folder that is given, beside the scores, or on this machine.

    Args:
        scores_uri: where scores are kept.
        given: a folder; empty for none.
        limited: the endpoint with a spend limit, for messages; empty if there is none.

    Raises:
        ConfigError: a lost machine would forget what was spent: the sum is in the file of the answers.
    """
    if given:
        return Path(given) / ANSWERS_FILE
    if scheme_of(scores_uri) == "file":
        return file_path(scores_uri) / ANSWERS_FILE
    if limited:
        raise ConfigError(
            f"{limited} has a spend limit, and scores are in {scores_uri}: what was spent would be known only to the "
            "pod that spent it. Set `answers` beside it (of a scorer, in its settings) to a folder on a disk that all "
            "pods share, or caption in a run on one machine."
        )
    return own_temporary_folder("vl3-answers") / hashlib.sha256(scores_uri.encode()).hexdigest()[:16] / ANSWERS_FILE


def _answers_of(name: str, given: ScorerConfig, scores_uri: str) -> Path:
    is_limited = given.endpoint is not None and given.endpoint.spend_limit_usd is not None
    return answers_file(scores_uri, given.settings.get("answers", ""), f"scorers.{name}.endpoint" if is_limited else "")


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
    rules = read_caption_rules(Path(values["rules"] or DEFAULT_RULES))
    return Captioner(name, CaptionStyle(values["style"]), given.endpoint, folder, rules=rules)


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
