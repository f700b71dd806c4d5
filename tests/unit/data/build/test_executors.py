"""Who makes the units: processes and Ray make the same bytes, and what ends one ends the build with its words."""

import builtins
import hashlib

import pytest

from tests.support.samples import conversation, image_bytes
from vl3.data.build.dataset import build_dataset
from vl3.data.build.executors import RayActors, run_units
from vl3.data.sample.difffp import keep_mask
from vl3.errors import ClusterError, ConfigError, StorageError


@pytest.fixture
def folder(data_folder, monkeypatch):
    monkeypatch.setattr("vl3.data.build.units.SAMPLES_PER_SHARD", 3)
    train = [{"image": ["a.png"], "conversations": conversation("<image> What?", f"It is {n}.")} for n in range(20)]
    train[4] = {"image": ["none.png"], "conversations": conversation("<image> What?", "It.")}
    return data_folder(train=train, files={"a.png": image_bytes(60, 100)})


@pytest.fixture
def build(folder, tokenizer, config, tmp_path):
    def run(name, **options):
        out = tmp_path / name
        build_dataset(folder, out, config=config, tokenizer=tokenizer, prune=keep_mask, workers=2, **options)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}

    return run


def test_ray_makes_the_bytes_that_processes_make(build):
    pytest.importorskip("ray")
    seen = []
    by_ray = build("by-ray", ray="local", progress=lambda done, total: seen.append((done, total)))
    assert by_ray == build("by-processes")
    assert len(by_ray) == 7 + 3
    assert seen == sorted(seen)
    assert seen[-1] == (20, 20)


def test_what_ends_a_unit_on_ray_keeps_its_family_and_words(build, monkeypatch, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / ".by-ray.partial").mkdir()
    monkeypatch.setattr("vl3.data.build.work.Work.begin", lambda work, _: _no_folder(work))
    with pytest.raises(StorageError, match="units"):
        build("by-ray", ray="local")


def _no_folder(work) -> bool:
    """The place of the units is a file."""
    work.folder.mkdir(parents=True)
    (work.folder / "units").write_bytes(b"")
    return True


def test_without_ray_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def without_ray(name, *arguments, **options):
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ConfigError, match=r"Ray is not installed here\. Install vl3\[ray\]"):
        run_units([], None, RayActors())


def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match="Ray cannot be reached at nowhere"):
        run_units([], None, RayActors(address="nowhere"))


def test_a_ray_that_does_not_start_in_time_is_no_traceback(monkeypatch):
    ray = pytest.importorskip("ray")

    def fail(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ClusterError, match=r"at this machine: The current node timed out during startup\. Check the"):
        run_units([], None, RayActors())
