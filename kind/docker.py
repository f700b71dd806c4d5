"""Docker images by content: each tag has a hash of what the image was made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from kind.commands import run, step
from kind.content import hash_of

CACHE_REPOSITORY = "vl3/kind-cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe:
    """An image: its Dockerfile and the files that it copies."""

    name: str
    """The name that the manifests use."""
    dockerfile: str
    files: Mapping[str, Path]
    """Names in the build folder -> where the files are now."""

    def tag(self, *bases: str) -> str:
        """Cache tag: changes with the Dockerfile, the files and the tags of the images it builds on."""
        content = [part for name, path in sorted(self.files.items()) for part in (name, identity(path))]
        digest = hash_of(self.dockerfile, content, bases)
        return f"{CACHE_REPOSITORY}:{self.name.translate(str.maketrans('/:', '__'))}-{digest}"


def identity(path: Path) -> str:
    """Hash of a file's bytes; of a built program the name of its folder, which is a hash already and much faster."""
    return f"{path.parent.name}/{path.name}" if "programs" in path.parts else hash_of(path)


def image_ids() -> dict[str, str]:
    """All images that Docker has: `name:tag` -> image ID."""
    listing = run(["docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
    return dict(line.split(" ", 1) for line in listing.splitlines())


def ensure_image(recipe: ImageRecipe, *bases: str) -> str:
    """Build an image unless the same one was built before, and tag it with its name; returns its cache tag."""
    tag = recipe.tag(*bases)
    known = image_ids()
    if tag not in known:
        with step(f"image {recipe.name}"):
            build(recipe, tag)
        run(["docker", "tag", tag, recipe.name])
    elif known.get(recipe.name) != known[tag]:
        run(["docker", "tag", tag, recipe.name])
    return tag


def build(recipe: ImageRecipe, tag: str) -> None:
    """Run `docker build` in a folder with only the files of the recipe.

    It uses the machine's network: a name server on a loopback address cannot be reached from a Docker network.
    """
    with TemporaryDirectory(prefix="vl3-image-") as name:
        folder = Path(name)
        for file_name, path in recipe.files.items():
            # Go's module folders are read-only; with their modes the copy could not be removed.
            run(["cp", "-rL", *(["--no-preserve=mode"] if path.is_dir() else []), path, folder / file_name])
        (folder / "Dockerfile").write_text(recipe.dockerfile, encoding="utf-8")
        run(["docker", "build", "--network", "host", "--tag", tag, folder])


def scratch_dockerfile(program: str, *, target: str, user: str = "0:0") -> str:
    """An image with one static program; `user` is numeric, or runAsNonRoot refuses the pod."""
    return (
        "FROM scratch\n"
        "ENV PATH=/usr/local/bin:/usr/bin:/bin:/\n"
        f"COPY {program} {target}\n"
        f"USER {user}\n"
        f'ENTRYPOINT ["{target}"]\n'
    )


def remove_others(repository: str, keep: Iterable[str]) -> None:
    """Remove the images of a repository that are no longer needed.

    Images of containers are kept, because another cluster may use an older node image; so are layers that other images
    use.
    """
    kept = {*keep, *run(["docker", "ps", "--all", "--format", "{{.Image}}"]).split()}
    old = [name for name in image_ids() if name.startswith(f"{repository}:") and name not in kept]
    if old:
        run(["docker", "rmi", *old])
