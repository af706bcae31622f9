"""`teamfit llm`: what the fleet knows of the LLM endpoint."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import Annotated

import typer

from infra.cli.errors import plain_errors

app = typer.Typer(help="What the fleet knows of the LLM endpoint.", no_args_is_help=True)
gate = typer.Typer(help="The gate: until when nobody calls, because the endpoint said so.", no_args_is_help=True)
app.add_typer(gate, name="gate")
dialect = typer.Typer(help="How each endpoint is asked, as the fleet has learned.", no_args_is_help=True)
app.add_typer(dialect, name="dialect")
hold = typer.Typer(help="Holds: which endpoints nobody calls, and who is to blame.", no_args_is_help=True)
app.add_typer(hold, name="hold")


@gate.command("show")
@plain_errors()
def show_gate(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False
) -> None:
    """Print until when each endpoint takes no calls."""
    from infra.cli.llm_gate import show

    show(as_json=as_json)


@gate.command("open")
@plain_errors()
def open_gate(
    endpoint: Annotated[str | None, typer.Argument(help="Which one, as `show` names it; all by default.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Open the gate before its time, for an endpoint that named a wrong one.

    Workers that wait ask again every half minute.
    """
    from infra.cli.llm_gate import open_early

    open_early(endpoint, yes=yes)


@dialect.command("show")
@plain_errors()
def show_dialects(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False
) -> None:
    """Print how each endpoint and model are asked, and why."""
    from infra.cli.llm_endpoint import show_dialects as show

    show(as_json=as_json)


@dialect.command("forget")
@plain_errors()
def forget_dialect(
    endpoint: Annotated[str | None, typer.Argument(help="Which one, as `show` names it; all by default.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget what was learned, after an endpoint has changed; the next call learns it again."""
    from infra.cli.llm_endpoint import forget

    forget(endpoint, yes=yes)


@hold.command("show")
@plain_errors()
def show_holds(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False
) -> None:
    """Print which endpoints are held, who is to blame, and when the next probe is due."""
    from infra.cli.llm_endpoint import show_holds as show

    show(as_json=as_json)
