"""A database is filled as a pipeline leaves it after ninety days."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

LONG_JOB: Final = 1_000
"""The number of a job with many events."""
_BATCH: Final = 50_000
_SCRIPTS: Final = Path(__file__).with_name("console_rows.sql")


@dataclass(frozen=True, slots=True)
class Amounts:
    """So many rows are made. A job has three events, one that has not ended fewer."""

    jobs: int = 1_000_000
    organizations: int = 1_000
    failed_events: int = 100_000
    events_of_one_job: int = 20_000
    actions: int = 50_000
    scheduled: int = 20_000


async def fill(url: str, amounts: Amounts, *, step: Callable[[str], None] = lambda _: None) -> None:
    """Fill a migrated database without rows. Its user is a superuser; the rows' triggers do not run."""
    scripts = _scripts()
    shared = {"jobs": amounts.jobs, "organizations": amounts.organizations}
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(scripts["prepare"])
        await connection.execute(_with(scripts["organizations"], **shared))
        for last in range(amounts.jobs, 0, -_BATCH):
            step(f"{last:,} jobs to go")
            await connection.execute(_with(scripts["jobs"], first=max(1, last - _BATCH + 1), last=last, **shared))
        step("failed events and the rest")
        long_job = _with(scripts["long_job"], job=min(LONG_JOB, amounts.jobs), events=amounts.events_of_one_job)
        await connection.execute(long_job)
        await connection.execute(_with(scripts["failed_events"], failed=amounts.failed_events, **shared))
        others = _with(scripts["others"], actions=amounts.actions, scheduled=amounts.scheduled, **shared)
        await connection.execute(others)
        step("indices")
        await connection.execute(scripts["finish"])
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def _scripts() -> dict[str, str]:
    """Return the scripts by name. A script has several statements, so its values are written into it."""
    parts = re.split(r"^-- name: (\w+)$", _SCRIPTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _with(script: str, **numbers: int) -> str:
    return re.sub(rf"(?<!:):({'|'.join(numbers)})\b", lambda found: str(numbers[found[1]]), script)
