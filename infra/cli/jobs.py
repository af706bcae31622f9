"""`teamfit jobs`: find jobs of all organizations."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, filtered_jobs
from infra.cli.output import print_json, print_table, tell

if TYPE_CHECKING:
    from infra.operations.job_search import Count, FoundJob, JobFilter, JobPage
    from infra.postgres import Database

app = typer.Typer()
jobs_app = typer.Typer(help="Find jobs of all organizations.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

_LOOK_S: Final = 2.0
_PAGE: Final = 500
_COLUMNS: Final = ("job", "asked (UTC)", "organization", "team", "status", "run", "error", "requirements")


@jobs_app.command("list")
@plain_errors()
@filtered_jobs
def list_jobs(
    *,
    chosen: "JobFilter",
    order: Annotated[Literal["newest", "oldest"], typer.Option(help="Which come first.")] = "newest",
    limit: Annotated[int, typer.Option(help="Most to print; how many there are is always said.", min=1)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended, which has printed this.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with each new one, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find jobs by what is known of them, the newest first. Counts are exact up to 10,000."""
    if follow:
        _follow(chosen, as_json=as_json)
    else:
        _list(chosen, as_json=as_json, order=order, limit=limit, cursor=cursor)


def _list(chosen: "JobFilter", *, as_json: bool, **page_of: Any) -> None:  # noqa: ANN401 - handed on to `find_jobs`
    from infra.cli.session import with_database
    from infra.operations.job_search import list_jobs

    async def read(database: "Database") -> "tuple[JobPage, Count]":
        return await list_jobs(database, chosen, **page_of)

    page, total = with_database(read)
    tell(page.notice)
    if as_json:
        counted = {"number": total.number, "more": total.more or total.partly}
        more = {"next": page.next, "looked_at": page.looked_at, "notice": page.notice}
        print_json({"total": counted, "jobs": page.jobs, **more})
        return
    if page.jobs:
        print_table(_COLUMNS, _rows(page.jobs))
    typer.echo(f"{total} jobs, {len(page.jobs)} shown.")
    if page.looked_at is not None:
        typer.echo(f"Very many requirements have these words: {page.looked_at} jobs were looked at for this page.")
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")


def _follow(chosen: "JobFilter", *, as_json: bool) -> None:
    """Print each job that comes, in the order of coming; those that are there already are left out."""
    import asyncio

    from infra.cli.session import with_database

    async def run(database: "Database") -> None:
        from infra.operations.job_search import find_jobs, notice_of

        known = {job.job_id for job in (await find_jobs(database, chosen, limit=_PAGE)).jobs}
        if not known:
            tell(await notice_of(database, chosen))
        while True:
            await asyncio.sleep(_LOOK_S)
            fresh = await _unknown(database, chosen, known)
            _print_new(fresh, as_json=as_json)
            known |= {job.job_id for job in fresh}

    with_database(run)


async def _unknown(database: "Database", chosen: "JobFilter", known: set[UUID]) -> "Sequence[FoundJob]":
    """Return the jobs before the first page that is known whole, the oldest first."""
    from infra.operations.job_search import find_jobs

    found: list[FoundJob] = []
    cursor = None
    while True:
        page = await find_jobs(database, chosen, limit=_PAGE, cursor=cursor)
        found += [job for job in page.jobs if job.job_id not in known]
        if page.next is None or any(job.job_id in known for job in page.jobs) or not known:
            return found[::-1]
        cursor = page.next


def _print_new(fresh: "Sequence[FoundJob]", *, as_json: bool) -> None:
    from dataclasses import asdict

    import orjson

    from infra.cli.output import shown

    for job, row in zip(fresh, _rows(fresh), strict=True):
        typer.echo(orjson.dumps(asdict(job)) if as_json else "  ".join(shown(cell) for cell in row))


def _rows(jobs: "Sequence[FoundJob]") -> Iterator[tuple[object, ...]]:
    for job in jobs:
        wish = " ".join((job.requirements or "").split())
        yield (
            job.job_id,
            job.created_at,
            job.organization_id,
            job.team_id,
            job.status,
            job.run,
            job.error_code,
            wish if len(wish) <= 60 else f"{wish[:59]}…",  # noqa: PLR2004 - what a table has room for
        )
