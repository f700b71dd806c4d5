"""What a run starts from, as the step import-start leaves it."""

import shutil
from pathlib import Path

from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.store.artifacts import publish
from vl3.store.bases import BASE, BASES_FILE, LANGUAGE, VISION, base_digest, copy_model_files
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_json


def publish_start(root: str, vision: Path, language: Path, work: Path) -> Reference:
    """Publish both bases and the start artifact below a URI; returns the start artifact."""
    digests = {}
    for name, folder in ((VISION, vision), (LANGUAGE, language)):
        (work / name).mkdir(parents=True)
        copy_model_files(folder, work / name)
        digests[name] = base_digest(publish(work / name, join_uri(root, name), kind=BASE, created_by={}))
    (work / "start").mkdir()
    atomic_write_json(work / "start" / BASES_FILE, digests)
    shutil.copyfile(language / TOKENIZER_FILE, work / "start" / TOKENIZER_FILE)
    return publish(work / "start", join_uri(root, "start"), kind="start", created_by={})
