"""Asks an endpoint many questions: answers from the store, and pays for the others, within all limits.

with Endpoint(config, path) as endpoint:
    for answer in endpoint.ask(questions):  # in the order of the questions
        ...

A question that gets no answer is an answer with an outcome and a reason, so that it can be counted and named. What ends
a run is raised: an endpoint that is gone, a key that is refused, a store that cannot be written.
"""

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answer import ASKED_AGAIN, AnswerRules, EndpointAnswer, Outcome, Reply, plain, read_answer_rules
from vl3.endpoint.answers import AnswerStore
from vl3.endpoint.pacing import Pacing
from vl3.endpoint.question import EndpointQuestion, key_of
from vl3.endpoint.sender import RequestSender, SendError
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.system.retry import Pauses, retry_async

log = logging.getLogger(__name__)
_AHEAD = 4
"""Questions that are begun, for each that may be in flight, so that a slow one holds up few others."""


class Endpoint:
    """One model behind an endpoint, with its store of answers. A context manager; several threads may ask."""

    def __init__(
        self,
        config: EndpointConfig,
        store: Path,
        *,
        rules: AnswerRules | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Open the store; nothing is sent yet.

        Args:
            config: where the model is, and the limits.
            store: file of the answers; created if it is missing.
            rules: when a reply is no answer; vl3's own by default.
            environment: where the key is read from, when the first question is sent.

        Raises:
            StorageError: the store cannot be opened.
        """
        self._config, self._environment = config, environment
        self._rules = rules or read_answer_rules()
        self._store = AnswerStore(store)
        self._pauses = Pauses(first_seconds=config.first_pause_seconds, longest_seconds=config.longest_pause_seconds)
        self._sender: RequestSender | None = None
        self._asking: dict[str, asyncio.Task[tuple[Reply | SendError, float]]] = {}
        self._paying = 0
        self._failures_in_a_row = 0
        self._has_answered = False
        self._is_over_limit = False
        self._underestimate = 1.0
        """How many times as many tokens as estimated a question was found to have: from then on, more is reserved."""
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._settled = asyncio.Condition()
        self._pacing = Pacing(config.requests_per_minute)
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut off what is in flight, and close connections and store."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._store.close()

    @property
    def spent_usd(self) -> float:
        """What all runs with this store have spent."""
        return self._store.spent_usd()

    def ask(self, questions: Iterable[EndpointQuestion]) -> Iterator[EndpointAnswer]:
        """The answer to each question, in order; a few questions are read ahead.

        Raises:
            ConfigError: the key is missing, or the server refuses the key or does not know the model.
            ClusterError: the endpoint gave no answer to so many questions in a row that it is taken for gone.
            StorageError: the store cannot be read or written.
        """
        waiting: deque[Future[EndpointAnswer]] = deque()
        try:
            for question in questions:
                waiting.append(asyncio.run_coroutine_threadsafe(self._answer(question), self._loop))
                if len(waiting) >= _AHEAD * self._config.max_concurrent:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    async def _answer(self, question: EndpointQuestion) -> EndpointAnswer:
        """The answer, of several attempts if the first are none."""
        usd = 0.0
        for attempt in range(self._config.attempts):
            answer = await self._attempt(question, attempt)
            usd += answer.usd
            if answer.outcome not in ASKED_AGAIN:
                break
        return replace(answer, usd=usd)

    async def _attempt(self, question: EndpointQuestion, attempt: int) -> EndpointAnswer:
        facts = question.facts(self._config, attempt)
        key = key_of(facts)
        if (stored := self._store.find(key)) is not None:
            return self._judged(question, key, stored, 0.0, is_stored=True)
        is_first = key not in self._asking
        if is_first:  # the same question twice at once is paid once
            task = asyncio.ensure_future(self._pay(question, facts, key, attempt))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # also if nobody waits any more
            self._asking[key] = task
        reply, usd = await asyncio.shield(self._asking[key])
        usd = usd if is_first else 0.0
        if isinstance(reply, Reply):
            return self._judged(question, key, reply, usd, is_stored=not is_first)
        return EndpointAnswer(name=question.name, key=key, outcome=reply.outcome, text="", reason=reply.reason, usd=usd)

    async def _pay(
        self, question: EndpointQuestion, facts: dict[str, object], key: str, attempt: int
    ) -> tuple[Reply | SendError, float]:
        """Ask the server; the reply, or why there is none, and what it cost."""
        spent_usd = [0.0]
        try:
            async with self._slots:
                if self._is_over_limit:
                    return self._over_limit(), 0.0
                try:
                    request = await asyncio.to_thread(question.request, self._config, attempt)
                except DataError as error:
                    return SendError(Outcome.NO_PICTURE, str(error), may_pass=False), 0.0
                reply = await self._send(question, facts, key, request, spent_usd)
                self._count(reply)
                return reply, sum(spent_usd)
        finally:
            self._asking.pop(key, None)

    async def _send(
        self,
        question: EndpointQuestion,
        facts: dict[str, object],
        key: str,
        request: dict[str, object],
        spent_usd: list[float],
    ) -> Reply | SendError:
        """Send until there is a reply, or why there is none; what each try cost is added to `spent_usd`."""
        self._sender = self._sender or RequestSender(self._config, self._environment)
        sender = self._sender
        estimate = question.input_tokens(self._config)

        async def send() -> Reply:
            await self._pacing.wait()
            at_most_usd = self._cost(math.ceil(estimate * self._underestimate), question.max_tokens)
            if not await self._reserve(at_most_usd):
                raise self._over_limit()
            usd, started = at_most_usd, time.monotonic()  # what is cut off may have been paid
            try:
                reply = await sender.send(request)
                usd = self._cost_of(reply, at_most_usd)
                self._underestimate = max(self._underestimate, reply.input_tokens / estimate)
                self._store.keep(key, question.name, facts, reply, usd=usd, seconds=time.monotonic() - started)
                return reply
            except SendError as error:
                usd = at_most_usd if error.may_be_paid else 0.0
                if error.wait_seconds and error.may_pass:
                    self._pacing.pause(error.wait_seconds)
                raise
            finally:
                spent_usd.append(usd)
                await self._settle(usd - at_most_usd)

        try:
            return await retry_async(
                send,
                may_pass=lambda error: isinstance(error, SendError) and error.may_pass,
                pauses=self._pauses,
                tries=self._config.tries,
            )
        except SendError as error:
            return error

    async def _reserve(self, usd: float) -> bool:
        """Count what a question can cost as spent; near the limit, wait for those in flight to cost less."""
        async with self._settled:
            while not self._store.reserve(usd, self._config.spend_limit_usd):
                if not self._paying:
                    self._is_over_limit = True
                    return False
                await self._settled.wait()
            self._paying += 1
            return True

    def _over_limit(self) -> SendError:
        limit_usd, spent_usd = self._config.spend_limit_usd, self._store.spent_usd()
        reason = (
            f"the spend limit of {limit_usd:g} USD leaves no room for another question ({spent_usd:.4g} USD are "
            "spent). Raise endpoint.spend_limit_usd and run again: what is answered is not paid twice"
        )
        return SendError(Outcome.OVER_LIMIT, reason, may_pass=False)

    async def _settle(self, usd: float) -> None:
        async with self._settled:
            self._paying -= 1
            self._store.correct(usd)
            self._settled.notify_all()

    def _count(self, reply: Reply | SendError) -> None:
        """Notice an endpoint that is gone.

        Raises:
            ConfigError: the first thing that the server says is that the key, address or model is wrong.
            ClusterError: too many questions in a row got no reply.
        """
        if isinstance(reply, Reply):
            self._failures_in_a_row, self._has_answered = 0, True
            return
        if reply.outcome is Outcome.OVER_LIMIT:
            return
        self._failures_in_a_row += 1
        if reply.is_setup and not self._has_answered:
            raise ConfigError(
                f"the endpoint {self._config.url} does not take questions to {self._config.model!r} ({reply.reason}). "
                "Check endpoint.url, endpoint.model and the key that "
                f"{self._config.api_key_env or 'endpoint.api_key_env'} names."
            )
        limit = self._config.max_failures_in_a_row
        if self._failures_in_a_row >= limit:  # those in flight fail too: each says the same
            raise ClusterError(
                f"the endpoint {self._config.url} gave no answer to {limit} questions in a row, the "
                f"last time: {reply.reason}. What was answered is kept and paid once. Check the server, then run again."
            )

    def _judged(
        self, question: EndpointQuestion, key: str, reply: Reply, usd: float, *, is_stored: bool
    ) -> EndpointAnswer:
        outcome, reason = self._rules.judge(reply)
        if outcome is Outcome.ANSWERED and (problem := question.check(reply.text.strip())):
            outcome, reason = Outcome.MALFORMED, plain(problem)
        return EndpointAnswer(
            name=question.name,
            key=key,
            outcome=outcome,
            text=reply.text.strip() if outcome is Outcome.ANSWERED else "",
            reason=reason,
            input_tokens=max(0, reply.input_tokens),
            output_tokens=max(0, reply.output_tokens),
            usd=usd,
            is_stored=is_stored,
        )

    def _cost_of(self, reply: Reply, at_most_usd: float) -> float:
        """What a reply cost; what it can cost at most if the server does not count its tokens."""
        if reply.input_tokens < 0 or reply.output_tokens < 0:
            return at_most_usd
        return self._cost(reply.input_tokens, reply.output_tokens)

    def _cost(self, input_tokens: int, output_tokens: int) -> float:
        config = self._config
        spent = input_tokens * config.usd_per_million_input_tokens
        return (spent + output_tokens * config.usd_per_million_output_tokens) / 1e6

    async def _stop(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()
