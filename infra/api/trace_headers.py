"""The caller's trace, as a FastAPI dependency for the routes that emit events."""

from typing import Annotated, TypeAlias

import structlog
from fastapi import Depends, Header, Request

from infra import tracing
from streams.delivery.traces import NO_TRACE, Trace, trace_id_of

_TraceParent = Annotated[str | None, Header(description="W3C trace context. What is malformed is ignored.")]
_TraceState = Annotated[list[str] | None, Header(description="Goes with `traceparent`.")]


async def _callers_trace(request: Request, traceparent: _TraceParent = None, tracestate: _TraceState = None) -> Trace:
    """Return the caller's trace, and bind it to the log lines about the request, which has a context of its own."""
    if len(request.headers.getlist("traceparent")) > 1:
        traceparent = None  # either one may be meant
    state = ",".join(tracestate or ()) if trace_id_of(traceparent) else ""
    # Of the span of this request, where one is made; it is below the caller's.
    traceparent = tracing.traceparent() or traceparent
    trace_id = trace_id_of(traceparent)
    if trace_id is None:
        return NO_TRACE
    structlog.contextvars.bind_contextvars(trace_id=trace_id)
    return Trace(traceparent, state)


CallersTrace: TypeAlias = Annotated[Trace, Depends(_callers_trace)]
