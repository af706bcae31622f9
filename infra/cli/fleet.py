"""`teamfit workers`, `pause`, `resume`, `set` and `drain`: the running fleet."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Yes, duration
from infra.cli.output import confirm, print_json, print_table, shown

if TYPE_CHECKING:
    from infra.operations.controls import Process, Wish

app = typer.Typer()
settings_app = typer.Typer(help="Set how a stage or a process works, while it runs.", no_args_is_help=True)
app.add_typer(settings_app, name="set")

_INTAKE: Final = "intake"
_DEFAULT: Final = "default"
_MEBIBYTE: Final = 2**20

Stage = Annotated[str, typer.Argument(metavar="STAGE", help="A stage that reads a topic, or `intake`.")]
ProcessId = Annotated[str, typer.Argument(metavar="PROCESS", help="Its ID, or how it begins: see `teamfit workers`.")]
Organization = Annotated[str | None, typer.Option(help="Of this organization alone.")]
Reason = Annotated[str, typer.Option("--reason", "--because", help="Why; others read it.")]
For = Annotated[
    timedelta | None,
    typer.Option("--for", parser=duration, metavar="TIME", help="How long: 30m, 2h; else until ended."),
]


@app.command()
@plain_errors()
def workers(*, as_json: AsJson = False) -> None:
    """List the processes of the fleet, and what operators want of it. Those that are gone stay for an hour."""
    from infra.cli.session import with_database
    from infra.operations.controls import controls, plain, processes

    found, wanted = with_database(processes), with_database(controls)
    if as_json:
        rows = [{"process": one, "state": one.state} for one in found]
        print_json({"processes": rows, "controls": [plain(one) for one in wanted]})
        return
    if found:
        columns = ("process", "kind", "host", "pid", "stages", "since (UTC)", "state", "under way", "MiB", "version")
        print_table(columns, (_row(one) for one in found))
    else:
        typer.echo("No process has told of itself.")
    for one in wanted:
        whose = f" for {one.organization_id}" if one.organization_id else ""
        value = f" {one.value}" if one.value else ""
        typer.echo(f"{one.kind} {one.subject}{whose}{value}: {one.sentence}")


@app.command()
@plain_errors()
def pause(
    stage: Stage, *, organization: Organization = None, reason: Reason, lasts: For = None, yes: Yes = False
) -> None:
    """Pause a stage: its runs wait, nothing is spent, no attempt is counted. `intake`: requests get 503.

    Every worker obeys within two seconds, and after a restart too. Says what follows and asks, unless --yes is given.
    """
    from infra.operations.controls import Wish

    if stage == _INTAKE:
        _set(Wish("intake", organization_id=organization, reason=reason, lasts=lasts), yes=yes)
    else:
        _set(Wish("pause", stage, organization, reason=reason, lasts=lasts), yes=yes)


@app.command()
@plain_errors()
def resume(
    stage: Stage, *, organization: Organization = None, reason: Annotated[str, typer.Option(help="Why.")] = ""
) -> None:
    """Resume a stage that was paused, or the intake. One that is paused for an organization is resumed for it alone."""
    from infra.operations.controls import Wish

    kind = "intake" if stage == _INTAKE else "pause"
    _end(Wish(kind, "" if stage == _INTAKE else stage, organization, reason=reason))  # type: ignore[arg-type] # one of the kinds


@app.command()
@plain_errors()
def drain(process: ProcessId, *, reason: Reason, yes: Yes = False) -> None:
    """Stop one worker in good order.

    It finishes what it has begun, hands the rest back, and ends with code 0.
    """
    from infra.operations.controls import Wish

    _set(Wish("drain", process, reason=reason, lasts=timedelta(days=1)), yes=yes)


@settings_app.command("concurrency")
@plain_errors()
def set_concurrency(
    stage: Stage,
    number: Annotated[str, typer.Argument(help="How many deliveries each worker takes at once, or `default`.")],
    *,
    reason: Reason,
    lasts: For = None,
    yes: Yes = False,
) -> None:
    """Set how much each worker of a stage does at once. At most what it was started with."""
    from infra.operations.controls import Wish

    if number == _DEFAULT:
        _end(Wish("concurrency", stage, reason=reason))
    else:
        _set(Wish("concurrency", stage, value=number, reason=reason, lasts=lasts), yes=yes)


@settings_app.command("log-level")
@plain_errors()
def set_log_level(
    process: ProcessId,
    level: Annotated[str, typer.Argument(help="debug, info, warning or error; or `default`.")],
    *,
    reason: Reason,
    lasts: For = None,
    yes: Yes = False,
) -> None:
    """Set from which level on a process logs."""
    from infra.operations.controls import Wish

    if level == _DEFAULT:
        _end(Wish("log_level", process, reason=reason))
    else:
        _set(Wish("log_level", process, value=level, reason=reason, lasts=lasts), yes=yes)


def _set(wish: "Wish", *, yes: bool) -> None:
    from infra.cli.session import with_database
    from infra.operations.controls import effects_of, set_control

    if not yes:
        _print(wish, with_database(lambda database: effects_of(database, wish)))
        confirm("Do it?")
    _print(wish, with_database(lambda database: set_control(database, wish)))
    typer.echo("In force: every process obeys within two seconds.")


def _end(wish: "Wish") -> None:
    from infra.cli.session import with_database
    from infra.operations.controls import unset_control

    _print(wish, with_database(lambda database: unset_control(database, wish)))
    typer.echo("Ended: every process obeys within two seconds.")


def _print(wish: "Wish", effects: Mapping[str, Any]) -> None:
    typer.echo(f"{wish.kind}, {wish.target}")
    for name, value in effects.items():
        typer.echo(f"  {name.replace('_', ' '):22} {shown(value) or 'none'}")


def _row(one: "Process") -> tuple[object, ...]:
    doing = [
        f"{stage['under_way']} of {stage['concurrency']}{' paused' if stage['paused'] else ''}"
        + (" held" if stage["held"] else "")
        for stage in one.doing
    ]
    state = one.state if one.state == "alive" else f"{one.state}, {one.silent_s:.0f} s ago"
    return (
        *(one.process[:8], one.kind, one.host, one.pid, ", ".join(one.stages), one.started_at, state),
        *(", ".join(doing), one.rss_bytes // _MEBIBYTE, one.version),
    )
