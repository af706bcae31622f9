"""The caller's trace, which all events of a job carry on: W3C trace context."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and IDs of zeros alone are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # the length that everybody has to pass on


def trace_id_of(traceparent: object) -> str | None:
    """Return a trace's 32 hexadecimal digits, or None if this is no valid `traceparent`."""
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return match.group(1) if match else None


def _valid_parent(value: object) -> object:
    # Whoever gets a trace that is no trace goes on without one; a job does not fail of it.
    return value if trace_id_of(value) else None


def _valid_state(value: object) -> object:
    return value if isinstance(value, str) and _TRACESTATE.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class Trace:
    """The caller's trace, as its W3C headers say it. What is malformed is dropped when an event is made of it."""

    traceparent: str | None = None
    tracestate: str | None = None


NO_TRACE: Final = Trace()

TraceParent: TypeAlias = Annotated[str | None, BeforeValidator(_valid_parent)]
TraceState: TypeAlias = Annotated[str | None, BeforeValidator(_valid_state)]
