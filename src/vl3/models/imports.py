"""Brings a base or a model into the store: from the hub, a folder or a bucket to an artifact, checked on the way.

For clusters without internet: done once on a machine that has it. File by file: what is downloaded is kept, also a part
of a file, so a download that was interrupted goes on; the store gets the files, then the manifest.
"""

from dataclasses import dataclass
from pathlib import Path

from vl3.errors import ConfigError
from vl3.models.bases import FixedWanted, check_chat_tokens, check_patch_size, open_language, open_vision
from vl3.models.config import MODEL_TYPE
from vl3.models.convert import check_model
from vl3.models.fixed_config import CLIP_TYPE, read_fixed
from vl3.models.layouts.names import TRANSFORMERS_MODEL_TYPE
from vl3.models.stored import CONFIG_FILE, read_json
from vl3.store.artifacts import find, is_intact, note_provenance, publish, read_manifest
from vl3.store.bases import BASE, base_digest, base_folder, copy_model_files, folder_digest
from vl3.store.reference import Reference
from vl3.store.uris import scheme_of
from vl3.system.folders import scratch_folder
from vl3.system.uris import file_path

_SOURCE = "source"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What was brought."""

    reference: Reference
    """The artifact."""
    what: str
    """What it is, in words."""
    num_files: int
    """Number of its files."""
    size_bytes: int
    """Their bytes."""
    came_from: str
    """Its source; for a model of the hub with the commit."""


def import_base(source: str, target: str) -> Imported:
    """Publish a base or a model at an address of the store.

    Args:
        source: hf://, file://, s3:// or package://.
        target: s3:// or file:// address of the artifact.

    Raises:
        ConfigError: there is no such model, it is none that a run can start from, or something else is at the target.
        StorageError: it is damaged, cannot be reached, or cannot be stored.
    """
    folder = base_folder(source)
    what = describe(folder)
    came_from = f"{source.partition('@')[0]}@{folder.name}" if source.startswith("hf://") else source
    reference = _there(target, folder)
    if reference is None:
        beside = file_path(target) if scheme_of(target) == "file" else None
        with scratch_folder(beside, "base") as copy:
            copy_model_files(folder, copy)
            reference = publish(copy, target, kind=BASE, created_by={"step": "base-import"})
        note_provenance(reference, {_SOURCE: came_from})
    files = read_manifest(reference).files
    return Imported(
        reference=reference,
        what=what,
        num_files=len(files),
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        came_from=came_from,
    )


def describe(folder: Path) -> str:
    """What a folder of weights is, checked, in words: `Qwen2 decoder, 28 blocks, 1536 wide, 151936 rows`.

    Raises:
        ConfigError: it is nothing that a run can start from, or it is damaged.
    """
    kind = read_json(folder / CONFIG_FILE).get("model_type")
    if kind in (MODEL_TYPE, TRANSFORMERS_MODEL_TYPE):
        sizes = check_model(folder)
        check_patch_size(folder, sizes.vision.patch_size)
        check_chat_tokens(folder, sizes.text.vocab_size)
        return f"VideoLLaMA3, encoder {sizes.vision.hidden_size} and decoder {sizes.text.hidden_size} wide"
    if kind == "qwen2":
        text = open_language(folder).config
        check_chat_tokens(folder, text.vocab_size)
        return f"Qwen2 decoder, {text.num_hidden_layers} blocks, {text.hidden_size} wide, {text.vocab_size} rows"
    if kind in ("clip", CLIP_TYPE):
        clip = read_fixed(folder, 0)
        open_vision(folder, fixed=FixedWanted(side_px=clip.image_size, skipped_blocks=0))
        return f"CLIP encoder, {clip.num_hidden_layers} blocks, {clip.hidden_size} wide, {clip.image_size} px"
    if isinstance(kind, str) and ("siglip" in kind or kind.endswith("vision_encoder")):
        vision = open_vision(folder).config
        return f"SigLIP encoder, {vision.num_hidden_layers} blocks, {vision.hidden_size} wide"
    raise ConfigError(
        f"{folder / CONFIG_FILE}: model_type={kind!r} is nothing that a run can start from. Give a SigLIP, a CLIP, a "
        "Qwen2 or Qwen2.5, or a VideoLLaMA3."
    )


def _there(target: str, folder: Path) -> Reference | None:
    """The artifact at the target if it has these files; None if there is none.

    Raises:
        ConfigError: another one is there.
    """
    found = find(target)
    if found is None or not is_intact(found):
        return None
    if base_digest(found) == folder_digest(folder):
        return found
    raise ConfigError(
        f"{target}: another {found.kind} is there, whose files differ. Give --out another address, or delete that one."
    )
