"""Commands about many jobs share the options that choose them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from infra.cli.options import filtered_by, moment

if TYPE_CHECKING:
    from infra.operations.job_search import JobFilter

_Status = Literal["pending", "processing", "completed", "failed", "cancelled"]
_ASKED = "2031-04-01T12:00 (UTC), or 2h."

# Each option: the field of the filter that it sets, and what Typer is told of it.
_LIVE: Final[dict[str, tuple[str, Any]]] = {
    "status": ("status", Annotated[_Status | None, typer.Option(help="The status of the newest run.")]),
    "organization": ("organization_id", Annotated[str | None, typer.Option(help="The organization whose they are.")]),
    "team": ("team_id", Annotated[str | None, typer.Option(help="The team that they are for.")]),
    "since": (
        "since",
        Annotated[
            datetime | None,
            typer.Option(parser=moment, metavar="TIME", help=f"Asked for at or after this: {_ASKED}"),
        ],
    ),
    "until": (
        "until",
        Annotated[
            datetime | None,
            typer.Option(parser=moment, metavar="TIME", help="Asked for before this; as --since is given."),
        ],
    ),
    "run": (
        "run",
        Annotated[int | None, typer.Option(help="The number of the newest run; 2 and more are replays.")],
    ),
    "trace": ("trace_id", Annotated[str | None, typer.Option(help="The trace ID: 32 hexadecimal digits.")]),
    "words": (
        "words",
        Annotated[
            str | None, typer.Option(help='Words of the requirements: all of them, "a phrase", `or`, `-without`.')
        ],
    ),
}
_ENDED: Final[dict[str, tuple[str, Any]]] = {
    "error": (
        "error_code",
        Annotated[str | None, typer.Option(help="The error code with which they ended, e.g. llm_refusal.")],
    ),
}


def _job_filter(**fields: Any) -> "JobFilter":  # noqa: ANN401 - whatever Typer has read
    from infra.operations.job_search import JobFilter

    return JobFilter(**fields)


filtered_jobs = filtered_by(_LIVE | _ENDED, _job_filter)
"""Gives a command the options that choose jobs."""
filtered_live_jobs = filtered_by(_LIVE, _job_filter)
"""Gives a command those that choose jobs which have not ended."""
