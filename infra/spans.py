"""Spans are made here, for `infra.tracing`. Loaded only where a collector is named.

What is not sampled is decided before anything is built for it, and clients make no spans below it: of a twentieth of
the jobs, the other nineteen cost a look at their event.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from pydantic import BaseModel

from infra.tracing import (
    ATTEMPT,
    ERROR,
    GEN_AI_MODEL,
    GEN_AI_OPERATION,
    GEN_AI_PROMPT,
    GEN_AI_PROVIDER,
    JOB,
    LINKED_AS,
    MESSAGING_BATCH,
    MESSAGING_DESTINATION,
    MESSAGING_GROUP,
    MESSAGING_MESSAGE_ID,
    MESSAGING_OPERATION,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
    NO_CHAT,
    RUN,
    SERVER,
    Chat,
    told_outside,
    wanted_trace,
)

E = TypeVar("E")

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1
# Within a text of JSON the quotes would be escaped, so this is an attribute. The last digits say that it is sampled.
_IN_EVENT: Final = re.compile(rb'"traceparent": ?"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf])"')
_NO_CONTEXT: Final = Context()
# The sampler compares more bits than these with the share: among those that it takes, these are still drawn evenly.
_LOW_BITS: Final = (1 << 32) - 1


def _quiet() -> Context:
    token = attach(_NO_CONTEXT)
    with suppress_instrumentation():
        quiet = get_current()
    detach(token)
    return quiet


# Below it, clients of Postgres and HTTP make no spans.
_QUIET: Final = _quiet()


class Spans:
    """Makes this process's spans.

    Args:
        tracer: of the SDK.
        share: of the jobs whose senders have not decided.
        statements: share of the traced jobs whose SQL and HTTP calls have spans too.
        system: the broker's name in the conventions.
        prompts: whether spans hold prompts.
        to_llm: whether calls to the LLM tell of the trace.
    """

    def __init__(
        self, tracer: Tracer, *, share: float, statements: float, system: str, prompts: bool, to_llm: bool
    ) -> None:
        self._tracer = tracer
        self._whole_below = round(statements * (_LOW_BITS + 1))
        self._bound = TraceIdRatioBased.get_bound_for_rate(share)
        self._system = system
        self._prompts, self._to_llm = prompts, to_llm

    @contextmanager
    def processing(self, group: str, topic: str, entry: str | None, attempt: int, event: E) -> Iterator[E]:
        """Make the span of a stage's try; yield the event with its context."""
        job_id, remote = getattr(event, "job_id", None), _remote(getattr(event, "traceparent", None))
        if not self._is_wanted(job_id, remote):
            token = attach(_QUIET)
            try:
                yield event
            finally:
                detach(token)
            return
        attributes = self._try(group, topic, entry, attempt, event)
        wanted_trace.set(job_id.int if isinstance(job_id, UUID) else None)
        context = _NO_CONTEXT if remote is None else _below(remote)
        with self._span(f"process {topic}", SpanKind.CONSUMER, attributes, context) as span:
            if span.is_recording() and isinstance(event, BaseModel):
                yield event.model_copy(update={"traceparent": _text(span.get_span_context())})
            else:
                yield event

    @contextmanager
    def taking(self, group: str, topic: str, entry: str | None, attempt: int, event: E) -> Iterator[E]:
        """Link an event's batch to what sent it; make a span of a failing try."""
        remote = _remote(getattr(event, "traceparent", None))
        if remote is None or attempt > 1:
            with self.processing(group, topic, entry, attempt, event) as traced:
                yield traced
            return
        began, sender = time.time_ns(), NonRecordingSpan(remote)
        token = attach(set_span_in_context(sender, self._around(sender)))
        try:
            yield event
        except BaseException as error:
            if remote.trace_flags.sampled:
                attributes = self._try(group, topic, entry, attempt, event)
                span = self._tracer.start_span(
                    f"process {topic}", _below(remote), SpanKind.CONSUMER, attributes, start_time=began
                )
                _failed(span, error)
                span.end()
            raise
        finally:
            detach(token)

    def _try(self, group: str, topic: str, entry: str | None, attempt: int, event: object) -> dict[str, Any]:
        """Return what is said of a stage's try."""
        job_id = getattr(event, "job_id", None)
        attributes = self._messaging("process", topic) | {MESSAGING_GROUP: group, ATTEMPT: attempt}
        if entry is not None:
            attributes[MESSAGING_MESSAGE_ID] = entry
        if isinstance(job_id, UUID):
            attributes |= {JOB: str(job_id), RUN: getattr(event, "run", 1)}
        return attributes

    def _is_wanted(self, job_id: object, remote: SpanContext | None) -> bool:
        """Return false if an event is certainly not sampled: by what it says, or as the sampler decides of its job."""
        if self._to_llm:
            return True  # who hears of traces hears of those too that are not sampled
        if remote is not None:
            return bool(remote.trace_flags.sampled)
        return not isinstance(job_id, UUID) or job_id.int & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound

    @contextmanager
    def sending(self, entries: Sequence[tuple[str, bytes | None]]) -> Iterator[list[bytes | None]]:
        """Make a span for each sampled entry, and yield the events with its context."""
        values = [value for _, value in entries]
        spans: list[Span] = []
        for place, (topic, value) in enumerate(entries):
            found = None if value is None else _IN_EVENT.search(value)
            remote = None if found is None else _remote(found.group(1).decode())
            if value is None or found is None or remote is None:
                continue
            attributes = self._messaging("send", topic)
            span = self._tracer.start_span(f"send {topic}", _below(remote), SpanKind.PRODUCER, attributes)
            spans.append(span)
            values[place] = value[: found.start(1)] + _text(span.get_span_context()).encode() + value[found.end(1) :]
        try:
            yield values
        except BaseException as error:
            for span in spans:
                _failed(span, error)
            raise
        finally:
            for span in spans:
                span.end()

    @contextmanager
    def batch(self, name: str, contexts: Sequence[SpanContext | None]) -> Iterator[None]:
        """Make one span for a batch, linked to each item's span, below the first."""
        sampled = [one for one in contexts if one is not None]
        if not sampled:
            token = attach(_QUIET)
            try:
                yield
            finally:
                detach(token)
            return
        attributes = {MESSAGING_SYSTEM: self._system, MESSAGING_BATCH: len(contexts)}
        below, links = _below(sampled[0]), [Link(one) for one in sampled]
        with self._span(f"batch {name}", SpanKind.INTERNAL, attributes, below, links):
            yield

    def begin_request(self, span: Span, _scope: Mapping[str, Any]) -> None:
        """Decide whether clients make spans below a request's, whose context is its own."""
        attach(set_span_in_context(span, self._around(span)))

    def _around(self, span: Span) -> Context:
        """Return what stands around a span: whether clients make spans below it."""
        context = span.get_span_context()
        is_whole = context.trace_flags.sampled and context.trace_id & _LOW_BITS < self._whole_below
        return _NO_CONTEXT if is_whole else _QUIET

    @staticmethod
    def here() -> SpanContext | None:
        """Return the current span's context, or None if it is not sampled."""
        context = get_current_span().get_span_context()
        return context if context.trace_flags.sampled else None

    @staticmethod
    def traceparent() -> str | None:
        """Return the current span's context as a header says it."""
        context = get_current_span().get_span_context()
        return _text(context) if context.is_valid else None

    def waited(self, since: datetime, what: str) -> None:
        """Make the span of a wait that ends now, below the current span."""
        if self.here() is not None:
            # A sender's clock may be ahead.
            began = min(since, datetime.now(UTC))
            self._tracer.start_span(f"wait {what}", start_time=int(began.timestamp() * 1e9)).end()

    def rerun(self, failed: str, run: int) -> str:
        """Make the span of a replay, linked to what failed; return its context."""
        remote = _remote(failed)
        context = _NO_CONTEXT if remote is None else _below(remote)
        link = Link(get_current_span(context).get_span_context(), {LINKED_AS: "failed run"})
        span = self._tracer.start_span("replay", context, attributes={RUN: run}, links=[link])
        span.end()
        return _text(span.get_span_context())

    @contextmanager
    def chat(self, model: str, server: str, prompt: str | None) -> Iterator[Chat]:
        """Make the span of one call to an LLM. The prompt is in it only if a setting says so."""
        if self.here() is None and not self._to_llm:
            yield NO_CHAT
            return
        attributes: dict[str, Any] = {GEN_AI_OPERATION: "chat", GEN_AI_PROVIDER: "openai"}
        attributes |= {GEN_AI_MODEL: model, SERVER: server}
        if prompt is not None and self._prompts:
            messages = [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
            attributes[GEN_AI_PROMPT] = json.dumps(messages)
        # The client's own span tells those who are told of the trace.
        with self._span(
            f"chat {model}", SpanKind.CLIENT, attributes, around=_NO_CONTEXT if self._to_llm else None
        ) as span:
            before = told_outside.set(self._to_llm)
            try:
                yield Chat(span)
            finally:
                told_outside.reset(before)

    def note(self, name: str, value: Sequence[str]) -> None:
        """Note something in the current span."""
        if self.here() is not None:
            get_current_span().set_attribute(name, value)

    def _messaging(self, operation: str, topic: str) -> dict[str, Any]:
        return {
            MESSAGING_SYSTEM: self._system,
            MESSAGING_OPERATION: operation,
            MESSAGING_OPERATION_TYPE: operation,
            MESSAGING_DESTINATION: topic,
        }

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        context: Context | None = None,
        links: Sequence[Link] = (),
        *,
        around: Context | None = None,
    ) -> Iterator[Span]:
        span = self._tracer.start_span(name, context, kind, attributes, links)
        token = attach(set_span_in_context(span, self._around(span) if around is None else around))
        try:
            yield span
        except BaseException as error:
            _failed(span, error)
            raise
        finally:
            detach(token)
            span.end()


def _failed(span: Span, error: BaseException) -> None:
    # Its type alone: an error's text may hold what a customer wrote.
    span.set_attribute(ERROR, type(error).__name__)
    span.set_status(StatusCode.ERROR)


def _remote(parent: str | None) -> SpanContext | None:
    """Return the context that an event or a header has, or None."""
    match = None if parent is None else _PARENT.match(parent)
    if match is None:
        return None
    trace, span, flags = (int(one, 16) for one in match.groups())
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & _SAMPLED))


def _below(remote: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(remote), _NO_CONTEXT)


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & _SAMPLED:02x}"
