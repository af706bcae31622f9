"""What `teamfit job cancel` does: the cancellation of the API, for any organization and several jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import typer

from infra.cli.output import print_json
from infra.cli.session import with_database
from infra.postgres import Database
from infra.problems import Problem
from infra.settings import settings
from producers.broker import Broker
from producers.cancel.cancellation import Cancellation
from streams.jobs.cancellations import standing
from streams.jobs.events import JobId


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one job; `why` is for people, and only where it is not cancelled."""

    job_id: UUID
    cancelled: bool
    run: int | None = None
    code: str | None = None
    why: str | None = None


def cancel(jobs: Sequence[UUID], *, because: str, yes: bool, as_json: bool) -> None:
    """Say what the jobs are, ask, and cancel each.

    Raises:
        typer.Abort: the answer was no.
        typer.Exit: with code 1, if one is not cancelled.
        DependencyDown: Postgres is away; what was printed is done, for the rest ask again.
    """
    wanted = list(dict.fromkeys(jobs))
    if not yes:
        for line in with_database(lambda database: _describe(database, wanted)):
            typer.echo(line, err=as_json)
        typer.confirm(f"Cancel {len(wanted)} job(s)?", abort=True, err=as_json)
    results = with_database(lambda database: _cancel(database, wanted, because, quiet=as_json))
    if as_json:
        print_json(results)
    if not all(one.cancelled for one in results):
        raise typer.Exit(1)


async def _describe(database: Database, jobs: Sequence[UUID]) -> list[str]:
    async with database.transaction() as connection:
        known = [(job, await standing(connection, JobId(job))) for job in jobs]
    return [
        f"{job}  {one.organization_id or '(unknown)'}, run {one.run}, {one.outcome or one.older_status or 'not ended'}"
        for job, one in known
    ]


async def _cancel(database: Database, jobs: Sequence[UUID], because: str, *, quiet: bool) -> list[_Result]:
    broker = Broker(settings(), name="cancel")
    cancellation = Cancellation(database, broker, database.clock)
    results = []
    try:
        for job in jobs:
            result = await _one(cancellation, job, because)
            results.append(result)
            # Said at once: if the next one meets an outage, it is known which are done.
            if not quiet:
                typer.echo(f"{job}  cancelled, run {result.run}" if result.cancelled else f"{job}  {result.why}")
    finally:
        await broker.close()
    return results


async def _one(cancellation: Cancellation, job: UUID, because: str) -> _Result:
    try:
        end = await cancellation.cancel(JobId(job), organization_id=None, reason=because)
    except Problem as problem:
        why = problem.detail
        if problem.code == "job_not_found":
            why = "not known; a request that waits in the stream is not (see `teamfit lag`), else check the ID"
        return _Result(job, cancelled=False, code=problem.code, why=why)
    return _Result(job, cancelled=True, run=end.run)
