"""`teamfit quota`: an organization's quota, and the repair of its counters."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.quota.recount import Subscription
    from infra.operations.prices import Spent
    from infra.operations.quota import QuotaBooks

app = typer.Typer()
quota_app = typer.Typer(help="What an organization has taken of its quota.", no_args_is_help=True)
app.add_typer(quota_app, name="quota")

Organization = Annotated[str, typer.Argument(help="The organization's ID.")]


@quota_app.command("show")
@plain_errors()
def show_quota(organization: Organization, *, as_json: AsJson = False) -> None:
    """Print an organization's quota, its use by month, and what its calls have cost.

    It also says if the counters agree with the ledger.
    """
    from dataclasses import asdict

    from infra.cli.session import with_database
    from infra.operations.prices import amount_of, spent
    from infra.operations.quota import read_books, read_usage

    books = with_database(lambda database: read_books(database, organization))
    llm = with_database(lambda database: spent(database, organization))
    use = with_database(lambda database: read_usage(database, organization))
    if as_json:
        months = [{**asdict(one), "differs": one.differs} for one in books.periods]
        money = {"budget": use.budget, "budget_kind": use.budget_kind}
        print_json({**asdict(books), **money, "periods": months, "llm": [asdict(one) for one in llm]})
        return
    typer.echo(f"{organization}: {_terms(books.subscription)}")
    if use.budget is not None:
        typer.echo(f"Budget of the month: {amount_of(use.budget)} ({use.budget_kind})")
    out().print(_table(books))
    if llm:
        out().print(_spent(llm))
    if books.wrong:
        typer.echo(f"Counters differ from the ledger: teamfit quota repair {organization}")


@quota_app.command("repair")
@plain_errors()
def repair_quota(
    organization: Organization,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, it is only shown.")] = False,
) -> None:
    """Show the counters that differ from the ledger; with --yes, count them again. The ledger is right.

    Safe while the service runs: admission of this organization waits for a moment.
    """
    from infra.cli.session import with_database
    from infra.operations.quota import read_books, repair

    books = with_database(lambda database: read_books(database, organization))
    if not books.wrong:
        typer.echo(f"The counters of {organization} are the sums of its ledger; nothing to repair.")
        return
    for one in books.wrong:
        typer.echo(
            f"{organization} {one.period}: counted {one.reserved} reserved and {one.charged} charged, "
            f"the ledger has {one.ledger_reserved} and {one.ledger_charged}"
        )
    if not yes:
        typer.echo(f"Nothing was changed. To count again: teamfit quota repair {organization} --yes")
        return
    for one in with_database(lambda database: repair(database, books)):
        typer.echo(f"{organization} {one.period}: now {one.reserved} reserved and {one.charged} charged.")
    typer.echo("Somebody had written to quota_usage by hand, or there is a bug: find out who. Then `teamfit verify`.")


def _table(books: "QuotaBooks") -> Table:
    table = Table()
    table.add_column("month (UTC)")
    for name in ("reserved", "charged", "left", "released", "rejected"):
        table.add_column(name, justify="right")
    table.add_column("the ledger says")
    for one in books.periods:
        left = books.left(one)
        counts = (one.reserved, one.charged, "" if left is None else left, one.released, one.rejected)
        verdict = f"{one.ledger_reserved} reserved, {one.ledger_charged} charged" if one.differs else "the same"
        table.add_row(one.period, *map(str, counts), verdict, style="red" if one.differs else "")
    return table


def _spent(months: "Sequence[Spent]") -> Table:
    table = Table()
    for name in ("month (UTC)", "LLM calls", "tokens in", "tokens out", "cost", "perhaps billed", "not priced"):
        table.add_column(name, justify="left" if name.startswith("month") else "right")
    for one in months:
        cost = f"{one.cost / 1_000_000:.6f} {one.currency or ''}".strip()
        counts = (one.calls, one.prompt_tokens, one.completion_tokens, cost, one.maybe_billed_calls, one.unpriced_calls)
        table.add_row(one.period, *map(str, counts))
    return table


def _terms(known: "Subscription | None") -> str:
    if known is None:
        return "unknown to the backend"
    if known.monthly_quota is None:
        return f"{known.name}, without a subscription"
    return f"{known.name}, plan {known.plan} ({known.status}), {known.monthly_quota} jobs a month"
