"""`teamfit organization` and `teamfit team`: the customers, for who has no TEAMFIT backend."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import Annotated, Any, Literal

import typer
from pydantic import StringConstraints, TypeAdapter, ValidationError

from infra.cli.errors import plain_errors
from infra.texts import STORABLE

_LARGEST = 2_147_483_647  # what the tables' integers take
_text: TypeAdapter[str] = TypeAdapter(
    Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), STORABLE]
)
_long_text: TypeAdapter[str] = TypeAdapter(
    Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000), STORABLE]
)


def _checked(adapter: TypeAdapter[str]) -> Any:  # noqa: ANN401 - Typer's callbacks are
    def check(text: str | None) -> str | None:
        try:
            return None if text is None else adapter.validate_python(text)
        except ValidationError as error:
            raise typer.BadParameter(error.errors()[0]["msg"]) from error

    return check


_short, _long = _checked(_text), _checked(_long_text)
Status = Literal["active", "trialing", "past_due", "paused", "cancelled"]
OrganizationId = Annotated[str, typer.Argument(help="The organization's ID, as requests name it.", callback=_short)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str | None, typer.Option(help="What people call it; its ID by default.", callback=_short)]
_PLAN = "Its plan; `free` may request nothing."
_STATUS = "Of its subscription; only `active` may request."
_QUOTA = "Jobs that it may have a month (UTC)."
_TRUST = "Its trust score, from 0 to 1; below TEAMFIT_TRUST_THRESHOLD it is refused."
_PRIORITY = "Whether its jobs go before others'."

app = typer.Typer(help="Add, change and show organizations: for who has no TEAMFIT backend.", no_args_is_help=True)
teams = typer.Typer(help="Add and list the teams of organizations.", no_args_is_help=True)


@app.command("add")
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
    as_json: AsJson = False,
) -> None:
    """Add an organization with its subscription. Adding the same again changes nothing."""
    from infra.cli import tenants

    wanted = tenants.Organization(organization, name or organization, trust, plan, status, quota, priority)
    tenants.add_organization(wanted, as_json=as_json)


@app.command("set")
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
    as_json: AsJson = False,
) -> None:
    """Change what is given of an organization; the rest stays as it is."""
    from infra.cli import tenants

    changes = {
        "name": name,
        "trust_score": trust,
        "plan": plan,
        "status": status,
        "monthly_quota": quota,
        "priority": priority,
    }
    if all(value is None for value in changes.values()):
        raise typer.BadParameter("give at least one option that changes something")
    tenants.set_organization(organization, changes, as_json=as_json)


@app.command("show")
@plain_errors()
def show_organization(organization: OrganizationId, *, as_json: AsJson = False) -> None:
    """Print an organization with its subscription. `teamfit quota show` has what it has taken."""
    from infra.cli import tenants

    tenants.show_organization(organization, as_json=as_json)


@app.command("list")
@plain_errors()
def list_organizations(*, as_json: AsJson = False) -> None:
    """List every organization."""
    from infra.cli import tenants

    tenants.list_organizations(as_json=as_json)


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
    from infra.cli import tenants

    tenants.add_team(tenants.Team(team, organization, name or team, size, description), as_json=as_json)


@teams.command("list")
@plain_errors()
def list_teams(
    *,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.", callback=_short)] = None,
    as_json: AsJson = False,
) -> None:
    """List the teams of an organization, or of all."""
    from infra.cli import tenants

    tenants.list_teams(organization, as_json=as_json)
