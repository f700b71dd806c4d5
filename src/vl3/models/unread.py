"""Weights that are not read yet: where each parameter of a model is in its files.

They are read one by one, in chunks, straight to the device and type where they are wanted, and in part if a rank owns
only a part. So the memory of the host that a model needs while it is loaded is the model's own (or a rank's share of
it) and one chunk; nothing is held twice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from vl3.errors import StorageError
from vl3.models.config import VideoLlama3Config
from vl3.models.convert import require_equal, require_weights
from vl3.models.layouts.names import EMBEDDING, HEAD, expected_shapes
from vl3.models.model import VideoLlama3
from vl3.models.stored import CONFIG_FILE, StoredTensor, check_tensors, read_headers, read_json

CHUNK_BYTES = 16 * 2**20
"""Bytes of a file that are in memory at once, beside the tensor that they go to."""
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PREFIXES = (
    ("vision_encoder.", "model.vision_encoder."),
    ("mm_projector.", "model.mm_projector."),
    ("language_model.", "model."),
)


class Source(Protocol):
    """Where the values of one parameter come from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""

    @property
    def num_values(self) -> int:
        """Number of its values."""

    @property
    def dtype(self) -> torch.dtype:
        """Type in which they are stored."""

    def read_into(self, out_N: Tensor, first: int = 0) -> None:
        """Fill a flat tensor of any device and type with the values from number `first` on.

        Raises:
            StorageError: a file cannot be read, or has become shorter.
        """


@dataclass(frozen=True, slots=True)
class InFile:
    """A tensor of a safetensors file."""

    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See Source."""
        return self.stored.shape

    @property
    def num_values(self) -> int:
        """See Source."""
        return math.prod(self.stored.shape)

    @property
    def dtype(self) -> torch.dtype:
        """See Source."""
        return _DTYPES[self.stored.dtype]

    @torch.no_grad()
    def read_into(self, out_N: Tensor, first: int = 0) -> None:
        """See Source.

        Values 6 to 8 of a bf16 tensor that starts at byte 100 are the bytes 112 to 117: 100 + 6 * 2, 3 * 2 of them.
        """
        item_bytes, wanted = self.dtype.itemsize, len(out_N)
        buffer = bytearray(min(CHUNK_BYTES, max(wanted, 1) * item_bytes) // item_bytes * item_bytes)
        values = torch.frombuffer(buffer, dtype=self.dtype)
        try:
            with self.stored.path.open("rb", buffering=0) as file:
                file.seek(self.stored.start + first * item_bytes)
                done = 0
                while done < wanted:
                    count = min(len(values), wanted - done)
                    self._fill(file, memoryview(buffer)[: count * item_bytes])
                    out_N[done : done + count].copy_(values[:count])
                    done += count
        except OSError as error:
            raise StorageError(
                f"{self.stored.path}: cannot be read ({error}). Check the disk and the file's permissions."
            ) from error

    def _fill(self, file, view: memoryview) -> None:  # type: ignore[no-untyped-def]  # a raw file
        while view:
            count = file.readinto(view)
            if not count:
                raise StorageError(
                    f"{self.stored.path} became shorter while it was read. Start again when nothing writes to it."
                )
            view = view[count:]


@dataclass(frozen=True, slots=True)
class InMemory:
    """Values that no file has: a projector that was drawn at random."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See Source."""
        return tuple(self.tensor.shape)

    @property
    def num_values(self) -> int:
        """See Source."""
        return self.tensor.numel()

    @property
    def dtype(self) -> torch.dtype:
        """See Source."""
        return self.tensor.dtype

    @torch.no_grad()
    def read_into(self, out_N: Tensor, first: int = 0) -> None:
        """See Source."""
        out_N.copy_(self.tensor.view(-1)[first : first + len(out_N)])


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadModel:
    """A model of which only the sizes are known, and where each parameter is."""

    config: VideoLlama3Config
    """Its sizes."""
    sources: Mapping[str, Source]
    """Where each parameter is, by our name: `language_model.norm.weight`."""

    def empty(self) -> VideoLlama3:
        """The model with parameters on the meta device."""
        return VideoLlama3.empty(self.config)

    def load(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> VideoLlama3:
        """The whole model, in evaluation mode, read parameter by parameter.

        Args:
            dtype: type of the parameters; None keeps the stored ones.
            device: where the parameters are to be.

        Raises:
            StorageError: a file cannot be read, or has become shorter.
        """
        model = self.empty()
        for name, parameter in list(model.named_parameters()):
            source = self.sources[name]
            tensor = torch.empty(parameter.shape, dtype=dtype or source.dtype, device=device)
            source.read_into(tensor.view(-1))
            put_parameter(model, name, nn.Parameter(tensor))
        return model.to(device).eval()  # what is left are the rotary frequencies


def put_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Replace a parameter of a model by another one, such as an empty one by one with values."""
    place, _, own_name = name.rpartition(".")
    setattr(model.get_submodule(place), own_name, parameter)


def unread_model(folder: Path) -> UnreadModel:
    """A model folder in the official layout.

    Raises:
        ConfigError: a file is missing or damaged, or a tensor is missing, unknown or has the wrong shape or type.
    """
    where = folder / CONFIG_FILE
    config = VideoLlama3Config.from_dict(read_json(where), str(where))
    stored, expected = read_headers(folder), expected_shapes(config)
    dropped = [HEAD] if config.text.tie_word_embeddings else []
    check_tensors(folder, stored, expected, dropped)
    if dropped and HEAD in stored:
        require_equal(folder, stored, HEAD, EMBEDDING)
    require_weights(stored)
    return UnreadModel(config=config, sources={our_name(name): InFile(stored[name]) for name in expected})


def official_name(name: str) -> str:
    """A parameter's name in the official checkpoint: `language_model.norm.weight` -> `model.norm.weight`."""
    for ours, official in _PREFIXES:
        if name.startswith(ours):
            return official + name.removeprefix(ours)
    return name


def our_name(name: str) -> str:
    """The inverse of official_name: `model.norm.weight` -> `language_model.norm.weight`."""
    for ours, official in _PREFIXES:
        if name.startswith(official):
            return ours + name.removeprefix(official)
    return name
