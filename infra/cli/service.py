"""`teamfit worker`, `api`, `migrate` and `token`: what a deployment runs."""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from infra.cli.errors import plain_errors
from infra.cli.loading import nothing_unused

app = typer.Typer()


_ALL: Final = "all"
_LONGEST_TTL_S: Final = 10 * 365 * 86_400


class Scope(StrEnum):
    """The rights that a token may give, as the API knows them."""

    JOBS = "jobs"
    OPERATOR = "operator"
    VIEWER = "viewer"


class _Worker(TyperCommand):
    """The command, whose help alone loads the list of stages."""

    def format_help(self, *arguments: Any) -> None:  # noqa: ANN401 - handed on to Typer
        """Name the stages that there are."""
        for one in self.params:
            if one.name == "stages":
                one.help = f"Which stages to run: {', '.join(_stages())}, or {_ALL}."  # type: ignore[attr-defined] # an argument's
        super().format_help(*arguments)


def _stages() -> Sequence[str]:
    with nothing_unused():
        from streams.jobs.stages import STAGES

    return [stage.name for stage in STAGES]


def _stage(name: str) -> str:
    if name != _ALL and name not in _stages():
        raise typer.BadParameter(f"there is no stage {name!r}; there are {', '.join(_stages())}, and {_ALL}")
    return name


@app.command(cls=_Worker)
@plain_errors()
def worker(
    stages: Annotated[list[str], typer.Argument(parser=_stage, metavar="STAGE...", help="Which stages to run.")],
    ready_file: Annotated[
        Path | None, typer.Option(help="A file to make once all stages consume, and to remove when they stop.")
    ] = None,
    *,
    processes: Annotated[
        bool, typer.Option("--processes", help="Give each stage a process of its own, and start again what ends.")
    ] = False,
) -> None:
    """Run stages until SIGTERM or Ctrl-C, which let them finish what they have begun.

    One is the same as `faust -A consumers.STAGE worker`, with this project's log format. Several share this process,
    one pool of connections and one port; `teamfit worker all` suits small installations.

    With --processes they share no more than the memory of their code, which is loaded once. TEAMFIT_WORKER_PORT is then
    the port of the first stage, and the others have the next ones, in the order of the list of stages.
    """
    with nothing_unused():
        from infra.cli.stage_worker import ready_file_kept, run_stages

    chosen = [stage for stage in _stages() if stage in stages or _ALL in stages]
    tell = ready_file_kept(ready_file)
    if not processes:
        run_stages(chosen, tell)
    else:
        from infra.cli.stage_processes import fork_each

        stage, parent = fork_each(chosen, tell)
        run_stages([stage], parent.tell, parent=parent.fileno)


@app.command()
@plain_errors()
def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8000,
    root_path: Annotated[
        str | None, typer.Option(help="Prefix below which a proxy serves it; else TEAMFIT_ROOT_PATH.")
    ] = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C. Requests that have begun are finished."""
    from infra.api.server import serve

    serve(host, port, root_path=root_path)


@app.command()
@plain_errors()
def console(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8080,
    root_path: Annotated[
        str | None, typer.Option(help="Prefix below which a proxy serves it; else TEAMFIT_ROOT_PATH.")
    ] = None,
) -> None:
    """Serve the operators' console until SIGTERM or Ctrl-C.

    It prints its address with a link that signs in once.
    Without TEAMFIT_SIGNING_KEY the only way in is such a link, and it listens on this machine alone.
    """
    from infra.api.console import serve_console
    from infra.cli.session import operator

    serve_console(host, port, root_path=root_path, subject=operator(), say=typer.echo)


@app.command()
@plain_errors()
def migrate() -> None:
    """Bring the database at DATABASE_URL to the newest schema. Running it again changes nothing."""
    import asyncio

    from infra.migrations import upgrade
    from infra.settings import settings

    asyncio.run(upgrade(settings().database_url))
    typer.echo("The database has the newest schema.")


@app.command()
@plain_errors()
def token(
    organization: Annotated[str, typer.Option(help="The organization that the token speaks for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="A right that it gives; 'jobs' by default. May be repeated.")
    ] = None,
    ttl: Annotated[
        int, typer.Option(help="How long the token is valid, in seconds; ten years at most.", min=1, max=_LONGEST_TTL_S)
    ] = 3600,
) -> None:
    """Print a bearer token, signed with TEAMFIT_SIGNING_KEY."""
    from infra.auth import issue_token, signing_key
    from infra.settings import settings

    key, lifetime = signing_key(settings()), timedelta(seconds=ttl)
    typer.echo(issue_token(key, organization_id=organization, scopes=scope or [Scope.JOBS], lifetime=lifetime))
