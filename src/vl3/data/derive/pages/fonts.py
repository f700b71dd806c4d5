"""The fonts of drawn pages: files of a folder, and which characters each of them has."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import ImageFont

from vl3.errors import ConfigError

SYSTEM_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("~/.local/share/fonts"))
_SUFFIXES = (".ttf", ".otf", ".ttc")
_MISSING = "\U0010ffff"
"""No character and in no font: drawn as the font's sign for what it lacks."""
_PROBE_PX = 24
_OPEN_FONTS = 128
"""Fonts at a size, of about 0.4 MB each."""
_KNOWN_CHARACTERS = 1 << 18
"""Pairs of font and character that are remembered: about 50 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FontFile:
    """A font by its file, and the digest of it, as equal names are often different fonts."""

    path: str
    sha256: str


@dataclass(kw_only=True, slots=True)
class Fonts:
    """The fonts to draw from."""

    files: tuple[FontFile, ...]
    unusable: tuple[str, ...] = ()
    """Names of files that are no fonts that can be drawn with."""

    def covering(self, text: str, preferred: FontFile, random: Random) -> FontFile | None:
        """The preferred font if it has every character of a text, else another that has, or None."""
        characters = sorted(set(text) - {" "})
        others = random.sample(self.files, len(self.files))
        fonts = (preferred, *others)
        return next((font for font in fonts if all(_has(font.path, character) for character in characters)), None)


def find_fonts(folder: Path | None) -> Fonts:
    """The fonts of a folder and those within, in order of their paths; without one, those of the system.

    Raises:
        ConfigError: there is none.
    """
    folders = [folder] if folder is not None else [path.expanduser() for path in SYSTEM_FOLDERS]
    found = sorted(path for one in folders for path in one.rglob("*") if path.suffix.lower() in _SUFFIXES)
    good, unusable = [], []
    for path in found:
        try:
            load_font(str(path), _PROBE_PX).getmask("a")
            good.append(FontFile(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
        except (OSError, ValueError):
            unusable.append(path.name)
    if not good:
        bad = f" ({len(unusable)} files are no fonts that can be drawn with)" if unusable else ""
        raise ConfigError(
            f"No font (.ttf, .otf or .ttc) is in {', '.join(map(str, folders))}{bad}, so no page can be drawn. Install "
            "fonts that have the corpus' characters, or name a folder with some by --fonts."
        )
    return Fonts(files=tuple(good), unusable=tuple(unusable))


@lru_cache(maxsize=_OPEN_FONTS)
def load_font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    """A font at a size. The basic layout gives the same lines wherever Pillow runs; it writes from left to right."""
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=_KNOWN_CHARACTERS)
def _has(path: str, character: str) -> bool:
    return _picture(path, character) != _picture(path, _MISSING)


def _picture(path: str, character: str) -> tuple[tuple[int, int], bytes]:
    mask = load_font(path, _PROBE_PX).getmask(character)
    return mask.size, bytes(mask)
