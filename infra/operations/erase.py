"""Erasing an organization's texts: wishes, activities, reasons, error messages and dead letters.

Rows, times, tokens and the ledger's numbers stay, so bills and `teamfit verify` hold afterwards. Jobs that have not
ended are cancelled first: a worker that holds one finds its run ended and saves nothing. Each table is erased in a
transaction of its own and repeating any of them changes nothing, so after a crash the whole is simply run again.

A copy in the broker's streams lives until the stream is trimmed; an event that was under way may be archived after the
erasure. So an erasure is run once more when the topics' retention has passed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiosql

from infra.actions import Act, acting
from infra.errors import Refused
from infra.postgres import Database
from producers.cancellation import Cancellation
from streams.jobs.events import JobId

_queries = aiosql.from_path(Path(__file__).with_name("erase.sql"), "asyncpg")

ERASED: Final = "[erased]"  # stands where a text stood; events need one to stay valid


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows that hold an organization's texts, or held them before they were erased.

    Attributes:
        live: jobs that have not ended; they are cancelled first.
        cancellations: those that came before their job was asked for.
    """

    organization_id: str
    live: Sequence[JobId]
    jobs: int
    events: int
    activities: int
    failed_events: int
    cancellations: int

    @property
    def anything(self) -> bool:
        """Return true if there is a row to look at."""
        counts = (self.jobs, self.events, self.activities, self.failed_events, self.cancellations)
        return bool(self.live) or any(counts)


async def find_texts(database: Database, organization_id: str) -> Texts:
    """Return what an erasure would touch.

    Raises:
        Refused: there is no such organization, nor a job, failed event or early cancellation of it.
        DependencyDown: Postgres is away.
    """
    async with database.transaction() as connection:
        live = [JobId(row["job_id"]) async for row in _queries.live_jobs(connection, organization_id=organization_id)]
        counts = await _queries.counts(connection, organization_id=organization_id)
        exists = await _queries.exists(connection, organization_id=organization_id)
    texts = Texts(organization_id, live, **counts)
    if not texts.anything and not exists:
        raise Refused(
            "organization_not_found",
            f"organization {organization_id}: not known, and neither is a job, failed event or cancellation; check "
            "the ID and DATABASE_URL",
        )
    return texts


async def erase_texts(database: Database, cancellation: Cancellation, texts: Texts, *, operator: str) -> None:
    """Cancel the organization's live jobs, then erase its texts in every table.

    Raises:
        DependencyDown: Postgres is away; what was erased stays erased, so run it again.
    """
    for job_id in texts.live:
        # One that ended meanwhile needs no end.
        with suppress(Refused):
            await cancellation.cancel(job_id, organization_id=texts.organization_id, reason=ERASED)
    # Scheduled records go first: what is published from them would bring a text back into the archive.
    counts = {name: getattr(texts, name) for name in ("jobs", "events", "activities", "failed_events", "cancellations")}
    act = Act("erase", f"organization {texts.organization_id}", effects={**counts, "cancelled": len(texts.live)})
    async with acting(database, act) as connection:
        await _queries.delete_scheduled(connection, organization_id=texts.organization_id)
    # A rebuild beside this folds the archive, so archive and read model change together.
    async with database.transaction() as connection:
        whose = {"organization_id": texts.organization_id, "erased": ERASED}
        await _queries.erase_jobs(connection, **whose)
        await _queries.erase_events(connection, **whose)
    async with database.transaction() as connection:
        await _queries.erase_wishes(connection, organization_id=texts.organization_id)
    for erase in (
        _queries.erase_requests,
        _queries.erase_early,
        _queries.erase_outcomes,
        _queries.erase_activities,
        _queries.erase_line,
    ):
        async with database.transaction() as connection:
            await erase(connection, **whose)
    async with database.transaction() as connection:
        await _queries.forget_webhooks(connection, organization_id=texts.organization_id)
        await _queries.delete_webhooks(connection, organization_id=texts.organization_id)
    async with database.transaction() as connection:
        await _queries.erase_failed_events(connection, **whose, operator=operator)
