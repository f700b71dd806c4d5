"""List the licences of the libraries in the images: `python -m images.licences` rewrites THIRD_PARTY.md.

A licence is quoted from the metadata of the distribution, as its authors wrote it. The pins say which image has which.
"""

import sys
from importlib import metadata

from images.roles import ROLES, ROOT
from vl3.workflow.code import read_pins

PAGE = ROOT / "THIRD_PARTY.md"
SAID_HERE = {
    "av": "BSD-3-Clause; its wheel holds FFmpeg with x264 and x265: GPL-2.0-or-later",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # a list of nvidia-* distributions, with no file of its own
    "huey": "MIT",
    "liger-kernel": "BSD-2-Clause",  # its metadata holds the whole text
    "psycopg2-binary": "LGPL-3.0-or-later WITH exceptions",  # only in the MLflow image, and so not installed here
    "skops": "MIT",
    "hf-transfer": "Apache-2.0",
    "math-verify": "Apache-2.0",  # its distribution holds no licence; its repository does
    "tiktoken": "MIT",
    "zss": "BSD-3-Clause",
    # What Ray's server imports is only in the data image, and so not installed here either.
    "aiohttp-cors": "Apache-2.0",
    "colorful": "MIT",
    "distlib": "PSF-2.0",
    "grpcio": "Apache-2.0",
    "opencensus": "Apache-2.0",
    "opencensus-context": "Apache-2.0",
    "opentelemetry-exporter-prometheus": "Apache-2.0",
    "prometheus-client": "Apache-2.0 AND BSD-2-Clause",
    "py-spy": "MIT",
    "python-discovery": "MIT",
    "smart-open": "MIT",
    "virtualenv": "MIT",
    "wrapt": "BSD-2-Clause",
}
"""Licences of distributions whose metadata name none, or not all, from the files that they hold."""
_HEAD = """# Licences of what the images hold

Which libraries do the container images hold, and under which licences? Made by `make licences` from the pins in
images/\\*/requirements.txt and from what each distribution says of itself; the full texts are in the images, in each
library's `dist-info` folder. The wheel of vl3 holds no library. What else follows the work of others is in
[NOTICE](NOTICE).

The Debian packages below them have their licences in `/usr/share/doc/*/copyright` of each image. Two things bind
whoever passes an image on: NVIDIA's libraries (torch, trainer, evaluator) are not free software, and FFmpeg in PyAV's
wheel (trainer, evaluator, data) is built with x264 and x265, which makes it GPL.

| library | licence | images |
| --- | --- | --- |
"""


def main() -> int:
    """Write the page; returns 1 if the licence of a library is not known, and names it."""
    places = libraries()
    found = {name: SAID_HERE.get(name) or licence_of(name) for name in places}
    unknown = [name for name, licence in found.items() if not licence]
    if unknown:
        print(
            f"[licences] not installed here, or without a licence in their metadata: {', '.join(unknown)}. Install "
            "them, or add their licences to SAID_HERE in images/licences.py.",
            file=sys.stderr,
        )
        return 1
    rows = [f"| {name} | {found[name]} | {', '.join(roles)} |\n" for name, roles in places.items()]
    PAGE.write_text(_HEAD + "".join(rows), encoding="utf-8")
    return 0


def libraries() -> dict[str, list[str]]:
    """The libraries of all images by name, each with the roles that pin it: `{"torch": ["torch", "trainer"]}`."""
    found: dict[str, list[str]] = {}
    for role in ROLES.values():
        for name in read_pins(role.requirements) if role.requirements else ():
            found.setdefault(name, []).append(role.name)
    return dict(sorted(found.items()))


def licence_of(name: str) -> str:
    """What a distribution says is its licence; empty if it says nothing or is not installed.

    Its SPDX expression if there is one, else its one-line field, else its classifiers: some put the whole text into the
    field.
    """
    harness = map(str, ROOT.glob(".venv-eval/lib/python*/site-packages"))  # lmms-eval's own environment, if it is there
    installed = next(iter(metadata.distributions(name=name, path=[*sys.path, *harness])), None)
    if installed is None:
        return ""
    about = installed.metadata
    expression, field = ("".join(about.get_all(key) or ()).strip() for key in ("License-Expression", "License"))
    classifiers = about.get_all("Classifier") or []
    classified = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    return expression or ("" if "\n" in field else field) or ", ".join(classified)


if __name__ == "__main__":
    sys.exit(main())
