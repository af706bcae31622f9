"""Plans are read from the log of an embedded Postgres, as its `auto_explain` writes them.

They are those of the very statements that the pages send, with their values, and say how many rows each step has read.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

BIG: Final = frozenset(
    {
        *("customization_jobs", "customized_activities", "job_events", "job_words", "job_requests", "job_outcomes"),
        *("job_owners", "quota_ledger", "generation_attempts", "failed_events", "webhook_deliveries"),
        *("operator_actions", "scheduled_events"),
    }
)
"""The tables that grow with the jobs."""
_LOOKED_AT: Final = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
_PLAN: Final = re.compile(r"LOG:  duration: [\d.]+ ms  plan:\n((?:\t.*\n|\{\n|\}\n)+)")


@dataclass(frozen=True, slots=True)
class Reading:
    """A step of a plan reads a big table. `rows`: all that it looked at, those that it left out included."""

    table: str
    node: str
    rows: int
    statement: str


async def log_plans(url: str, *, on: bool = True) -> None:
    """Have new connections to a database log their plans, or stop them."""
    connection = await asyncpg.connect(url)
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    settings = {
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_timing": "off",
        "auto_explain.log_nested_statements": "on",
        "auto_explain.log_format": "json",
    }
    try:
        await connection.execute("LOAD 'auto_explain'")
        for setting, value in settings.items():
            await connection.execute(
                f"ALTER DATABASE {name} SET {setting} = '{value}'" if on else f"ALTER DATABASE {name} RESET {setting}"
            )
    finally:
        await connection.close()


def readings(log: Path, *, after: int = 0) -> list[Reading]:
    """Return what the plans in a log have read of big tables."""
    with log.open("rb") as file:
        file.seek(after)
        text = file.read().decode(errors="replace")
    documents = [json.loads(found[1].replace("\t", "")) for found in _PLAN.finditer(text)]
    return [one for document in documents for one in _of(document["Plan"], document["Query Text"])]


def _of(plan: Mapping[str, Any], statement: str) -> Iterator[Reading]:
    if plan.get("Relation Name") in BIG and plan.get("Actual Loops"):
        each = sum(plan.get(name, 0) for name in _LOOKED_AT)
        rows = round(each * plan["Actual Loops"])
        yield Reading(plan["Relation Name"], plan["Node Type"], rows, " ".join(statement.split()))
    for step in plan.get("Plans", ()):
        yield from _of(step, statement)


def most(found: Sequence[Reading]) -> Reading | None:
    """Return the reading of most rows."""
    return max(found, key=lambda one: one.rows, default=None)
