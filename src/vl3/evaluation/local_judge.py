"""A judge in this process: a checkpoint of vl3, or a language model that transformers loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.evaluation.judges import Endpoint, Message
from vl3.models.stored import CONFIG_FILE, read_json


def local_endpoint(folder: Path, *, max_answer_tokens: int = 512, device: str | None = None) -> Endpoint:
    """A judge from a model folder; it is loaded at the first question, and answers greedily.

    Args:
        folder: config.json, safetensors and tokenizer.
        max_answer_tokens: maximum tokens of a verdict.
        device: such as `cuda:0`; None uses a GPU if there is one.

    Raises:
        ConfigError: the folder has no config.json.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{folder} has no {CONFIG_FILE}, so it is no model that could judge. Correct --judge.")
    kind = str(read_json(folder / CONFIG_FILE).get("model_type", ""))
    if "videollama3" in kind.replace("_", ""):
        return _Own(folder, max_answer_tokens, device)
    return _Transformers(folder, max_answer_tokens, device)


class _Own:
    """A checkpoint of vl3, asked without media."""

    def __init__(self, folder: Path, max_answer_tokens: int, device: str | None) -> None:
        self._folder, self._most, self._device = folder, max_answer_tokens, device
        self._chat: Any = None

    def __call__(self, messages: Sequence[Message]) -> tuple[str, int]:
        from vl3.inference.chat import Chat
        from vl3.inference.question import Question

        self._chat = self._chat or Chat.load(self._folder, device=self._device)
        text = "\n\n".join(_plain(message) for message in messages)
        answer = self._chat.ask_many([Question(text=text)], max_new_tokens=self._most)[0]
        return answer, len(self._chat.tokenizer.encode(text + answer))


class _Transformers:
    """A language model with a chat template."""

    def __init__(self, folder: Path, max_answer_tokens: int, device: str | None) -> None:
        self._folder, self._most, self._device = folder, max_answer_tokens, device
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
            ids = self._model.generate(**inputs, max_new_tokens=self._most, do_sample=False)[0]
        length = inputs["input_ids"].shape[1]
        return self._tokenizer.decode(ids[length:], skip_special_tokens=True), len(ids)

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
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
