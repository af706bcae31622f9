"""Every list of terminal kinds that stands in SQL is the one that Python has."""

import re
from pathlib import Path

from consumers.projection.fold import status_of
from streams.jobs.events import TERMINAL_KINDS

ROOT = Path(__file__).parents[2]
# `rejected` is an outcome of a run; the status that a customer reads of its job is `failed`.
STATUSES = set(TERMINAL_KINDS) - {"rejected"}
_LIST = re.compile(r"\bIN\s*\(([^()]*'completed'[^()]*)\)|\bARRAY\s*\[([^\]]*'completed'[^\]]*)\]")
_WORD = re.compile(r"'([^']*)'")


def test_lists_in_sql_name_every_terminal_kind() -> None:
    """A list has the outcomes of a run or the statuses of a job; Celery's old words of a status may be with them."""
    found = {}
    for folder in ("streams", "consumers", "producers", "infra"):
        for path in (ROOT / folder).rglob("*.sql"):
            for match in _LIST.finditer(path.read_text()):
                words = set(_WORD.findall(match[0]))
                ours = {word for word in words if word == word.lower()}
                found[f"{path.relative_to(ROOT)}: {match[0]}"] = ours
                assert {status_of(word) for word in words - ours} <= STATUSES, match[0]
    assert [place for place, words in found.items() if words not in (set(TERMINAL_KINDS), STATUSES)] == []
    assert found
