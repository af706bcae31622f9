"""Spans are made here, for `infra.tracing`. Loaded only where a collector is named.

What is not sampled is decided before anything is built for it, and clients make no spans below it: of a twentieth of
the jobs, the other nineteen cost a look at their event.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from pydantic import BaseModel

from infra.span_contexts import (
    NO_CONTEXT,
    QUIET,
    SAMPLED_IN_EVENT,
    as_text,
    below,
    quietly,
    remote_context,
    says_sampled,
)
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

# The sampler compares more bits than these with the share: among those that it takes, these are still drawn evenly.
_LOW_BITS: Final = (1 << 32) - 1


class Spans:
    """Makes this process's spans.

    Args:
        tracer: of the SDK.
        share: of the jobs whose senders have not decided.
        statements: share of the traced jobs whose SQL and HTTP calls have spans too.
        system: the broker's name in the conventions.
        prompts: whether spans hold prompts.
        to_llm: whether calls to the LLM tell of the trace.
        is_away: whether the collector is known to be away, so that spans would be dropped.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        share: float,
        statements: float,
        system: str,
        prompts: bool,
        to_llm: bool,
        is_away: Callable[[], bool],
    ) -> None:
        self._tracer = tracer
        self._is_away = is_away
        self._whole_below = round(statements * (_LOW_BITS + 1))
        self._bound = TraceIdRatioBased.get_bound_for_rate(share)
        self._system = system
        self._prompts, self._to_llm = prompts, to_llm

    def processing(
        self, group: str, topic: str, entry: str | None, attempt: int, event: E
    ) -> AbstractContextManager[E]:
        """Make the span of a stage's try; give the event with its context."""
        return self._processing(group, topic, entry, attempt, event) if self._is_wanted(event) else quietly(event)

    @contextmanager
    def _processing(self, group: str, topic: str, entry: str | None, attempt: int, event: E) -> Iterator[E]:
        with self._within(self._start_try(group, topic, entry, attempt, event)) as span:
            if span.is_recording() and isinstance(event, BaseModel):
                yield event.model_copy(update={"traceparent": as_text(span.get_span_context())})
            else:
                yield event

    def taking(self, group: str, topic: str, entry: str | None, attempt: int, event: E) -> AbstractContextManager[E]:
        """Link an event's batch to what sent it; make a span of a failing try."""
        if not self._is_wanted(event):
            return quietly(event)
        if attempt > 1:
            return self._processing(group, topic, entry, attempt, event)
        return self._taking(group, topic, entry, event)

    @contextmanager
    def _taking(self, group: str, topic: str, entry: str | None, event: E) -> Iterator[E]:
        began, remote = time.time_ns(), remote_context(getattr(event, "traceparent", None))
        # An event that no span has sent leaves its batch nothing to be linked to.
        sender = NonRecordingSpan(INVALID_SPAN_CONTEXT if remote is None else remote)
        token = attach(set_span_in_context(sender, self._around(sender)))
        try:
            yield event
        except BaseException as error:
            if remote is None or remote.trace_flags.sampled:
                span = self._start_try(group, topic, entry, 1, event, began=began)
                _failed(span, error)
                span.end()
            raise
        finally:
            detach(token)

    def _start_try(
        self, group: str, topic: str, entry: str | None, attempt: int, event: object, *, began: int | None = None
    ) -> Span:
        """Begin the span of a try below what has sent its event, or as a root of the job's own trace."""
        job_id, remote = getattr(event, "job_id", None), remote_context(getattr(event, "traceparent", None))
        attributes = self._try(group, topic, entry, attempt, event)
        wanted_trace.set(job_id.int if isinstance(job_id, UUID) else None)
        context = NO_CONTEXT if remote is None else below(remote)
        return self._tracer.start_span(f"process {topic}", context, SpanKind.CONSUMER, attributes, start_time=began)

    def _try(self, group: str, topic: str, entry: str | None, attempt: int, event: object) -> dict[str, Any]:
        """Return what is said of a stage's try."""
        job_id = getattr(event, "job_id", None)
        attributes = self._messaging("process", topic) | {MESSAGING_GROUP: group, ATTEMPT: attempt}
        if entry is not None:
            attributes[MESSAGING_MESSAGE_ID] = entry
        if isinstance(job_id, UUID):
            attributes |= {JOB: str(job_id), RUN: getattr(event, "run", 1)}
        return attributes

    def _is_wanted(self, event: object) -> bool:
        """Return false if an event is certainly not sampled: by what it says, or as the sampler decides of its job."""
        if self._to_llm:
            return True  # who hears of traces hears of those too that are not sampled
        if self._is_away():
            return False
        parent = getattr(event, "traceparent", None)
        if parent is not None:
            return says_sampled(parent)
        job_id = getattr(event, "job_id", None)
        return not isinstance(job_id, UUID) or job_id.int & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound

    def sending(self, entries: Sequence[tuple[str, bytes | None]]) -> AbstractContextManager[list[bytes | None]]:
        """Make a span for each sampled entry, and give the events with its context."""
        values = [value for _, value in entries]
        found = [
            (place, match)
            for place, value in enumerate(values)
            if value is not None and (match := SAMPLED_IN_EVENT.search(value)) is not None
        ]
        if not found or self._is_away():
            return nullcontext(values)
        return self._sending(values, [(place, entries[place][0], match) for place, match in found])

    @contextmanager
    def _sending(
        self, values: list[bytes | None], sampled: Sequence[tuple[int, str, re.Match[bytes]]]
    ) -> Iterator[list[bytes | None]]:
        spans: list[Span] = []
        for place, topic, found in sampled:
            if (remote := remote_context(found.group(1).decode())) is None:
                continue
            value = found.string
            attributes = self._messaging("send", topic)
            span = self._tracer.start_span(f"send {topic}", below(remote), SpanKind.PRODUCER, attributes)
            spans.append(span)
            values[place] = value[: found.start(1)] + as_text(span.get_span_context()).encode() + value[found.end(1) :]
        try:
            yield values
        except BaseException as error:
            for span in spans:
                _failed(span, error)
            raise
        finally:
            for span in spans:
                span.end()

    def batch(
        self, name: str, contexts: Sequence[SpanContext | None], *, looks_up: bool
    ) -> AbstractContextManager[object]:
        """Make one span for a batch, linked to each item's span, below the first.

        One that looks something up stands for its statement, and has a span where statements have.
        """
        sampled = [one for one in contexts if one is not None and (not looks_up or self._is_whole(one))]
        if not sampled:
            return quietly(None)
        attributes = {MESSAGING_SYSTEM: self._system, MESSAGING_BATCH: len(contexts)}
        parent, links = below(sampled[0]), [Link(one) for one in sampled]
        return self._span(f"batch {name}", SpanKind.INTERNAL, attributes, parent, links)

    def begin_request(self, span: Span, _scope: Mapping[str, Any]) -> None:
        """Decide whether clients make spans below a request's, whose context is its own."""
        attach(set_span_in_context(span, self._around(span)))

    def _around(self, span: Span) -> Context:
        """Return what stands around a span: whether clients make spans below it."""
        return NO_CONTEXT if self._is_whole(span.get_span_context()) else QUIET

    def _is_whole(self, context: SpanContext) -> bool:
        """Return whether statements and calls have spans in a trace."""
        return context.trace_flags.sampled and context.trace_id & _LOW_BITS < self._whole_below

    @staticmethod
    def only_in_tries() -> None:
        """Have clients make spans in tries and batches alone."""
        attach(QUIET)

    @staticmethod
    def here() -> SpanContext | None:
        """Return the current span's context, or None if it is not sampled."""
        context = get_current_span().get_span_context()
        return context if context.trace_flags.sampled else None

    @staticmethod
    def traceparent() -> str | None:
        """Return the current span's context as a header says it."""
        context = get_current_span().get_span_context()
        return as_text(context) if context.is_valid else None

    def waited(self, since: datetime, what: str) -> None:
        """Make the span of a wait that ends now, below the current span."""
        if self.here() is not None:
            # A sender's clock may be ahead.
            began = min(since, datetime.now(UTC))
            self._tracer.start_span(f"wait {what}", start_time=int(began.timestamp() * 1e9)).end()

    def rerun(self, failed: str, run: int) -> str:
        """Make the span of a replay, linked to what failed; return its context."""
        remote = remote_context(failed)
        context = NO_CONTEXT if remote is None else below(remote)
        link = Link(get_current_span(context).get_span_context(), {LINKED_AS: "failed run"})
        span = self._tracer.start_span("replay", context, attributes={RUN: run}, links=[link])
        span.end()
        return as_text(span.get_span_context())

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
            f"chat {model}", SpanKind.CLIENT, attributes, around=NO_CONTEXT if self._to_llm else None
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

    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        context: Context | None = None,
        links: Sequence[Link] = (),
        *,
        around: Context | None = None,
    ) -> AbstractContextManager[Span]:
        return self._within(self._tracer.start_span(name, context, kind, attributes, links), around=around)

    @contextmanager
    def _within(self, span: Span, *, around: Context | None = None) -> Iterator[Span]:
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
