"""What keeps lmms-eval, its tasks and the hub's client off the network, and its messages in our log."""

import logging
from importlib.util import find_spec
from pathlib import Path

from vl3.errors import ConfigError


def require_harness() -> None:
    """Refuse before a model is loaded.

    Raises:
        ConfigError: lmms-eval is not installed in this environment.
    """
    if find_spec("lmms_eval") is None:
        raise ConfigError(
            "lmms-eval is not installed in this environment, and benchmarks are its tasks. Make its environment (`make "
            "eval-env`) and run .venv-eval/bin/vl3 eval run, or use the image vl3-harness."
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
