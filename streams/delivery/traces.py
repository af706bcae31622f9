"""The caller's trace, which all events of a job carry on: W3C trace context."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and IDs of zeros alone are invalid. What versions
# to come write behind the fields of today is left away.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})((?:-[!-~]{0,200})?)"
)
_OURS: Final = "00"
_SAMPLED: Final = 1
_LONGEST_STATE: Final = 512  # the length that everybody has to pass on
_MOST_MEMBERS: Final = 32
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


def trace_id_of(traceparent: object) -> str | None:
    """Return a trace's 32 hexadecimal digits, or None if this is no valid `traceparent`."""
    return None if (fields := _fields(traceparent)) is None else fields[1]


def _fields(traceparent: object) -> tuple[str, str, str, str] | None:
    """Return the version, the trace, the span and the flags, or None if this is no valid `traceparent`."""
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    return None if more and version == _OURS else (version, trace, span, flags)


def _valid_parent(value: object) -> object:
    # Whoever gets a trace that is no trace goes on without one; a job does not fail of it.
    if (fields := _fields(value)) is None:
        return None
    version, trace, span, flags = fields
    # Of a version to come, what we hand on is of ours, with the one flag that both have.
    return value if version == _OURS else f"{_OURS}-{trace}-{span}-{int(flags, 16) & _SAMPLED:02x}"


def _valid_state(value: object) -> object:
    if not isinstance(value, str) or len(value) > _LONGEST_STATE:
        return None
    members = [member.strip(" \t") for member in value.split(",")]
    matches = [_MEMBER.fullmatch(member) for member in members if member]
    keys = {match[1] for match in matches if match}
    return value if matches and len(keys) == len(matches) <= _MOST_MEMBERS else None


@dataclass(frozen=True, slots=True)
class Trace:
    """The caller's trace, as its W3C headers say it. What is malformed is dropped when an event is made of it."""

    traceparent: str | None = None
    tracestate: str | None = None


NO_TRACE: Final = Trace()

TraceParent: TypeAlias = Annotated[str | None, BeforeValidator(_valid_parent)]
TraceState: TypeAlias = Annotated[str | None, BeforeValidator(_valid_state)]
