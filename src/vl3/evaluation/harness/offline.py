"""What keeps lmms-eval, its tasks and the hub's client off the network, and its messages in our log."""

import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vl3.errors import ConfigError

LMMS_EVAL = "0.7.3"
"""The version whose tasks the catalogue describes: another may have other prompts, metrics or numbers of questions."""


def require_harness() -> None:
    """Refuse before a model is loaded.

    Raises:
        ConfigError: lmms-eval is not installed in this environment, or in another version than the catalogue's.
    """
    remedy = "Make its environment (`make eval-env`) and run .venv-eval/bin/vl3 eval run, or use the image vl3-harness."
    try:
        found = version("lmms-eval")
    except PackageNotFoundError:
        raise ConfigError(
            f"lmms-eval is not installed in this environment, and benchmarks are its tasks. {remedy}"
        ) from None
    if found != LMMS_EVAL:
        raise ConfigError(
            f"lmms-eval {found} is installed, but the catalogue describes the tasks of {LMMS_EVAL}: a score of another "
            f"version may be of other prompts or metrics. {remedy}"
        )


def offline_variables(home: Path) -> dict[str, str]:
    """Environment variables; media are looked for below `home`, which is made."""
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    return {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "LMMS_EVAL_DATASETS_CACHE": str(home / "datasets-cache"),
    }


def quiet() -> None:
    """lmms-eval's messages go to the log: it prints those for its developers too."""
    from loguru import logger

    logger.remove()
    logger.add(lambda message: logging.getLogger("lmms_eval").info(message.rstrip()), level="INFO", format="{message}")
