"""Events of the log have names by one rule, and operators find each of them."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
_PARTICIPLES = {
    "begun",
    "cut",
    "found",
    "given",
    "held",
    "kept",
    "known",
    "lost",
    "put",
    "read",
    "set",
    "stood",
    "told",
}
_PARTICIPLES |= {"unheard", "unknown", "unread", "withdrawn"}
_PARTICLES = {"aside", "off", "out", "still", "up"}


def _logged() -> Iterator[tuple[str, str]]:
    """Yield each event with the place that logs it."""
    for room in ("streams", "consumers", "producers", "infra"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                if node.func.attr in _LEVELS and ast.unparse(node.func.value).endswith("log"):
                    said = [one for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)]
                    assert said, f"{path}:{node.lineno}: an event has a name that stands there"
                    for one in said:
                        yield str(one.value).split()[0].rstrip(":"), f"{path.relative_to(ROOT)}:{node.lineno}"


@cache
def _events() -> list[tuple[str, str]]:
    return list(_logged())


def _follows_the_rule(event: str) -> bool:
    if (match := re.fullmatch(r"[a-z]+(?:_[a-z]+)*\.([a-z]+(?:_[a-z]+)*)", event)) is None:
        return False
    words = match[1].split("_")
    if len(words) > 1 and words[-1] in _PARTICLES:
        words.pop()
    return words[-1].endswith("ed") or words[-1] in _PARTICIPLES


def test_each_event_is_a_thing_and_what_happened_to_it() -> None:
    """A noun, a dot, and words that end in a past participle."""
    assert [f"{place}: {event}" for event, place in _events() if not _follows_the_rule(event)] == []


def test_the_page_for_operators_has_each_event_and_no_other() -> None:
    """Whoever reads a line finds what it says, and what to look for."""
    page = (ROOT / "docs/operating.md").read_text().partition("\n## The log\n")[2]
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert listed == {event for event, _ in _events()}
