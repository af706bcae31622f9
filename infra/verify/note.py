"""The report of a check is noted, for the overview."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import aiosql
import asyncpg
import orjson

from infra.postgres import Session
from infra.verify.report import Report

_queries = aiosql.from_path(Path(__file__).with_name("note.sql"), "asyncpg")

_KEPT: Final = timedelta(days=100)


async def note(connection: Session, report: Report) -> str | None:
    """Note what a check has found, without IDs; return why not, if it fails.

    A replica, or a role that may only read, takes no row: the check is none the worse for it.
    """
    violated = [{"name": one.name, "violations": one.violations, "next_step": one.next_step} for one in report.violated]
    try:
        async with connection.transaction():
            await _queries.forget_old(connection, keep=_KEPT)
            await _queries.note(
                connection,
                at=report.at,
                settled=report.settled,
                ok=report.ok,
                violated=orjson.dumps(violated).decode(),
            )
    except asyncpg.PostgresError as error:
        return str(error)
    return None
