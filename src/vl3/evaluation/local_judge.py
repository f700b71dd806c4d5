"""A judge in this process: a checkpoint of vl3, or a language model that transformers loads."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vl3.endpoint.answer import Reply
from vl3.endpoint.answers import AnswerStore
from vl3.endpoint.question import key_of
from vl3.errors import ConfigError
from vl3.evaluation.judges import VERDICT_TOKENS, JudgeVerdict, Message
from vl3.models.stored import CONFIG_FILE, read_json

Answering: TypeAlias = Callable[[Sequence[Message]], tuple[str, int]]
"""Answers a question; returns the text and the number of tokens of both."""


class LocalJudge:
    """A model of this machine with the same records as a judge behind an endpoint."""

    def __init__(self, folder: Path, records: Path, *, answering: Answering | None = None) -> None:
        """Use a model's folder; the model is loaded at the first question.

        Args:
            folder: config.json, safetensors and tokenizer.
            records: file of questions and answers; made if it does not exist.
            answering: what answers; None for the folder's model.

        Raises:
            ConfigError: the folder has no config.json.
            StorageError: the file cannot be used.
        """
        self._model = str(folder.resolve())
        self._answering = answering or open_model(folder)
        self._store = AnswerStore(records)
        self._lock = threading.Lock()

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        """See vl3.evaluation.judges.AnswerJudge."""
        facts = {"model": self._model, "messages": list(messages), "max_tokens": VERDICT_TOKENS}
        key = key_of(facts)
        with self._lock:
            known, started = self._store.find(key), time.monotonic()
            if known is None:
                text, tokens = self._answering(messages)
                reply = Reply(text=text, refusal="", finish_reason="stop", input_tokens=0, output_tokens=tokens)
                self._store.keep(key, key[:16], facts, reply, usd=0.0, seconds=time.monotonic() - started)
                return _verdict(reply, cached=False)
        return _verdict(known, cached=True)

    def ask_all(self, questions: Sequence[Sequence[Message]]) -> list[JudgeVerdict]:
        """See vl3.evaluation.judges.AnswerJudge; one after the other, as the model is one."""
        return [self.ask(messages) for messages in questions]

    def close(self) -> None:
        """See vl3.evaluation.judges.AnswerJudge."""
        self._store.close()


def _verdict(reply: Reply, *, cached: bool) -> JudgeVerdict:
    if not reply.text.strip():
        return JudgeVerdict(text=None, why="the judge's answer is empty", cached=cached)
    return JudgeVerdict(text=reply.text, tokens=reply.output_tokens, cached=cached)


def open_model(folder: Path) -> Answering:
    """A model that answers greedily, on a GPU if there is one; it is loaded at the first question.

    Raises:
        ConfigError: the folder has no config.json.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{folder} has no {CONFIG_FILE}, so it is no model that could judge. Correct --judge.")
    kind = str(read_json(folder / CONFIG_FILE).get("model_type", ""))
    return _Own(folder) if "videollama3" in kind.replace("_", "") else _Transformers(folder)


class _Own:
    """A checkpoint of vl3, asked without media."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chat: Any = None

    def __call__(self, messages: Sequence[Message]) -> tuple[str, int]:
        from vl3.inference.chat import Chat
        from vl3.inference.question import Question

        self._chat = self._chat or Chat.load(self._folder)
        text = "\n\n".join(_plain(message) for message in messages)
        answer = self._chat.ask_many([Question(text=text)], max_new_tokens=VERDICT_TOKENS)[0]
        return answer, len(self._chat.tokenizer.encode(text + answer))


class _Transformers:
    """A language model with a chat template."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model: Any = None
        self._tokenizer: Any = None

    def __call__(self, messages: Sequence[Message]) -> tuple[str, int]:
        import torch

        self._load()
        chat = [{"role": message["role"], "content": _plain(message)} for message in messages]
        inputs = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self._model.device)
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=VERDICT_TOKENS, do_sample=False)[0]
        length = inputs["input_ids"].shape[1]
        return self._tokenizer.decode(ids[length:], skip_special_tokens=True), len(ids)

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = "cuda" if torch.cuda.is_available() else "cpu"
        # From the folder alone, weights as safetensors, none of its code.
        options = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder, **options)
        self._model = (
            AutoModelForCausalLM.from_pretrained(self._folder, use_safetensors=True, **options).to(place).eval()
        )


def _plain(message: Message) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
