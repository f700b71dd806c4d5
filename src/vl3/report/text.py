"""Names and numbers as a person writes them, for pages and for the terminal."""

import math
import re
from typing import Any


def label(name: str) -> str:
    """A name from the code as words: `scene_image:caption` becomes `scene image, caption`."""
    return name.replace(":", ", ").replace("_", " ").replace("-", " ")


def number_text(value: float) -> str:
    """All digits of a number: 80, 0.0003, 1e-5 (and not 80.0 or 1e-05)."""
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", repr(value))


def short_number(value: float) -> str:
    """A number with four significant digits: 0.1235, 0.0003, 1.2e-5."""
    return number_text(float(f"{value:.4g}"))


def value_text(value: Any) -> str:
    """Any JSON value in words: `yes`, `not set`, `a, b`, `chart 1, document 2`, a number with all digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_text(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "none"
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value) if isinstance(value, int | float) else str(value)


def points_text(value: float) -> str:
    """A change of accuracy in percentage points with its sign: -0.021 as `-2.1` (with a real minus sign)."""
    points = round(value * 100, 1)
    return f"{points:+.1f}".replace("-", "\u2212") if points else "0.0"


def p_text(value: float) -> str:
    """A p value: 0.0000012 as `< 0.001`, 0.0312 as `0.031`, 0.5 as `0.50`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def duration_text(seconds: float) -> str:
    """Seconds as `120 ms`, `12.3 s`, `2 min 12 s` or `1 h 05 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
