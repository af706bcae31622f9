"""Several commands share these options.

They are `--json`, `--yes`, `--dry-run`, those about plans and budgets, and the filters of jobs and of failed events.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer

if TYPE_CHECKING:
    from infra.operations.job_search import JobFilter
    from producers.replay.failed import Filter

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would follow; change nothing.")]

_TRACE = re.compile(r"[0-9a-f]{32}")
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """Read a time or an age.

    A time is `2031-04-01T12:00`, UTC unless it says otherwise; an age is `90s`, `30m`, `2h` or `7d`.
    """
    from pydantic import TypeAdapter

    from infra.clock import Moment, after_leap_second

    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
        read = after_leap_second(text) or datetime.fromisoformat(text)
        sane: datetime = TypeAdapter(Moment).validate_python(read if read.tzinfo else read.replace(tzinfo=UTC))
        return sane
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter("give a time such as 2031-04-01T12:00, or how long ago, such as 2h or 7d") from error


def duration(text: str) -> timedelta:
    """Read a length of time, such as `90s`, `30m`, `2h` or `7d`."""
    read = _AGO.fullmatch(text)
    if read is None:
        raise typer.BadParameter("give a length of time such as 30m, 2h or 7d")
    try:
        return timedelta(**{_UNITS[read.group(2)]: int(read.group(1))})
    except OverflowError as error:
        raise typer.BadParameter("give a length of time such as 30m, 2h or 7d") from error


def rate(text: str) -> float:
    """Read a rate: `100/s`, or `100`."""
    number = text.removesuffix("/s")
    try:
        each_second = float(number)
    except ValueError as error:
        raise typer.BadParameter("give a number for each second, such as 100/s") from error
    if not 0 < each_second <= 1e6:  # noqa: PLR2004 - past any broker, and short of infinity
        raise typer.BadParameter("give a number for each second above 0, such as 100/s")
    return each_second


PlanId = Annotated[UUID, typer.Argument(help="The plan's ID.")]
MostPlans = Annotated[int, typer.Option(help="How many plans.", min=1, max=500)]
MadeBefore = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Made before this time, or so long ago.")
]


def _one_of(kind: str, choices: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Return what reads one of a few names; a misspelt one would find nothing, which looks like good news."""

    def read(text: str) -> str:
        if text not in choices():
            raise typer.BadParameter(f"there is no {kind} {text!r}; there are {', '.join(choices())}")
        return text

    return read


def _stages() -> Sequence[str]:
    from streams.jobs.stages import STAGES

    return [stage.name for stage in STAGES]


def _trace(text: str) -> str:
    if not _TRACE.fullmatch(text):
        raise typer.BadParameter("a trace ID has 32 hexadecimal digits, in lower case")
    return text


# Each option: the field of the filter that it sets, and what Typer is told of it.
_OPTIONS: Final[dict[str, tuple[str, Any]]] = {
    "stage": (
        "stage",
        Annotated[
            str | None,
            typer.Option(
                parser=_one_of("stage", _stages),
                metavar="STAGE",
                help="The consumer group that failed them, e.g. generation.",
            ),
        ],
    ),
    "error": ("error_type", Annotated[str | None, typer.Option(help="The error's type, e.g. Permanent.")]),
    "organization": ("organization_id", Annotated[str | None, typer.Option(help="The organization whose they are.")]),
    "job": ("job_id", Annotated[UUID | None, typer.Option(help="The job that they are about.")]),
    "since": (
        "since",
        Annotated[
            datetime | None,
            typer.Option(
                parser=moment, metavar="TIME", help="Failed last at or after this: 2031-04-01T12:00 (UTC), or 2h ago."
            ),
        ],
    ),
    "until": (
        "until",
        Annotated[
            datetime | None,
            typer.Option(parser=moment, metavar="TIME", help="Failed last before this; given as --since is."),
        ],
    ),
    "reason": (
        "reason",
        Annotated[
            str | None,
            typer.Option(
                parser=_one_of("reason", lambda: ("given_up", "max_deliveries")),
                metavar="REASON",
                help="given_up (by a stage) or max_deliveries (by the broker).",
            ),
        ],
    ),
    "trace": (
        "trace_id",
        Annotated[
            str | None, typer.Option(parser=_trace, metavar="TRACE", help="The trace ID: 32 hexadecimal digits.")
        ],
    ),
}


def filtered_by(
    options: Mapping[str, tuple[str, Any]], read: Callable[..., object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command these options.

    What they choose reaches it as one argument, `chosen`. Typer reads a command's signature; it has no way to say that
    several commands share options.

    Args:
        options: each option with the field of the filter that it sets, and what Typer is told of it.
        read: makes the filter of the fields.
    """
    shared = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, (_, annotation) in options.items()
    ]

    def reading(values: Mapping[str, Any]) -> object:
        """Return the filter. Raises BadParameter, which names the option."""
        from pydantic import ValidationError

        from infra.advice import explained

        try:
            return read(**values)
        except ValidationError as error:
            named = {field: f"--{name}" for name, (field, _) in options.items()}
            raise typer.BadParameter(explained(error, names=named)) from error

    def filtered_command(command: Callable[..., None]) -> Callable[..., None]:
        own = signature(command)
        others = [one for one in own.parameters.values() if one.name != "chosen"]
        parameters = sorted([*shared, *others], key=lambda one: one.kind)  # what it is about comes first

        @wraps(command)
        def with_options(**arguments: Any) -> None:  # noqa: ANN401 - whatever Typer has read
            chosen = reading({field: arguments.pop(name) for name, (field, _) in options.items()})
            command(**arguments, chosen=chosen)

        with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # what `inspect` looks for
        with_options.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_options

    return filtered_command


def _failed_filter(**fields: Any) -> "Filter":  # noqa: ANN401 - whatever Typer has read
    from producers.replay.failed import Filter

    return Filter(**fields)


filtered = filtered_by(_OPTIONS, _failed_filter)
"""Gives a command the options that choose failed events."""


BudgetKind = Annotated[
    Literal["hard", "soft"] | None,
    typer.Option(help="hard: beyond it nothing runs (the default); soft: 80 and 100 % of it are told."),
]
Budget = Annotated[
    str | None,
    typer.Option(help="What LLM calls may cost in a month (UTC), such as 50.00, in the currency of `llm prices`."),
]


def readable_budget(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row in which the budget is no longer in micro-units."""
    from infra.operations.prices import amount_of

    budget = row["budget"]
    return row if budget is None else {**row, "budget": amount_of(budget)}


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
