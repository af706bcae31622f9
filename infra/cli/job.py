"""`teamfit job`: the life of one job, and the end of some."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import Annotated
from uuid import UUID

import typer

from infra.cli.errors import plain_errors

app = typer.Typer(help="See all that is known of a job; cancel jobs of any organization.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command("show")
@plain_errors()
def show_job(job: Annotated[UUID, typer.Argument(help="The job's ID.")], *, as_json: AsJson = False) -> None:
    """Print a job's life: its status, facts, quota, calls to the LLM, what is scheduled for it, and what failed."""
    from infra.cli.job_life import show

    show(job, as_json=as_json)


@app.command("cancel")
@plain_errors()
def cancel_jobs(
    jobs: Annotated[list[UUID], typer.Argument(help="The jobs' IDs.")],
    *,
    because: Annotated[str, typer.Option(help="Why; the customer reads it in the job's status.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs, whosever they are, as their customers could. Those that have ended stay as they are.

    Says what they are and asks, unless --yes is given. Ends with code 1 if one of them is not cancelled in the end.
    """
    from infra.cli.job_cancel import cancel

    cancel(jobs, because=because, yes=yes, as_json=as_json)
