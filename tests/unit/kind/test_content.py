"""What is built once and not again: hashes of programs and images."""

from pathlib import Path

import pytest

from kind import programs
from kind.content import hash_of
from kind.docker import ImageRecipe, identity, scratch_dockerfile
from kind.programs import GO_MODULES, GoModule, linker_flags, module_hash


def test_hash_follows_names_and_bytes_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module a\n")
    first = hash_of(folder, "text")
    assert hash_of(folder, "text") == first
    (folder / "go.mod").write_text("module b\n")
    second = hash_of(folder, "text")
    (folder / "go.mod").rename(folder / "go.sum")
    assert len({first, second, hash_of(folder, "text")}) == 3


def test_hash_keeps_parts_apart() -> None:
    assert hash_of("ab", "c") != hash_of("a", "bc")


def test_the_linker_puts_the_version_into_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "KUBERNETES_VERSION", "v1.36.3")
    flags = linker_flags()
    assert flags.startswith("-s -w ")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "version.gitMajor=1 " in flags
    assert "version.gitMinor=36 " in flags


def test_a_new_go_version_builds_again() -> None:
    assert module_hash(GO_MODULES[0], "go1.26.0") != module_hash(GO_MODULES[0], "go1.26.8")


def test_programs_are_built_once_and_older_ones_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = []

    def build(go_module: GoModule, folder: Path) -> None:
        built.append(folder.name)
        folder.mkdir(parents=True)

    monkeypatch.setattr(programs, "_build", build)
    monkeypatch.setattr(programs, "run", lambda *_, **__: "go1.26.8")
    (tmp_path / "programs" / "etcd-old").mkdir(parents=True)
    found = programs.build_programs(tmp_path)
    again = programs.build_programs(tmp_path)
    assert len(built) == len(GO_MODULES)
    assert found == again
    assert {"kind", "kubectl", "kube-apiserver", "portmap", "jobset", "kueue", "kwok"} <= set(found)
    assert not (tmp_path / "programs" / "etcd-old").exists()


def test_image_tag_changes_with_dockerfile_files_and_base(tmp_path: Path) -> None:
    file = tmp_path / "kwok"
    file.write_text("one")
    recipe = ImageRecipe(name="a.io/b/c:v1", dockerfile="FROM scratch\n", files={"kwok": file})
    tag = recipe.tag("base-1")
    assert tag.startswith("vl3/kind-cache:a.io_b_c_v1-")
    assert recipe.tag("base-2") != tag
    file.write_text("two")
    assert recipe.tag("base-1") != tag


def test_a_built_program_is_known_by_its_folder(tmp_path: Path) -> None:
    program = tmp_path / "programs" / "kwok-0123456789abcdef" / "kwok"
    assert identity(program) == "kwok-0123456789abcdef/kwok"


def test_scratch_image_has_a_numeric_user() -> None:
    text = scratch_dockerfile("kueue", target="/manager", user="65532:65532")
    assert text.splitlines()[0] == "FROM scratch"
    assert "USER 65532:65532" in text
    assert text.endswith('ENTRYPOINT ["/manager"]\n')
