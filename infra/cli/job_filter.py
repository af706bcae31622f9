"""Commands about many jobs share the options that choose them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.cli.options import moment

if TYPE_CHECKING:
    from infra.operations.job_search import JobFilter

WithStatus = Annotated[
    Literal["pending", "processing", "completed", "failed", "cancelled"] | None,
    typer.Option("--status", help="The status of the newest run."),
]
OfOrganization = Annotated[str | None, typer.Option("--organization", help="The organization whose they are.")]
OfTeam = Annotated[str | None, typer.Option("--team", help="The team that they are for.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since", parser=moment, metavar="TIME", help="Asked for at or after this: 2031-04-01T12:00 (UTC), or 2h."
    ),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", parser=moment, metavar="TIME", help="Asked for before this; as --since is given."),
]
WithError = Annotated[
    str | None, typer.Option("--error", help="The error code with which they ended, e.g. llm_refusal.")
]
InRun = Annotated[int | None, typer.Option("--run", help="The number of the newest run; 2 and more are replays.")]
OfTrace = Annotated[str | None, typer.Option("--trace", help="The trace ID: 32 hexadecimal digits.")]
WithWords = Annotated[
    str | None,
    typer.Option("--words", help='Words of the requirements: all of them, "a phrase", `or`, `-without`.'),
]


def job_filter(**fields: Any) -> "JobFilter":  # noqa: ANN401 - whatever Typer has read
    """Return the filter. Raises BadParameter, which names the field."""
    from pydantic import ValidationError

    from infra.operations.job_search import JobFilter

    try:
        return JobFilter(**fields)
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise typer.BadParameter(wrong) from error
