"""The endpoint that lmms-eval's tasks take for OpenAI's: a local port, behind which is our judge, or none.

The tasks send to a judge in several ways of their own, retry on their own, and count what failed as wrong. Here they
all meet one client with its cache and limits; and what got no verdict is known by item, so that its score is dropped.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vl3.evaluation.judges import AnswerJudge, JudgeVerdict

_PLACEHOLDER = "Incorrect {'pred': 'no', 'score': 0}\nReasoning: none\nAnswer: none"
"""Told to a task whose item is not judged, in words that each task can read, so that it goes on at once; what it makes
of them is dropped."""
_MAX_BODY_BYTES = 32 << 20


class JudgeGateway:
    """Serves `/chat/completions` on this machine while it is open."""

    def __init__(
        self,
        judge: AnswerJudge | None,
        *,
        why_none: str = "no judge is configured",
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen on a free port of the loopback interface.

        Args:
            judge: None if there is none.
            why_none: what unjudged items then say.
            keep: called when many verdicts have come, which are paid for and should outlive this machine.
        """
        self._judge, self._why_none, self._keep = judge, why_none, keep
        self._expected = re.compile("")
        self._failures: list[str] = []
        self._collected: dict[str, list[dict[str, Any]]] | None = None
        self._verdicts: dict[str, JudgeVerdict] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="judge-gateway", daemon=True)

    def __enter__(self) -> "JudgeGateway":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What lmms-eval's tasks must find in the environment before they are imported."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/chat/completions"
        return {"API_TYPE": "openai", "OPENAI_API_URL": url, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "local"}

    def expect(self, pattern: str) -> None:
        """What a verdict must contain from now on; a task would take other words for no."""
        self._expected = re.compile(pattern, re.IGNORECASE)

    def watch(self, _name: str) -> Callable[[], str]:
        """Before an item is judged; the result says afterwards why it is not judged, empty if it is."""
        with self._lock:
            self._failures.clear()

        def why() -> str:
            with self._lock:
                return f"not judged: {self._failures[0]}" if self._failures else ""

        return why

    @contextmanager
    def asking_ahead(self) -> Iterator[None]:
        """Collect what is asked meanwhile, then ask the judge all of it at once; who asks it again has the verdicts.

        The tasks ask one question after the other and wait for each: 8,000 answers, a second each, are two hours.
        """
        self._collected, self._verdicts = {}, {}
        try:
            yield
        finally:
            collected, self._collected = self._collected, None
        if self._judge is not None:
            verdicts = self._judge.ask_all(list(collected.values()))
            self._verdicts = dict(zip(collected, verdicts, strict=True))
            self._keep()

    def answer(self, messages: list[dict[str, Any]]) -> JudgeVerdict:
        """The judge's verdict; what has none is remembered for the item under way."""
        key = json.dumps(messages, sort_keys=True)
        if self._collected is not None:
            with self._lock:
                self._collected[key] = messages
            return JudgeVerdict(text=None)
        verdict = self._verdicts.get(key) or self._ask(messages)
        if verdict.text is not None and not self._expected.search(verdict.text):
            verdict = JudgeVerdict(text=None, why=f"the judge's words have no verdict: {verdict.text[:80]!r}")
        if verdict.text is None:
            with self._lock:
                self._failures.append(verdict.why)
        return verdict

    def _ask(self, messages: list[dict[str, Any]]) -> JudgeVerdict:
        return self._judge.ask(messages) if self._judge else JudgeVerdict(text=None, why=self._why_none)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                try:
                    messages = json.loads(self.rfile.read(min(size, _MAX_BODY_BYTES)))["messages"]
                except (ValueError, KeyError, TypeError):
                    self.send_error(400, "not a chat completion")
                    return
                verdict = gateway.answer(messages)
                text = verdict.text if verdict.text is not None else _PLACEHOLDER
                self._reply(text, verdict.tokens)

            def _reply(self, text: str, tokens: int) -> None:
                message = {"role": "assistant", "content": text}
                body = json.dumps(
                    {
                        "id": "judge",
                        "object": "chat.completion",
                        "created": 0,
                        "model": "judge",
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
                    }
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
