"""`teamfit quota`: an organization's quota, and the repair of its counters."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import Annotated

import typer

from infra.cli.errors import plain_errors

app = typer.Typer(help="What an organization has taken of its quota.", no_args_is_help=True)

Organization = Annotated[str, typer.Argument(help="The organization's ID.")]


@app.command("show")
@plain_errors()
def show_quota(
    organization: Organization,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Print what an organization may take and has taken, by month, and whether its counters agree with the ledger."""
    from infra.cli.quota_books import show

    show(organization, as_json=as_json)


@app.command("repair")
@plain_errors()
def repair_quota(
    organization: Organization,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only shown.")] = False,
) -> None:
    """Show which counters differ from the ledger; with --yes, count them again from the ledger, which is right.

    Safe while the service runs: admission of this organization waits for a moment.
    """
    from infra.cli.quota_books import repair

    repair(organization, yes=yes)
