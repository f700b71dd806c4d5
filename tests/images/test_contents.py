"""What is in an image, and what is not, seen from inside a restricted container."""

import json
import os
import subprocess

import pytest

from images.docker import inspect_image
from images.roles import ROLES, ROOT
from tests.images.conftest import Containers
from vl3.workflow.code import read_pins

LAUNCHER_LIMIT_BYTES = 250_000_000
every_image = pytest.mark.parametrize("role", list(ROLES))
every_image_with_libraries = pytest.mark.parametrize("role", [name for name in ROLES if name != "base"])

LOOK_AROUND = """
import importlib.metadata, json, os, pathlib, shutil, sys
roots = [pathlib.Path(p) for p in ("/root", "/home", "/opt", "/usr/local", "/var/cache", "/tmp")]
files = [str(p) for root in roots if os.access(root, os.R_OK | os.X_OK) for p in root.rglob("*")]
writable = [p for p in ("/", "/opt/vl3", "/usr", "/etc", "/var") if os.access(p, os.W_OK)]
programs = [p for p in ("gcc", "cc", "g++", "c++", "make", "ld", "as", "ninja", "nvcc", "pip", "uv") if shutil.which(p)]
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "home": os.environ["HOME"], "prefix": sys.prefix,
    "version": sys.version_info[:2], "writable": writable, "programs": programs,
    "traces": [f for f in files if f.endswith(("direct_url.json", "uv_cache.json", "pip.conf", "uv.toml", ".netrc"))],
    "caches": [f for f in files if "/.cache/" in f or f.endswith((".whl", ".deb"))],
    "uncompiled": len([f for f in files if f.endswith(".py")]) - len([f for f in files if f.endswith(".pyc")]),
    "distributions": {d.name.lower(): d.version for d in importlib.metadata.distributions()},
}))
"""


def look_around(containers: Containers, role: str) -> dict[str, object]:
    return json.loads(containers.output(role, "python", "-c", LOOK_AROUND))


@every_image
def test_image_runs_restricted_and_holds_no_tools(containers: Containers, role: str) -> None:
    seen = look_around(containers, role)
    assert (seen["uid"], seen["gid"], seen["home"], seen["prefix"]) == (65532, 65532, "/tmp", "/opt/vl3")
    assert seen["version"] == [3, 11]
    assert seen["writable"] == []
    assert seen["programs"] == []
    assert seen["traces"] == []
    assert seen["caches"] == []


@every_image_with_libraries
def test_image_holds_the_locked_versions_with_their_bytecode(containers: Containers, role: str) -> None:
    seen = look_around(containers, role)
    pins = read_pins(ROLES[role].folder / "requirements.txt")
    found = {str(name).replace("_", "-").replace(".", "-"): version for name, version in seen["distributions"].items()}
    own = {"vl3": "0.1.0"} if ROLES[role].has_vl3 else {}
    assert {name: found.get(name) for name in pins} == pins
    assert set(found) - set(pins) == set(own)
    assert seen["uncompiled"] < 40, "some libraries hold files that no Python compiles; the rest has its bytecode"


@every_image
def test_image_says_what_it_is_and_not_where_it_was_made(images: None, role: str) -> None:
    facts = inspect_image(ROLES[role].image)
    assert facts is not None
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"vl3 {role}"
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert len(labels["org.opencontainers.image.revision"]) >= 40
    assert labels["org.opencontainers.image.source"] == "https://github.com/vl3/vl3"
    assert facts["Config"]["User"] == "65532:65532"
    history = ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", ROLES[role].image]
    made = subprocess.run(history, capture_output=True, text=True, check=True).stdout
    for trace in ("index-url", "INDEX_URL", "PROXY", "proxy", "CERT", str(ROOT)):
        assert trace not in made
        assert not [line for line in facts["Config"]["Env"] if trace in line]


def test_trainer_and_evaluator_share_torch_as_one_layer(images: None) -> None:
    layers = {}
    for role in ("torch", "trainer", "evaluator"):
        facts = inspect_image(ROLES[role].image)
        assert facts is not None
        layers[role] = facts["RootFS"]["Layers"]
    shared = len(layers["torch"])
    assert layers["trainer"][:shared] == layers["evaluator"][:shared] == layers["torch"]
    assert len(layers["trainer"]) == shared + 2, "libraries, and vl3 itself"


def test_launcher_stays_small_and_knows_no_torch(containers: Containers) -> None:
    facts = inspect_image(ROLES["launcher"].image)
    assert facts is not None
    assert facts["Size"] < LAUNCHER_LIMIT_BYTES
    result = containers.run("launcher", "python", "-c", "import torch")
    assert "No module named 'torch'" in result.stderr


def _require_our_base() -> None:
    if os.environ.get("BASE_IMAGE") or inspect_image("python:3.11-slim-bookworm") is not None:
        pytest.skip("the images stand on another base than images/debian-base.sh makes, whose owner decides about this")


def test_the_trainer_compiles_what_triton_asks_for(containers: Containers) -> None:
    _require_our_base()
    program = "#include <Python.h>\nPyObject *stub(void) { return PyLong_FromLong(7); }\n"
    build = "gcc -shared -fPIC -x c - -I/usr/include/python3.11 -o /tmp/stub.so"
    load = "python -c \"import ctypes; print(ctypes.PyDLL('/tmp/stub.so').stub is not None)\""
    assert containers.output("trainer", "sh", "-c", f"printf '{program}' | {build} && {load}").split()[-1] == "True"
    assert containers.run("launcher", "sh", "-c", "command -v gcc").returncode != 0, "only below torch"


def test_the_trainer_finds_what_nccl_needs_for_infiniband(containers: Containers) -> None:
    _require_our_base()
    code = (
        "import ctypes, glob; ctypes.CDLL('libibverbs.so.1'); print(len(glob.glob('/usr/lib/*/libibverbs/*.so')) > 3)"
    )
    assert containers.output("trainer", "python", "-c", code).split()[-1] == "True"
