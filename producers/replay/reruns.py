"""Replayed runs whose request the broker lost before anybody had read it.

A replay notes in its plan that a request was sent, when the broker has confirmed it. Should the broker lose everything
just then, neither the ledger nor the archive has ever heard of the run, and nothing that looks at live runs can find
it: the job looks as failed as before. The plan is the only trace. So each sent request is looked for in the read model,
once, and noted in the plan as arrived; one that has not arrived after the threshold is made of the failed event again,
byte for byte as the replay made it, and treated like any run that stands still.

Its ID follows from job and run. If it only waits in a backlog, the second copy changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import aiosql
import asyncpg

from infra.postgres import Connection
from producers.reconcile.remedies import StillRun
from producers.replay.records import rerun
from streams.jobs.events import JobId, JobRequested, parse_event

_queries = aiosql.from_path(Path(__file__).with_name("reruns.sql"), "asyncpg")


async def lost_reruns(
    connection: Connection, *, before: datetime, now: datetime, base: timedelta, cap: timedelta, limit: int
) -> Sequence[asyncpg.Record]:
    """Return the rows of replayed runs that were sent and never seen; see `read_lost_rerun`.

    Args:
        connection: inside a transaction; what has arrived is noted in it.
        before: a request that was sent later is given time yet.
        now: by the reconciler's clock.
        base: the first pause between two repeats for one run; doubled each time.
        cap: the longest such pause.
        limit: how many at most.
    """
    await _queries.note_arrived(connection)
    rows = _queries.lost_reruns(connection, before=before, now=now, base=base, cap=cap, limit=limit)
    return [row async for row in rows]


def read_lost_rerun(row: asyncpg.Record) -> StillRun:
    """Return what stands still, of a row of `lost_reruns`. Raises InvalidEvent if its event cannot be read."""
    job_id, run = JobId(row["job_id"]), row["run"]
    sent = rerun(row["event"], row["headers"], run=run, at=row["started_at"])
    request = cast("JobRequested", parse_event(sent.value))
    return StillRun(
        job_id=job_id,
        run=run,
        organization_id=row["organization_id"],
        request=request,
        in_archive=False,
        outcome=None,
        fact=None,
        dead_lettered=False,
        saved=None,
        moved_at=row["sent_at"],
    )
