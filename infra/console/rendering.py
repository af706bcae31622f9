"""Templates become HTML. Every text is escaped unless a template made it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra.operations.prices import spent_amount

_FOLDER: Final = Path(__file__).with_name("templates")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


class Templates:
    """The pages' templates."""

    def __init__(self) -> None:
        self._environment = _environment()

    def page(self, name: str, values: Mapping[str, object]) -> str:
        """Return a whole page."""
        return self._environment.get_template(name).render(values)

    def live(self, name: str, values: Mapping[str, object]) -> str:
        """Return the part of a page that is sent again when it changes."""
        template = self._environment.get_template(name)
        return "".join(template.blocks["live"](template.new_context(dict(values))))


@cache
def _environment() -> Environment:
    """Return what compiles the templates, each of them once for all consoles of a process."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "span": span,
        "number": number,
        "money": spent_amount,
        "pretty": pretty,
        "anchor": anchor,
        "sentence": sentence,
    }
    environment.globals |= {"query": query, "now": lambda: datetime.now(UTC)}
    environment.globals["ui"] = environment.get_template("ui.html").module
    return environment


class Fields(dict[str, str]):
    """The fields of an address, for templates: one that is not given is None."""

    def __missing__(self, _name: str) -> None:
        """Return None."""


def moment(at: datetime | None) -> str:
    """Return a time in UTC to the second; a dash for none."""
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def span(length: timedelta | float | None) -> str:
    """Return a length of time in one or two units; a dash for none."""
    if length is None:
        return "–"
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _UNITS[-1][0]:
        return f"{seconds:.1f} s"
    for (size, unit), (smaller, smaller_unit) in zip(_UNITS, (*_UNITS[1:], (1, "s")), strict=True):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // smaller:.0f} {smaller_unit}"
    return f"{seconds:.0f} s"  # pragma: no cover - the last unit is always reached


def number(value: float | None) -> str:
    """Return a number with its thousands apart; a dash for none."""
    return "–" if value is None else f"{value:,}"


def pretty(document: object) -> str:
    """Return JSON for people."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()


def anchor(heading: str) -> str:
    """Return a heading's name in links, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sentence(text: str) -> str:
    """Return a text with one full stop at its end; others may have written it."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def query(values: Mapping[str, Any], **changes: Any) -> str:  # noqa: ANN401 - whatever a form's field may hold
    """Return a query string of what is set."""
    kept = {name: value for name, value in {**values, **changes}.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""
