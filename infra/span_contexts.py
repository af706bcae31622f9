"""Events hold contexts as text; these functions read and write it.

And they keep clients from making spans. Loaded only where a collector is named.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, TypeVar

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

E = TypeVar("E")

NO_CONTEXT: Final = Context()

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1
# The last digit of a `traceparent` that is sampled.
_SAMPLED_ENDS: Final = frozenset("13579bdf")
# Within a text of JSON the quotes would be escaped, so this is an attribute. The last digits say that it is sampled.
SAMPLED_IN_EVENT: Final = re.compile(rb'"traceparent": ?"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf])"')


def _quiet() -> Context:
    token = attach(NO_CONTEXT)
    with suppress_instrumentation():
        quiet = get_current()
    detach(token)
    return quiet


# Below it, clients of Postgres and HTTP make no spans.
QUIET: Final = _quiet()


def quietly(given: E) -> AbstractContextManager[E]:
    """Have nothing make spans within the block, which is given this."""
    return nullcontext(given) if get_current() is QUIET else _made_quiet(given)


@contextmanager
def _made_quiet(given: E) -> Iterator[E]:
    token = attach(QUIET)
    try:
        yield given
    finally:
        detach(token)


def says_sampled(parent: str) -> bool:
    """Return whether a valid `traceparent` says that its trace is sampled."""
    return parent[-1:] in _SAMPLED_ENDS


def remote_context(parent: str | None) -> SpanContext | None:
    """Return the context that an event or a header has, or None."""
    match = None if parent is None else _PARENT.match(parent)
    if match is None:
        return None
    trace, span, flags = (int(one, 16) for one in match.groups())
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & _SAMPLED))


def below(remote: SpanContext) -> Context:
    """Return the context in which a span is a child of another process's."""
    return set_span_in_context(NonRecordingSpan(remote), NO_CONTEXT)


def as_text(context: SpanContext) -> str:
    """Return a context as an event or a header says it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & _SAMPLED:02x}"
