"""The images as data: name, parent and content of each."""

from dataclasses import dataclass
from pathlib import Path

from vl3.components import images as names

IMAGES = Path(__file__).parent
ROOT = IMAGES.parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """One image."""

    name: str
    """Folder below images/ with its Dockerfile and, except for base, its requirements."""
    image: str
    """Name and tag."""
    parent: str | None
    """Role whose image it is built on; None for BASE_IMAGE."""
    has_vl3: bool
    """Whether it contains the project's own code, as its last layer."""
    programs: tuple[tuple[str, str], ...] = ()
    """Programs of its libraries that it needs, as (name, `module:function`); all others are left out."""
    runs_steps: bool = False
    """Whether steps of the workflow run in it, so that it has kfp's executor and MLflow's client."""

    @property
    def folder(self) -> Path:
        """The folder of its Dockerfile."""
        return IMAGES / self.name

    @property
    def requirements(self) -> Path | None:
        """Its locked requirements, including those of its parent; None if it has no libraries."""
        path = self.folder / "requirements.txt"
        return path if path.exists() else None

    def rule_files(self, name: str) -> list[Path]:
        """The lists that apply to this role: for all images, for those that run steps, and its own."""
        files = [IMAGES / name, IMAGES / f"steps-{name}" if self.runs_steps else None, self.folder / name]
        return [path for path in files if path is not None and path.exists()]


ROLES = {
    role.name: role
    for role in (
        Role(name="base", image=names.BASE, parent=None, has_vl3=False),
        Role(name="torch", image=names.TORCH, parent="base", has_vl3=False),
        Role(name="trainer", image=names.TRAINER, parent="torch", has_vl3=True),
        Role(name="evaluator", image=names.EVALUATOR, parent="torch", has_vl3=True, runs_steps=True),
        Role(
            name="curator",
            image=names.CURATOR,
            parent="torch",
            has_vl3=True,
            programs=(("ray", "ray.scripts.scripts:main"),),  # KubeRay starts it by its name
            runs_steps=True,
        ),
        Role(
            name="harness",
            image=names.HARNESS,
            parent="torch",
            has_vl3=True,
            programs=(("lmms-eval", "lmms_eval.cli.dispatch:main"),),
        ),
        Role(name="launcher", image=names.LAUNCHER, parent="base", has_vl3=True, runs_steps=True),
        Role(
            name="data",
            image=names.DATA,
            parent="base",
            has_vl3=True,
            programs=(("ray", "ray.scripts.scripts:main"),),  # KubeRay starts it by its name
            runs_steps=True,
        ),
        Role(name="mlflow", image=names.MLFLOW, parent="base", has_vl3=False),
    )
}
"""Every image, parents before children."""


def with_parents(wanted: list[str]) -> list[Role]:
    """The named roles (all if the list is empty) and their parents, in the order to build them.

    ["trainer"] gives base, torch, trainer.

    Raises:
        KeyError: a name is not a role.
    """
    needed: set[str] = set()
    for name in wanted or list(ROLES):
        role: Role | None = ROLES[name]
        while role is not None:
            needed.add(role.name)
            role = ROLES[role.parent] if role.parent else None
    return [role for role in ROLES.values() if role.name in needed]


def rule_lines(path: Path) -> list[str]:
    """The lines of a list that are neither empty nor comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
