"""The options by which commands choose failed events, and what they mean."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias
from uuid import UUID

import typer

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """Read a time: `2031-04-01T12:00`, UTC unless it says otherwise, or how long ago: `90s`, `30m`, `2h`, `7d`."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("give a time such as 2031-04-01T12:00, or how long ago, such as 2h or 7d") from error
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


Stage: TypeAlias = Annotated[str | None, typer.Option(help="The consumer group that failed them, e.g. generation.")]
Error: TypeAlias = Annotated[str | None, typer.Option(help="The error's type, e.g. Permanent.")]
Organization: TypeAlias = Annotated[str | None, typer.Option(help="The organization whose they are.")]
Job: TypeAlias = Annotated[UUID | None, typer.Option(help="The job that they are about.")]
Reason: TypeAlias = Annotated[str | None, typer.Option(help="given_up (by a stage) or max_deliveries (by the broker).")]
Trace: TypeAlias = Annotated[str | None, typer.Option(help="The trace ID: 32 hexadecimal digits.")]
Since: TypeAlias = Annotated[
    datetime | None,
    typer.Option(
        parser=moment, metavar="TIME", help="Failed last at or after this: 2031-04-01T12:00 (UTC), or 2h ago."
    ),
]
Until: TypeAlias = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Failed last before this; given as --since is.")
]
