"""Part of a recipe's chain: which stages a run trains, and the model that the first of them starts from."""

import difflib
import re
from collections.abc import Sequence

from vl3.errors import ConfigError

MODEL_FORMS = "a folder, s3://bucket/key, hf://owner/name@revision, models:/name@alias or run://RUN"
"""How a model is named, for messages."""

NO_STAGE = "none"
"""Stages of a run that trains nothing."""

_SCHEMES = ("file", "s3", "hf", "models", "run")
_FORMS = {"file": re.compile("file:///"), "s3": re.compile("s3://[a-z0-9][a-z0-9.-]+(/|$)")}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HUB = re.compile(r"hf://([\w.-]+/)?[\w.-]+(@[\w./-]+)?")
_RUN = re.compile(r"run://([A-Za-z0-9][\w.-]*)(?:/([a-z][a-z0-9_]*))?")
_REGISTERED = re.compile(r"models:/([^/@:]+)(?:@([\w.-]+)|/([0-9]+))")


def choose_stages(stages: Sequence[str], text: str) -> list[str]:
    """The stages that a run trains: names in order, separated by commas, or a range; all if the text is empty.

    Of the stages a, b, c, d: `b` gives [b], `b,c` gives [b, c], `b..d` gives [b, c, d], `none` gives [].

    Raises:
        ConfigError: a name is unknown (the nearest is named) or repeated, or the stages do not follow each other.
    """
    if text == NO_STAGE:
        return []
    if not text.strip():
        return list(stages)
    chosen = [name for item in text.split(",") for name in _expand(stages, item.strip(), text)]
    twice = [name for number, name in enumerate(chosen) if name in chosen[:number]]
    order = f"the recipe's order is {', '.join(stages)}"
    if twice:
        raise ConfigError(f"STAGES={text} has {twice[0]} twice, but a stage is trained once. Name each stage once.")
    positions = [stages.index(name) for name in chosen]
    if positions != sorted(positions):
        raise ConfigError(f"STAGES={text} is not in the order of training; {order}. Name the stages in that order.")
    skipped = [stages[place] for place in range(positions[0], positions[-1]) if place not in positions]
    if skipped:
        raise ConfigError(
            f"STAGES={text} leaves out {', '.join(skipped)}, whose weights {chosen[-1]} would start from; {order}. "
            f"Use {chosen[0]}..{chosen[-1]}, or one run for each part."
        )
    return chosen


def _expand(stages: Sequence[str], item: str, text: str) -> list[str]:
    """The stages of one item: a name, or `first..last`."""
    if ".." not in item:
        return [_known(stages, item, text)]
    first, _, last = item.partition("..")
    begin, end = (stages.index(_known(stages, name.strip(), text)) for name in (first, last))
    if begin > end:
        raise ConfigError(f"STAGES={text} goes backwards: {last} is trained before {first}. Write {last}..{first}.")
    return list(stages[begin : end + 1])


def _known(stages: Sequence[str], name: str, text: str) -> str:
    if name in stages:
        return name
    known = f"the recipe's stages are {', '.join(stages)}"
    if not name:
        raise ConfigError(f"STAGES={text} has an empty name; {known}. Write names as a,b or a range as a..b.")
    nearest = difflib.get_close_matches(name, stages, n=1, cutoff=0.0)[0]
    raise ConfigError(f"STAGES={text} names {name!r}, which is no stage. The nearest is {nearest!r}; {known}.")


def check_start(stages: Sequence[str], chosen: Sequence[str], model_uri: str) -> None:
    """Raise ConfigError unless a stage is chosen and the first has something to start from: the bases, or a model."""
    if not chosen:
        raise ConfigError("STAGES=none trains nothing. Leave it out, or use `make evaluate MODEL=...`.")
    before = stages[: stages.index(chosen[0])]
    if before and not model_uri:
        raise ConfigError(
            f"stage {chosen[0]} starts from the weights of {before[-1]}, which this run does not train. Name a model "
            f"with FROM: {MODEL_FORMS}."
        )


def check_model_uri(uri: str) -> None:
    """Raise ConfigError unless a URI can name a model."""
    scheme = _SCHEME.match(uri)
    if scheme is None or scheme[1] not in _SCHEMES or _CONTROL.search(uri):
        raise ConfigError(f"model {uri!r} cannot be found by that name. Use {MODEL_FORMS}.")
    if scheme[1] in _FORMS and not _FORMS[scheme[1]].match(uri):
        shown = uri.rpartition("@")[2]  # there may be an account in front of it
        raise ConfigError(f"model {shown!r} is not an address of a folder. Use {MODEL_FORMS}.")
    if scheme[1] == "models":
        split_registered(uri)
    if scheme[1] == "hf":
        split_hub(uri)
    if scheme[1] == "run":
        split_run(uri)


def split_hub(uri: str) -> tuple[str, str]:
    """(repository, revision) of hf://owner/name@revision; the revision is empty if there is none.

    Raises:
        ConfigError: the URI has another form.
    """
    if not _HUB.fullmatch(uri):
        raise ConfigError(f"{uri!r} does not name a model of the hub. Write it as hf://owner/name or with @revision.")
    name, _, revision = uri.removeprefix("hf://").partition("@")
    return name, revision


def split_registered(uri: str) -> tuple[str, str]:
    """(model, alias or version) of models:/name@alias or models:/name/version: the second is a number for a version.

    Raises:
        ConfigError: the URI has another form.
    """
    found = _REGISTERED.fullmatch(uri)
    if found is None:
        raise ConfigError(
            f"{uri!r} does not name a version of a registered model. Write it as models:/name@alias (such as "
            "models:/vl3-tiny@champion) or models:/name/3."
        )
    return found[1], found[2] or found[3]


def split_run(uri: str) -> tuple[str, str]:
    """(run, stage) of run://RUN/stage; the stage is empty if there is none.

    Raises:
        ConfigError: the URI has another form.
    """
    found = _RUN.fullmatch(uri)
    if found is None:
        raise ConfigError(
            f"{uri!r} does not name a run. Write it as run://RUN, or with one of its stages as run://RUN/multitask."
        )
    return found[1], found[2] or ""
