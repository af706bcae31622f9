"""What `teamfit quota` prints and does."""

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.table import Table

from consumers.quota.decisions import period_of
from consumers.quota.recount import Period, Subscription, books, recount, subscription
from infra.cli.output import out, print_json
from infra.cli.session import with_database
from infra.errors import TeamfitError
from infra.postgres import Database


class UnknownOrganization(TeamfitError):
    """Neither the backend nor the ledger knows it."""


def show(organization: str, *, as_json: bool) -> None:
    """Print an organization's quota.

    Raises:
        UnknownOrganization: nobody knows it.
        DependencyDown: Postgres is away.
    """
    known, periods = with_database(lambda database: _read(database, organization))
    if as_json:
        document = {
            "organization_id": organization,
            "subscription": known,
            "periods": [{**asdict(one), "differs": one.differs} for one in periods],
        }
        print_json(document)
        return
    typer.echo(f"{organization}: {_terms(known)}")
    limit = known.monthly_quota if known else None
    table = Table()
    table.add_column("month (UTC)")
    for name in ("reserved", "charged", "left", "released", "rejected"):
        table.add_column(name, justify="right")
    table.add_column("the ledger says")
    for one in periods:
        left = "" if limit is None else str(max(0, limit - one.reserved - one.charged))
        numbers = (str(one.reserved), str(one.charged), left, str(one.released), str(one.rejected))
        verdict = f"{one.ledger_reserved} reserved, {one.ledger_charged} charged" if one.differs else "the same"
        table.add_row(one.period, *numbers, verdict, style="red" if one.differs else "")
    out().print(table)
    if any(one.differs for one in periods):
        typer.echo(f"Counters differ from the ledger: teamfit quota repair {organization}")


def repair(organization: str, *, yes: bool) -> None:
    """Say which counters differ, and with `yes` set them to what the ledger says.

    Raises:
        UnknownOrganization: nobody knows it.
        DependencyDown: Postgres is away.
    """
    _, periods = with_database(lambda database: _read(database, organization))
    wrong = [one for one in periods if one.differs]
    if not wrong:
        typer.echo(f"The counters of {organization} are the sums of its ledger; nothing to repair.")
        return
    for one in wrong:
        typer.echo(
            f"{organization} {one.period}: counted {one.reserved} reserved and {one.charged} charged, "
            f"the ledger has {one.ledger_reserved} and {one.ledger_charged}"
        )
    if not yes:
        typer.echo(f"Nothing was changed. To count again: teamfit quota repair {organization} --yes")
        return

    async def act(database: Database) -> list[Period]:
        async with database.transaction() as connection:
            await recount(connection, organization, [one.period for one in wrong])
            return await books(connection, organization)

    done = {one.period: one for one in with_database(act)}
    for period in (done[one.period] for one in wrong):
        typer.echo(f"{organization} {period.period}: now {period.reserved} reserved and {period.charged} charged.")
    typer.echo("Somebody had written to quota_usage by hand, or there is a bug: find out who. Then `teamfit verify`.")


async def _read(database: Database, organization: str) -> tuple[Subscription | None, Sequence[Period]]:
    async with database.transaction() as connection:
        known, periods = await subscription(connection, organization), await books(connection, organization)
    if known is None and not periods:
        raise UnknownOrganization(f"organization {organization}: not known; check the ID and DATABASE_URL")
    current = period_of(database.clock.now())
    if all(one.period != current for one in periods):
        periods = [Period(current, 0, 0, 0, 0, 0, 0), *periods]
    return known, periods


def _terms(known: Subscription | None) -> str:
    if known is None:
        return "unknown to the backend"
    if known.monthly_quota is None:
        return f"{known.name}, without a subscription"
    return f"{known.name}, plan {known.plan} ({known.status}), {known.monthly_quota} jobs a month"
