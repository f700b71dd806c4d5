"""Fills a template: one style for all pages, everything that comes from a run or from data escaped."""

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vl3.report import view
from vl3.report.text import label

_FILTERS = ("percent", "tenth", "signed_percent", "p_value", "duration", "plain", "setting", "exact", "row_names")


def render(template: str, *, title: str, script: str = "", filters: dict[str, Any] | None = None, **values: Any) -> str:
    """A page that needs no other file and makes no request.

    Args:
        template: its template, in the folder `templates`; it includes head.html.j2.
        title: title of the page.
        script: its script, in the same folder; the page's policy lets no other script run.
        filters: filters of the template besides the common ones.
        values: what the template shows.
    """
    environment = Environment(
        loader=PackageLoader("vl3.report"),
        autoescape=True,
        undefined=StrictUndefined,  # a missing number fails here and is not shown as empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(view, name) for name in _FILTERS})
    environment.filters.update({"label": label, **(filters or {})})
    environment.tests["table"] = view.is_table
    code = _source(environment, script) if script else ""
    page = environment.get_template(template).render(
        title=title,
        style=_source(environment, "report.css"),
        script=code,
        script_sha256=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        **values,
    )
    return page.encode(errors="replace").decode()  # half of a surrogate pair, from a file name, cannot be written


def _source(environment: Environment, name: str) -> str:
    """Our style sheet or script, unescaped: neither contains anything that comes from a run."""
    return environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
