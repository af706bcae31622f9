"""`teamfit organization` and `teamfit team`: the customers, for who has no TEAMFIT backend."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Budget, BudgetKind, readable_budget
from infra.cli.output import print_json, print_table

if TYPE_CHECKING:
    from infra.operations.tenants import Organization, Team
    from infra.postgres import Database

_PAGE = 500
_LARGEST = 2_147_483_647  # what the tables' integers take


def _text(longest: int) -> Callable[[str | None], str | None]:
    """Return a check of an option: text that is not empty, not longer than this, and that Postgres takes."""

    def check(text: str | None) -> str | None:
        from pydantic import StringConstraints, TypeAdapter, ValidationError

        from infra.advice import advice_on
        from infra.texts import STORABLE

        bounds = StringConstraints(strip_whitespace=True, min_length=1, max_length=longest)
        adapter: TypeAdapter[str] = TypeAdapter(Annotated[str, bounds, STORABLE])
        try:
            return None if text is None else adapter.validate_python(text)
        except ValidationError as error:
            raise typer.BadParameter(f"it {advice_on(error.errors(include_input=False)[0])}") from error

    return check


_short, _long = _text(64), _text(10_000)
Status = Literal["active", "trialing", "past_due", "paused", "cancelled"]
OrganizationId = Annotated[str, typer.Argument(help="The organization's ID, as requests name it.", callback=_short)]
Name = Annotated[str | None, typer.Option(help="What people call it; its ID by default.", callback=_short)]
_PLAN = "Its plan; `free` may request nothing."
_STATUS = "Of its subscription; only `active` may request."
_QUOTA = "Jobs that it may have a month (UTC)."
_TRUST = "Its trust score, from 0 to 1; below TEAMFIT_TRUST_THRESHOLD it is refused."
_PRIORITY = "Whether its share is four times its plan's."
_WEIGHT = "Its share of the fleet against others', while both wait; its plan's by default."
_MOST = "How many of its runs are worked on at once; 0 pauses it; as its plan has it by default."
_RATE = "How many requests it may send a minute; 0 refuses all; its plan's by default."
_WAITING = "How many of its runs may wait for their turn; its plan's by default."
Rate = Annotated[int | None, typer.Option("--requests-per-minute", help=_RATE, min=0, max=1_000_000)]
MaxWaiting = Annotated[int | None, typer.Option(help=_WAITING, min=0, max=_LARGEST)]
Weight = Annotated[float | None, typer.Option(help=_WEIGHT, min=0.001, max=1000)]
MaxInFlight = Annotated[int | None, typer.Option(help=_MOST, min=0, max=_LARGEST)]

app = typer.Typer()
organizations = typer.Typer(
    help="Add, change and show organizations: for who has no TEAMFIT backend.", no_args_is_help=True
)
app.add_typer(organizations, name="organization")
teams = typer.Typer(help="Add and list the teams of organizations.", no_args_is_help=True)
app.add_typer(teams, name="team")


@organizations.command("add")
@plain_errors()
def add_organization(
    organization: OrganizationId,
    *,
    name: Name = None,
    plan: Annotated[str, typer.Option(help=_PLAN, callback=_short)] = "team",
    status: Annotated[Status, typer.Option(help=_STATUS)] = "active",
    quota: Annotated[int, typer.Option(help=_QUOTA, min=0, max=_LARGEST)] = 100,
    trust: Annotated[float, typer.Option(help=_TRUST, min=0, max=1)] = 1.0,
    priority: Annotated[bool, typer.Option(help=_PRIORITY)] = False,
    weight: Weight = None,
    max_in_flight: MaxInFlight = None,
    as_json: AsJson = False,
) -> None:
    """Add an organization with its subscription. Adding the same again changes nothing."""
    from infra.cli.session import with_database
    from infra.operations import tenants

    wanted = tenants.Organization(
        *(organization, name or organization, trust, plan, status, quota, priority), weight, max_in_flight
    )
    _print_one(with_database(lambda database: tenants.add_organization(database, wanted)), as_json=as_json)


@organizations.command("set")
@plain_errors()
def set_organization(
    organization: OrganizationId,
    *,
    name: Annotated[str | None, typer.Option(help="What people call it.", callback=_short)] = None,
    plan: Annotated[str | None, typer.Option(help=_PLAN, callback=_short)] = None,
    status: Annotated[Status | None, typer.Option(help=_STATUS)] = None,
    quota: Annotated[int | None, typer.Option(help=_QUOTA, min=0, max=_LARGEST)] = None,
    trust: Annotated[float | None, typer.Option(help=_TRUST, min=0, max=1)] = None,
    priority: Annotated[bool | None, typer.Option(help=_PRIORITY)] = None,
    weight: Weight = None,
    max_in_flight: MaxInFlight = None,
    rate: Rate = None,
    max_waiting: MaxWaiting = None,
    budget: Budget = None,
    budget_kind: BudgetKind = None,
    as_plan: Annotated[
        bool, typer.Option("--as-plan", help="Forget its own weight, cap, limits and budget: its plan's count.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Change what is given of an organization; the rest stays as it is."""
    from infra.cli.session import with_database
    from infra.operations import tenants
    from infra.operations.prices import budget_of

    changes = {
        "name": name,
        "trust_score": trust,
        "plan": plan,
        "status": status,
        "monthly_quota": quota,
        "priority": priority,
        "weight": weight,
        "max_in_flight": max_in_flight,
        "requests_per_minute": rate,
        "max_waiting": max_waiting,
        "budget": budget_of(budget),
        "budget_kind": budget_kind,
    }
    if all(value is None for value in changes.values()) and not as_plan:
        raise typer.BadParameter("give at least one option that changes something")
    changed = with_database(lambda one: tenants.set_organization(one, organization, changes, as_plan=as_plan))
    _print_one(changed, as_json=as_json)


