"""`teamfit webhooks`: where organizations are told of their events, and how that goes."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Yes, duration
from infra.cli.output import confirm, print_json, print_table, shown, tell

if TYPE_CHECKING:
    from consumers.webhooks.deliveries import DeliveryState
    from consumers.webhooks.endpoints import Endpoint
    from infra.operations.webhooks import Secret
    from infra.postgres import Database

_LOOK_S = 0.2
_REFUSED = 1

app = typer.Typer()
webhooks = typer.Typer(help="Manage where organizations are told how their jobs end.", no_args_is_help=True)
app.add_typer(webhooks, name="webhooks")

EndpointId = Annotated[UUID, typer.Argument(metavar="ENDPOINT", help="The endpoint's ID; `list` has it.")]


@webhooks.command("add")
@plain_errors()
def add(
    organization: Annotated[str, typer.Argument(help="Whose events it is told of.")],
    url: Annotated[str, typer.Argument(help="Where they are posted to.")],
    *,
    event: Annotated[
        list[str] | None, typer.Option(help="A type of events that it wants; all by default. May be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add an endpoint, and print its signing secret. It is shown this once."""
    from consumers.webhooks.messages import EVENT_TYPES
    from infra.cli.session import with_database
    from infra.operations.webhooks import add_endpoint
    from infra.settings import settings

    made = with_database(
        lambda database: add_endpoint(database, settings(), organization, url, event or EVENT_TYPES),
    )
    _print_secret(made, as_json=as_json)


@webhooks.command("list")
@plain_errors()
def list_all(
    *,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the endpoints of an organization, or all."""
    from infra.cli.session import with_database

    found = with_database(lambda database: _all_endpoints(database, organization))
    if as_json:
        print_json(found)
    else:
        _print_endpoints(found)


async def _all_endpoints(database: "Database", organization: str | None) -> "list[Endpoint]":
    from infra.operations.webhooks import list_endpoints

    page = await list_endpoints(database, organization)
    tell(page.notice)
    found = list(page.endpoints)
    while page.next is not None:
        page = await list_endpoints(database, organization, cursor=page.next)
        found += page.endpoints
    return found


@webhooks.command("show")
@plain_errors()
def show(endpoint: EndpointId, *, as_json: AsJson = False) -> None:
    """Print an endpoint. Its secret is not shown again: `rotate` makes another."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import show_endpoint

    found = with_database(lambda database: show_endpoint(database, endpoint))
    if as_json:
        print_json(found)
        return
    for name, value in asdict(found).items():
        typer.echo(f"{name.replace('_', ' '):20} {shown(value)}".rstrip())


@webhooks.command("rotate")
@plain_errors()
def rotate(
    endpoint: EndpointId,
    *,
    keep: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="How long the secret before signs too; 24h by default, 0s: not at all.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new signing secret and print it, this once. The one before stays valid for a while."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import KEEP_SECRET, rotate_secret

    kept = KEEP_SECRET if keep is None else keep
    _print_secret(with_database(lambda database: rotate_secret(database, endpoint, keep=kept)), as_json=as_json)


@webhooks.command("disable")
@plain_errors()
def disable(
    endpoint: EndpointId, *, because: Annotated[str, typer.Option(help="Why, for those who ask later.")]
) -> None:
    """Send nothing to an endpoint any more. What is for it waits until it is enabled."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import disable_endpoint

    _print_endpoints([with_database(lambda database: disable_endpoint(database, endpoint, because))])


@webhooks.command("enable")
@plain_errors()
def enable(endpoint: EndpointId) -> None:
    """Send to an endpoint again, at once what has waited for it."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import enable_endpoint

    _print_endpoints([with_database(lambda database: enable_endpoint(database, endpoint))])


@webhooks.command("remove")
@plain_errors()
def remove(endpoint: EndpointId, *, yes: Yes = False) -> None:
    """Forget an endpoint with all its deliveries; those that wait are not sent."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import remove_endpoint, show_endpoint

    found = with_database(lambda database: show_endpoint(database, endpoint))
    typer.echo(f"{found.url} of {found.organization_id}; {found.waiting} deliveries wait for it.")
    if not yes:
        confirm("Remove it?")
    with_database(lambda database: remove_endpoint(database, endpoint))
    typer.echo("Removed.")


@webhooks.command("deliveries")
@plain_errors()
def show_deliveries(
    endpoint: EndpointId,
    *,
    state: Annotated[
        Literal["waiting", "delivered", "given_up", "all"], typer.Option(help="How far they are.")
    ] = "all",
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended, which has printed this.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was sent to an endpoint, and how it was answered. `replay plan --stage webhooks` sends again."""
    from infra.cli.session import with_database
    from infra.operations.webhooks import list_deliveries

    wanted = None if state == "all" else state
    page = with_database(lambda database: list_deliveries(database, endpoint, state=wanted, limit=limit, cursor=cursor))
    if as_json:
        print_json([{**asdict(one), "state": one.state} for one in page.deliveries])
        return
    if not page.deliveries:
        typer.echo("None.")
        return
    _print_deliveries(page.deliveries)
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")


@webhooks.command("test")
@plain_errors()
def send_test(
    endpoint: EndpointId,
    *,
    wait: Annotated[float, typer.Option(help="How many seconds to wait for its end.", min=0, max=600)] = 30.0,
) -> None:
    """Send a test to an endpoint, once, and say how it was answered. Exit code 1: it was not taken."""
    from infra.cli.session import with_database

    sent = with_database(lambda database: _tested(database, endpoint, wait))
    if sent is None:
        typer.echo("It was not tried yet: does a worker of the stage `webhooks` run? It is sent when one does.")
        raise typer.Exit(_REFUSED)
    _print_deliveries([sent])
    if sent.state != "delivered":
        raise typer.Exit(_REFUSED)


async def _tested(database: "Database", endpoint: UUID, wait_s: float) -> "DeliveryState | None":
    """Send a test and return its end, or None if it has none in time."""
    from infra.operations.webhooks import list_deliveries, send_test

    event_id = await send_test(database, endpoint)
    until = monotonic() + wait_s
    while True:
        for one in (await list_deliveries(database, endpoint, limit=500)).deliveries:
            if one.event_id == event_id and one.state != "waiting":
                return one
        if monotonic() > until:
            return None
        await asyncio.sleep(_LOOK_S)


def _print_secret(made: "Secret", *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(made.endpoint), "secret": made.secret})
        return
    _print_endpoints([made.endpoint])
    typer.echo(f"Its secret, which is not shown again: {made.secret}")


def _print_endpoints(found: "Sequence[Endpoint]") -> None:
    if not found:
        typer.echo("None yet. For example: teamfit webhooks add acme https://example.com/hooks")
        return
    columns = ("endpoint", "organization", "url", "events", "waiting", "fails since (UTC)", "disabled")
    rows = (
        (
            one.id,
            one.organization_id,
            one.url,
            ", ".join(one.types),
            one.waiting,
            one.failing_since,
            one.disabled_because,
        )
        for one in found
    )
    print_table(columns, rows)


def _print_deliveries(found: "Sequence[DeliveryState]") -> None:
    columns = ("event", "type", "job", "since (UTC)", "state", "tries", "answer", "next try (UTC)")
    rows = (
        (one.event_id, one.type, one.job_id, one.created_at, one.state, one.attempts)
        + (one.last_error or one.last_status, one.due_at)
        for one in found
    )
    print_table(columns, rows)
