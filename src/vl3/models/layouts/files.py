"""The files next to the weights, in a given layout: config, tokenizer, generation, preprocessor, chat template."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.models.config import VideoLlama3Config
from vl3.models.layouts.ending import Ending
from vl3.models.layouts.names import Layout, carried_values, official_config, transformers_config
from vl3.models.preprocessing import Preprocessing
from vl3.models.stored import CONFIG_FILE, RUN_FILE, read_json
from vl3.models.vocabulary import IMAGE_PAD, IMAGE_TOKEN, METHOD_TOKENS, TOKENIZER_FILE, VIDEO_PAD, Vocabulary
from vl3.system.files import storage_errors

_COPIED = ("vocab.json", "merges.txt", RUN_FILE)
"""Files that are the same in every layout."""
_SPECIAL_TOKENS = "special_tokens_map.json"
_TOKENIZER_SETTINGS: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
}
"""tokenizer_config.json for a folder without one; its class loads tokenizer.json directly."""
_PROCESSOR_CLASSES = {Layout.OFFICIAL: "Videollama3Qwen2Processor", Layout.TRANSFORMERS: "VideoLlama3Processor"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SideFiles:
    """Everything in a checkpoint except its tensors, ready to be written in a layout."""

    model: VideoLlama3Config
    carried: dict[str, Any]
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    layout: Layout
    contents: dict[str, bytes]
    """File contents by name, without config.json."""

    @classmethod
    def of(
        cls, source: Path, config: VideoLlama3Config, data: dict[str, Any], source_layout: Layout, layout: Layout
    ) -> "SideFiles":
        """Read the source's files and translate them; nothing is written yet.

        Args:
            source: the checkpoint folder.
            config: its sizes.
            data: its config.json.
            source_layout: its layout.
            layout: the layout to write.

        Raises:
            ConfigError: a file is damaged, or the tokenizer does not match the config or the embedding.
        """
        vocabulary = _fitting_vocabulary(source, config, data, source_layout, layout)
        preprocessing = Preprocessing.read(source, data, source_layout, config.vision.patch_size)
        ending = Ending.of(vocabulary)
        carried = ending.corrected_ids(carried_values(data, source_layout))
        contents = {name: (source / name).read_bytes() for name in _COPIED if (source / name).is_file()}
        contents |= _tokenizer_contents(source, vocabulary, layout, ending)
        contents["generation_config.json"] = _json(ending.generation_config(source))
        for name, content in preprocessing.files(layout, config.vision.patch_size).items():
            contents[name] = _json(content)
        return cls(
            model=config,
            carried=carried,
            preprocessing=preprocessing,
            vocabulary=vocabulary,
            layout=layout,
            contents=contents,
        )

    @property
    def size_bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(len(content) for content in self.contents.values())

    def write(self, folder: Path) -> None:
        """Write all files except config.json.

        Raises:
            StorageError: the folder cannot be written.
        """
        for name, content in self.contents.items():
            with storage_errors(folder / name, needed_bytes=len(content)):
                (folder / name).write_bytes(content)

    def config(self, dtype: str) -> dict[str, Any]:
        """The content of config.json; `dtype` is the type of the weights by its name in safetensors."""
        if self.layout == Layout.TRANSFORMERS:
            pads = {
                "image_pad_id": self.vocabulary.ensure(IMAGE_PAD),
                "video_pad_id": self.vocabulary.ensure(VIDEO_PAD),
            }
            return transformers_config(self.model, self.carried, dtype, **pads)
        return official_config(self.model, self.carried, dtype, difffp=self.preprocessing.difffp)


def _fitting_vocabulary(
    source: Path, config: VideoLlama3Config, data: dict[str, Any], source_layout: Layout, layout: Layout
) -> Vocabulary:
    """The source's vocabulary plus the tokens that the target needs, checked against config and embedding."""
    vocabulary = Vocabulary(source)
    ids = {token: vocabulary.ensure(token) for token in METHOD_TOKENS}
    if Layout.TRANSFORMERS in (source_layout, layout):
        ids |= {token: vocabulary.ensure(token) for token in (IMAGE_PAD, VIDEO_PAD)}
    named: dict[str, tuple[Any, str]] = {"image_token_index": (config.image_token_id, IMAGE_TOKEN)}
    if source_layout == Layout.TRANSFORMERS:
        keys = {"image_token_id": IMAGE_PAD, "video_token_id": VIDEO_PAD}
        named = {key: (data.get(key), token) for key, token in keys.items()}
    for key, (token_id, token) in named.items():
        if token_id != ids[token]:
            raise ConfigError(
                f"{source / CONFIG_FILE}: {key}={token_id} but {vocabulary.path} gives {token} the id {ids[token]}. "
                "Vision tokens would be put at the wrong positions of the text. Use the tokenizer of this checkpoint."
            )
    vocabulary.require_room(config.text.vocab_size)
    return vocabulary


def _tokenizer_contents(source: Path, vocabulary: Vocabulary, layout: Layout, ending: Ending) -> dict[str, bytes]:
    """tokenizer.json with its settings, and the chat template of the layout."""
    path = source / "tokenizer_config.json"
    settings = (read_json(path) if path.is_file() else dict(_TOKENIZER_SETTINGS)) | ending.tokens
    for key in ("auto_map", "chat_template"):  # auto_map would need the original's code; the template has its own file
        settings.pop(key, None)
    settings["processor_class"] = _PROCESSOR_CLASSES[layout]
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] |= vocabulary.decoder_entries()
    # A base's own padding and truncation would change the prompts.
    tokenizer = vocabulary.data | {"padding": None, "truncation": None}
    contents = {"tokenizer_config.json": _json(settings), TOKENIZER_FILE: _json(tokenizer)}
    if (source / _SPECIAL_TOKENS).is_file():
        contents[_SPECIAL_TOKENS] = _json(read_json(source / _SPECIAL_TOKENS) | ending.tokens)
    if (source / "added_tokens.json").is_file():
        contents["added_tokens.json"] = _json(read_json(source / "added_tokens.json") | vocabulary.added)
    template = resources.files("vl3.models").joinpath("templates", f"{layout}.jinja").read_text(encoding="utf-8")
    if layout == Layout.TRANSFORMERS:
        return contents | {"chat_template.jinja": template.encode()}
    return contents | {"chat_template.json": _json({"chat_template": template})}


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
