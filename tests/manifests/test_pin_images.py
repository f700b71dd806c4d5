"""Production does not render before its images are pinned by what a registry answered."""

from pathlib import Path

import pytest

from manifests.pin_images import REQUIRED, main, tagged_images
from tests.support.manifests import MANIFESTS, RenderError, kustomize

DIGEST = "sha256:" + "ab" * 32


def _lines(*left_out: str) -> list[str]:
    return [f"{image}@{DIGEST}\n" for image in REQUIRED if image not in left_out]


def test_all_images_are_written_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*reversed(_lines()), "\n"], tmp_path / "images") == 0
    text = (tmp_path / "images" / "kustomization.yaml").read_text()
    assert text.endswith("".join(f"  - name: {image}\n    digest: {DIGEST}\n" for image in REQUIRED))
    assert "9 images pinned" in capsys.readouterr().out


def test_a_mirror_s_name_is_left_out(tmp_path: Path) -> None:
    assert main([*_lines(), f"mirror.example/vl3/trainer@{DIGEST}"], tmp_path / "images") == 0
    assert "mirror.example" not in (tmp_path / "images" / "kustomization.yaml").read_text()


def test_what_must_be_pushed_has_the_versions_of_the_other_overlays() -> None:
    assert tagged_images() == [
        "ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.3.0",
        "ghcr.io/vl3/curator:0.1.0",
        "ghcr.io/vl3/data:0.1.0",
        "ghcr.io/vl3/launcher:0.1.0",
        "ghcr.io/vl3/mlflow:0.1.0",
        "ghcr.io/vl3/trainer:0.1.0",
        "quay.io/kuberay/operator:v1.5.0",
        "registry.k8s.io/jobset/jobset:v0.12.0",
        "registry.k8s.io/kueue/kueue:v0.18.4",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*_lines(), "ghcr.io/vl3/trainer:0.1.0"], "'ghcr.io/vl3/trainer:0.1.0' is no image by digest. Expected name@"),
        ([*_lines(), "ghcr.io/vl3/trainer@sha256:" + "cd" * 32], "ghcr.io/vl3/trainer has two digests: sha256:abab"),
        (
            _lines("ghcr.io/vl3/mlflow"),
            "No digest of ghcr.io/vl3/mlflow. Production runs all of ghcr.io/",
        ),
        (
            [],
            "No digest of ghcr.io/kubeflow/trainer/trainer-controller-manager, ghcr.io/vl3/curator, ghcr.io/vl3/data",
        ),
    ],
)
def test_an_incomplete_release_writes_nothing(
    lines: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(lines, tmp_path / "images") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "images").exists()


@pytest.mark.skipif(
    (MANIFESTS / "overlays" / "prod" / "images" / "kustomization.yaml").exists(), reason="this is a release: pinned"
)
@pytest.mark.parametrize("half", ["cluster", "namespace"])
def test_unpinned_production_does_not_render(half: str) -> None:
    with pytest.raises(RenderError, match="overlays/prod/images"):
        kustomize(MANIFESTS / "overlays" / "prod" / half)
