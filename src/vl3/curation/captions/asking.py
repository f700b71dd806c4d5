"""An endpoint that is opened when it is first asked, so that what holds it can be sent to other processes."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answer import EndpointAnswer, Outcome
from vl3.endpoint.client import Endpoint
from vl3.endpoint.question import EndpointQuestion
from vl3.errors import ConfigError


class Asker:
    """Asks one endpoint, and ends the run at its spend limit."""

    def __init__(self, config: EndpointConfig, store: Path) -> None:
        """Nothing is opened yet."""
        self._config, self._store = config, store
        self._endpoint: Endpoint | None = None
        self._lock = threading.Lock()

    @property
    def model(self) -> dict[str, Any]:
        """What of the endpoint decides an answer."""
        return self._config.decisive()

    @property
    def spent_usd(self) -> float:
        """What all runs with this store have spent."""
        return self._opened().spent_usd

    def ask(self, questions: Iterable[EndpointQuestion]) -> Iterator[EndpointAnswer]:
        """The answers in order. A question without one is an answer with its outcome.

        Raises:
            ConfigError: the key or model is refused; or the spend limit is reached, after what was in flight is kept.
            ClusterError: the endpoint is gone.
            StorageError: the store of answers cannot be used.
        """
        left_out: EndpointAnswer | None = None
        for answer in self._opened().ask(questions):
            if answer.outcome is Outcome.OVER_LIMIT:
                left_out = left_out or answer  # what is in flight is waited for: it is paid
            elif left_out is None:
                yield answer
        if left_out is not None:
            raise ConfigError(f"{left_out.name} was not asked: {left_out.reason}.")

    def close(self) -> None:
        """Close the endpoint; a further question opens it again."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _opened(self) -> Endpoint:
        with self._lock:
            if self._endpoint is None:
                self._endpoint = Endpoint(self._config, self._store)
            return self._endpoint

    def __reduce__(self) -> tuple[type, tuple[EndpointConfig, Path]]:
        """Another process opens its own."""
        return type(self), (self._config, self._store)
