"""Step: bring what the run starts from into its artifacts, once: two bases, or a whole model.

Every later step and pod reads it from there by its digest, and nothing else asks the hub. Before anything is built or
trained it is checked: another architecture, vocabulary or shape and a damaged or missing file are refused here.

    hf://Qwen/Qwen2.5-1.5B-Instruct -> steps/import-start/KEY/language_base
    models:/vl3-2b@champion         -> its first stage's checkpoint -> steps/import-start/KEY/vision_base
    --from s3://bucket/a-model      -> steps/import-start/KEY/start, in our layout
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.errors import ConfigError, StorageError, Vl3Error
from vl3.launch.check.findings import combined
from vl3.models.bases import FixedWanted, check_bases, check_chat_tokens, check_patch_size
from vl3.models.convert import check_model, convert
from vl3.models.layouts.names import Layout
from vl3.models.stored import RUN_FILE
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.steps.chain import MODEL, SOURCE
from vl3.steps.request import Request, Work
from vl3.steps.sources import FoundModel, find_base, find_whole, identity_of
from vl3.store.artifacts import fetch, note_provenance, read_manifest
from vl3.store.bases import BASE, BASES_FILE, LANGUAGE, VISION, base_digest, copy_model_files
from vl3.store.reference import Reference
from vl3.system.files import atomic_write_bytes, atomic_write_json
from vl3.workflow.step import Step, StepOutcome, is_published


def run(work: Work) -> StepOutcome:
    """Find, check and publish what the run starts from.

    Raises:
        ConfigError: there is no such model or base, or it is another one than the run can start from.
        StorageError: it is damaged, cannot be reached, or cannot be stored.
        ClusterError: the registry does not answer.
    """
    with work.step_run() as step_run:
        outcome = _import_model(work) if work.request.model_uri else _import_bases(work)
        if work.request.model_uri:
            source = outcome.values["model"]
            step_run.set_tags({"vl3.model": source["uri"], "vl3.model_sha256": source["sha256"]})
        else:
            step_run.set_tags({f"vl3.{name}": base["sha256"] for name, base in outcome.values["bases"].items()})
    work.clear()
    return outcome


def key_parts(request: Request) -> dict[str, Any]:
    """What identifies the bases or the model; the sizes that the recipe asks for are checked again if they change."""
    try:
        if request.model_uri:
            return {"model": identity_of(request.model_uri, request.run_id)}
        model = request.config.model
        bases = {name: identity_of(uri, request.run_id) for name, uri in _base_uris(request).items()}
        return {"bases": bases, "vision_width": model.vision_width, **model.fixed_resolution}
    except (Vl3Error, OSError):  # the run reports it; what it finds in spite of that is no other run's
        return {"unknown": request.model_uri or _base_uris(request), "run_id": request.run_id}


def check_whole(found: FoundModel) -> None:
    """Check that a model is whole, of our kind, and has what chats and media need.

    Raises:
        ConfigError: it is another architecture or adapters alone, is damaged, or its parts contradict each other.
        StorageError: it cannot be read.
    """
    try:
        sizes = check_model(found.folder)
        check_chat_tokens(found.folder, sizes.text.vocab_size)
        check_patch_size(found.folder, sizes.vision.patch_size)
    except OSError as error:
        raise StorageError(
            f"{found.uri}: the model cannot be read ({error}). Correct the files or their permissions."
        ) from error


def _import_model(work: Work) -> StepOutcome:
    """Publish the model in our layout; its manifest names the source."""
    # A model that an earlier attempt has imported is not looked for again: its name may mean another one by now.
    start = is_published(work, "start")
    if start is None:
        work.progress(0, 1, f"importing {work.request.model_uri}")
        found = find_whole(work.request)
        check_whole(found)
        with work.fresh_folder("start") as folder:
            convert(found.folder, folder, Layout.OFFICIAL)
            # The record of the run that trained it; merges and DiffFP are in the preprocessor's files.
            (folder / RUN_FILE).unlink(missing_ok=True)
            origin = {"uri": found.uri, "sha256": found.sha256, "kind": found.kind}
            start = work.publish(folder, "start", kind=MODEL, made_from={SOURCE: origin})
    return StepOutcome(outputs={"start": start}, values={"model": read_manifest(start).made_from[SOURCE]})


def _import_bases(work: Work) -> StepOutcome:
    """Publish both bases, then the start artifact that names them by the digests of their files.

    Both are checked before either is published: what is wrong with one is found again after it was corrected.
    """
    request, uris = work.request, _base_uris(work.request)
    published = {name: is_published(work, name) for name in uris}
    with ExitStack() as folders_open:
        folders: dict[str, Path] = {}
        came_from, problems = dict(uris), list[Vl3Error]()
        for number, (name, uri) in enumerate(uris.items()):
            work.progress(number, len(uris), f"importing {uri}")
            reference = published[name]
            if reference is not None:
                folders[name] = fetch(reference)
                continue
            folders[name] = folders_open.enter_context(work.fresh_folder(name))
            try:
                came_from[name] = _copy_base(request, name, uri, folders[name])
            except Vl3Error as error:
                problems.append(error)
        if problems:
            raise combined(problems, "bases cannot be used, listed above")
        wanted, fixed = request.config.model, FixedWanted.of(request.config.model)
        config = check_bases(folders[VISION], folders[LANGUAGE], vision_width=wanted.vision_width, fixed=fixed)
        check_chat_tokens(folders[LANGUAGE], config.text.vocab_size)
        tokenizer = (folders[LANGUAGE] / TOKENIZER_FILE).read_bytes()
        bases = {
            name: one or _publish_base(work, name, folders[name], came_from[name]) for name, one in published.items()
        }
    digests = {name: base_digest(reference) for name, reference in bases.items()}
    with work.fresh_folder("start") as folder:
        atomic_write_json(folder / BASES_FILE, digests)
        atomic_write_bytes(folder / TOKENIZER_FILE, tokenizer)
        start = work.publish(folder, "start", kind="start")
    values = {name: {"uri": came_from[name], "sha256": sha256} for name, sha256 in digests.items()}
    return StepOutcome(outputs={"start": start, **bases}, values={"bases": values})


def _copy_base(request: Request, name: str, uri: str, folder: Path) -> str:
    """Copy the files of one base into a folder; returns what its address stood for."""
    try:
        found = find_base(request, uri, is_encoder=name == VISION)
        copy_model_files(found.folder, folder)
    except ConfigError as error:
        raise ConfigError(f"model.{name}: {error}") from error
    except OSError as error:
        raise StorageError(f"model.{name}={uri}: the base cannot be read ({error}). Correct its files.") from error
    return found.uri


def _publish_base(work: Work, name: str, folder: Path, came_from: str) -> Reference:
    """Publish one base. What it came from is no part of its digest: the same files from elsewhere are the same base."""
    reference = work.publish(folder, name, kind=BASE)
    note_provenance(reference, {SOURCE: came_from})
    return reference


def _base_uris(request: Request) -> dict[str, str]:
    model = to_dict(request.config.model)
    return {name: model[name] for name in (VISION, LANGUAGE)}


STEP = Step(run=run, key_parts=key_parts)