@organizations.command("show")
@plain_errors()
def show_organization(organization: OrganizationId, *, as_json: AsJson = False) -> None:
    """Print an organization with its subscription. `teamfit quota show` has what it has taken."""
    from infra.cli.session import with_database
    from infra.operations import tenants

    _print_one(with_database(lambda database: tenants.organization(database, organization)), as_json=as_json)


@organizations.command("list")
@plain_errors()
def list_organizations(
    *,
    name: Annotated[str | None, typer.Option(help="Only those whose ID or name has this text in it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every organization."""
    from infra.cli.session import with_database

    found = with_database(lambda database: _every(database, name))
    if as_json:
        print_json(found)
    else:
        _print_rows(found)


async def _every(database: "Database", name: str | None) -> "Sequence[Organization]":
    from infra.operations.tenants import find_organizations

    found, after = await find_organizations(database, name, limit=_PAGE)
    every = [*found]
    while after is not None:
        found, after = await find_organizations(database, name, limit=_PAGE, after=after)
        every += found
    return every


@teams.command("add")
@plain_errors()
def add_team(
    team: Annotated[str, typer.Argument(help="The team's ID, as requests name it.", callback=_short)],
    *,
    organization: Annotated[str, typer.Option(help="The organization that it is of.", callback=_short)],
    name: Name = None,
    size: Annotated[int | None, typer.Option(help="How many people it has.", min=1, max=_LARGEST)] = None,
    description: Annotated[
        str | None, typer.Option(help="Who they are; it stands in the prompt.", callback=_long)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a team to an organization. Adding the same again changes nothing."""
    from infra.cli.session import with_database
    from infra.operations import tenants

    wanted = tenants.Team(team, organization, name or team, size, description)
    added = with_database(lambda database: tenants.add_team(database, wanted))
    if as_json:
        print_json(added)
    else:
        _print_rows([added])


@teams.command("list")
@plain_errors()
def list_teams(
    *,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.", callback=_short)] = None,
    as_json: AsJson = False,
) -> None:
    """List the teams of an organization, or of all."""
    from infra.cli.session import with_database
    from infra.operations import tenants

    found = with_database(lambda database: tenants.teams(database, organization))
    if as_json:
        print_json(found)
    else:
        _print_rows(found)


def _print_one(organization: "Organization", *, as_json: bool) -> None:
    if as_json:
        print_json(organization)
        return
    _print_rows([organization])
    if not organization.may_request:
        typer.echo("Its requests are refused with subscription_required: they need a paid plan that is active.")


def _print_rows(found: "Sequence[Organization] | Sequence[Team]") -> None:
    if not found:
        typer.echo("None yet.")
        return
    columns = [field.name.replace("_", " ") for field in fields(found[0])]
    rows = map(asdict, found)
    print_table(columns, ((readable_budget(row) if "budget" in row else row).values() for row in rows))
