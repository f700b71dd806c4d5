"""A server of OpenAI's chat completions on this machine, which answers from what it is shown, and fails when told to.

Faults wait in a queue: each request takes the first one that matches its text.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

INPUT_TOKENS, OUTPUT_TOKENS = 100, 10
"""What each reply says that it took."""


@dataclass
class Fault:
    """What to do with a request instead of answering it: one of the actions of `_Handler._fail`."""

    action: str
    times: int = 1
    match: str = ""
    """Text that the request has to contain."""
    value: Any = None


@dataclass
class Asked:
    """One request as the server saw it."""

    body: dict[str, Any]
    key: str

    @property
    def text(self) -> str:
        """System text and all text parts."""
        found = []
        for message in self.body["messages"]:
            content = message["content"]
            found += [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
        return "\n".join(found)

    @property
    def pictures(self) -> list[Image.Image]:
        """What it was shown, decoded."""
        content = self.body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]


def answer_by_content(asked: Asked) -> str:
    """Says how many pictures it saw, and of the first its size and mean colour."""
    if not asked.pictures:
        return f"No picture, {len(asked.text)} characters."
    first = asked.pictures[0]
    red, green, blue = first.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    size = f"{first.width}x{first.height} px"
    return f"{len(asked.pictures)} pictures; the first has {size} and colour {red},{green},{blue}."


@dataclass
class ChatServer:
    """Settings and what was asked."""

    url: str = ""
    answer: Callable[[Asked], str] = answer_by_content
    key: str = ""
    """The key that it wants; empty wants none."""
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    most_at_once: int = 0
    delay_seconds: float = 0.0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_closing: threading.Event = field(default_factory=threading.Event)

    def fault(self, action: str, times: int = 1, match: str = "", value: Any = None) -> None:
        """Add one to the queue."""
        self.faults.append(Fault(action, times, match, value))

    def take_fault(self, text: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.match in text:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        chat = self.server.chat
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        asked = Asked(json.loads(raw), self.headers.get("Authorization", "").removeprefix("Bearer "))
        with chat.lock:
            chat.asked.append(asked)
            chat.at_once += 1
            chat.most_at_once = max(chat.most_at_once, chat.at_once)
        try:
            time.sleep(chat.delay_seconds)
            self._reply(chat, asked)
        except OSError:  # the client has left
            self.close_connection = True
        finally:
            with chat.lock:
                chat.at_once -= 1

    def _reply(self, chat: ChatServer, asked: Asked) -> None:
        if not self.path.endswith("/chat/completions"):
            self._send(404, {"error": {"message": f"no such path {self.path}"}})
        elif chat.key and asked.key != chat.key:
            self._send(401, {"error": {"message": f"Incorrect API key provided: {asked.key}"}})
        elif (fault := chat.take_fault(asked.text)) is not None:
            self._fail(fault, chat, asked)
        else:
            self._send(200, _completion(chat.answer(asked)))

    def _fail(self, fault: Fault, chat: ChatServer, asked: Asked) -> None:
        action, value = fault.action, fault.value
        if action == "status":  # value: the status, or (status, Retry-After)
            status, wait = value if isinstance(value, tuple) else (value, "")
            self._send(status, {"error": {"message": f"failed with {status}"}}, {"Retry-After": wait} if wait else {})
        elif action == "hang":
            chat.is_closing.wait(value or 60)
        elif action == "drip":  # a byte now and then, for ever
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not chat.is_closing.wait(0.05):
                self.wfile.write(b" ")
        elif action == "cut":  # the connection ends within the body
            data = json.dumps(_completion(chat.answer(asked))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif action == "broken_json":
            data = json.dumps(_completion(chat.answer(asked))).encode()
            self._send_bytes(200, data[: len(data) // 2])
        elif action == "body":  # value: any object
            self._send(200, value)
        elif action == "say":  # value: the text, or (text, finish_reason)
            text, reason = value if isinstance(value, tuple) else (value, "stop")
            self._send(200, _completion(text, reason))
        elif action == "refuse":
            body = _completion("")
            body["choices"][0]["message"]["refusal"] = value or "I cannot describe this."
            self._send(200, body)
        else:
            raise AssertionError(action)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), headers)

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    chat: ChatServer


def _completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}},
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on a free port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.chat = ChatServer(url=f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.chat
    finally:
        server.chat.is_closing.set()
        server.shutdown()
        server.server_close()
