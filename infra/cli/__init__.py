"""The command `teamfit` loads a group's module when one of its commands is called.

A module of a command loads little beside Typer until the command runs: its help is printed at once, and a worker
carries nothing of the other commands.
"""

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from infra.garbage import collect_seldom

collect_seldom()

# In the order in which the help lists them. `app` of the module has the command or group of this name.
_MODULES: Final = {
    "worker": "service",
    "api": "service",
    "console": "service",
    "migrate": "service",
    "token": "service",
    "up": "local",
    "demo": "local",
    "verify": "verify",
    "top": "top",
    "lag": "streams",
    "streams": "streams",
    "erase": "erase",
    "failed": "failed",
    "discard": "frozen_plans",
    "replay": "replay",
    "cancel": "frozen_plans",
    "job": "job",
    "jobs": "jobs",
    "schedule": "schedule",
    "actions": "actions",
    "workers": "fleet",
    "pause": "fleet",
    "resume": "fleet",
    "set": "fleet",
    "drain": "fleet",
    "quota": "quota",
    "llm": "llm",
    "organization": "organization",
    "team": "organization",
    "plan": "plan",
    "webhooks": "webhooks",
    "projection": "projection",
}


class _Commands(TyperGroup):
    """The commands, each loaded when somebody asks for it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own type has no public name
        """Return the names of all commands."""
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - the same
        """Return a command; for a name that is none, load them all, so that Typer may suggest one."""
        for name in [cmd_name] if cmd_name in _MODULES else _MODULES:
            if name not in self.commands:
                module = import_module(f"infra.cli.{_MODULES[name]}")
                self.commands.update(typer.main.get_group(module.app).commands)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if asked:
        from importlib.metadata import version

        typer.echo(f"teamfit {version('teamfit-pipeline')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run and operate TEAMFIT's job pipeline: Faust agents, Redis Streams, Postgres, an LLM."""
