"""The Go programs of the cluster, built from the pinned modules in `modules/`."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kind.commands import fetch, run, step
from kind.content import hash_of
from kind.settings import KUBERNETES_VERSION, MODULES

GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GoModule:
    """One Go module folder and the programs that are built from it."""

    module: str
    """Folder below `modules/`."""
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    """File names of the built programs."""


def _kubernetes(*names: str) -> tuple[str, ...]:
    return tuple(f"k8s.io/kubernetes/cmd/{name}" for name in names)


CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
KUBERNETES = ("kubeadm", "kubelet", "kubectl", *CONTROL_PLANE, "kube-proxy")
CNI_PLUGINS = ("loopback", "host-local", "portmap")
CALICO = ("calico", "calico-felix")
"""The pod network's CNI plugin, and the program that enforces network policies on a node."""

KIND = GoModule(module="kind", packages=("sigs.k8s.io/kind",), programs=("kind",))

# Kubernetes before the controllers, so that they find most of their packages in the build cache.
GO_MODULES = (
    KIND,
    GoModule(module="pause", packages=(".",), programs=("pause",)),
    GoModule(module="etcd", packages=(".",), programs=("etcd",)),
    GoModule(module="k8s", packages=_kubernetes(*KUBERNETES), programs=KUBERNETES),
    GoModule(
        module="cni",
        packages=tuple(
            f"github.com/containernetworking/plugins/plugins/{path}"
            for path in ("main/loopback", "ipam/host-local", "meta/portmap")
        ),
        programs=CNI_PLUGINS,
    ),
    GoModule(
        module="calico",
        packages=tuple(
            f"github.com/projectcalico/calico/{path}" for path in ("cni-plugin/cmd/calico", "felix/cmd/calico-felix")
        ),
        programs=CALICO,
    ),
    GoModule(module="coredns", packages=("github.com/coredns/coredns",), programs=("coredns",)),
    GoModule(
        module="lpp",
        packages=("github.com/rancher/local-path-provisioner",),
        programs=("local-path-provisioner",),
    ),
    GoModule(module="jobset", packages=("sigs.k8s.io/jobset",), programs=("jobset",)),
    GoModule(
        module="trainer",
        packages=("github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",),
        programs=("trainer-controller-manager",),
    ),
    GoModule(module="kueue", packages=("sigs.k8s.io/kueue/cmd/kueue",), programs=("kueue",)),
    GoModule(
        module="kuberay", packages=("github.com/ray-project/kuberay/ray-operator",), programs=("kuberay-operator",)
    ),
    GoModule(module="kwok", packages=("sigs.k8s.io/kwok/cmd/kwok",), programs=("kwok",)),
)


def module_folder(folder: str, module: str) -> Path:
    """Where Go keeps the files of a pinned module; downloads it if necessary."""
    said = run(["go", "mod", "download", "-json", module], cwd=MODULES / folder, env=GO_ENVIRONMENT)
    return Path(json.loads(said)["Dir"])


def linker_flags() -> str:
    """Flags that strip the programs and set Kubernetes' version in them; otherwise clients see v0.0.0."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    component = "k8s.io/component-base/version"
    values = {
        f"{component}.gitVersion": KUBERNETES_VERSION,
        f"{component}.gitMajor": major,
        f"{component}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES_VERSION,
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def module_hash(go_module: GoModule, go_version: str) -> str:
    """A hash of the pinned modules, the packages, the flags and the Go version."""
    return hash_of(MODULES / go_module.module, go_module.packages, linker_flags(), go_version)


def build_programs(cache: Path, modules: Iterable[GoModule] = GO_MODULES) -> dict[str, Path]:
    """Build what the cache lacks; returns the path of every program."""
    go_version = run(["go", "version"]).strip()
    found: dict[str, Path] = {}
    for go_module in modules:
        folder = cache / "programs" / f"{go_module.module}-{module_hash(go_module, go_version)}"
        if not folder.is_dir():
            with step(f"go build {go_module.module}"):
                _build(go_module, folder)
            _remove_older(folder, go_module.module)
        found |= {program: folder / program for program in go_module.programs}
    return found


def _build(go_module: GoModule, folder: Path) -> None:
    """Build next to the final folder, so that a killed build never looks complete."""
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.copytree(MODULES / go_module.module, work / "module", dirs_exist_ok=True)
    output = work / "out"
    output.mkdir()
    # Name a single program explicitly: Go would name a module's root package after its folder.
    target = f"{output}/" if len(go_module.programs) > 1 else str(output / go_module.programs[0])
    fetch(
        ["go", "build", "-trimpath", "-ldflags", linker_flags(), "-o", target, *go_module.packages],
        cwd=work / "module",
        env=GO_ENVIRONMENT,
    )
    output.rename(folder)
    shutil.rmtree(work)


def _remove_older(folder: Path, module: str) -> None:
    for other in folder.parent.glob(f"{module}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
