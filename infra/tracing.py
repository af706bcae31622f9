"""This module names every span and attribute by one version of OpenTelemetry's conventions.

Off, nothing of OpenTelemetry is imported, and each call here is a look at one variable. On, a job's events carry the
context of the span that wrote them, so that whoever handles an event goes on below it, in whichever process. The
messaging and `gen_ai` conventions still change; a test compares the names here with the installed version.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel

from infra.errors import InvalidSetting
from infra.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

# The version of the conventions that these names are of.
CONVENTIONS: Final = "https://opentelemetry.io/schemas/1.44.0"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_GROUP: Final = "messaging.consumer.group.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_BATCH: Final = "messaging.batch.message_count"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
GEN_AI_ANSWERED_BY: Final = "gen_ai.response.model"
GEN_AI_FINISH: Final = "gen_ai.response.finish_reasons"
GEN_AI_TOKENS_IN: Final = "gen_ai.usage.input_tokens"
GEN_AI_TOKENS_OUT: Final = "gen_ai.usage.output_tokens"
GEN_AI_PROMPT: Final = "gen_ai.input.messages"
SERVER: Final = "server.address"
ERROR: Final = "error.type"

# Ours, which no convention has.
JOB: Final = "teamfit.job.id"
RUN: Final = "teamfit.job.run"
ATTEMPT: Final = "teamfit.attempt"
LINKED_AS: Final = "teamfit.linked_as"

E = TypeVar("E")
Context: TypeAlias = "SpanContext"
Attributes: TypeAlias = Mapping[str, str | int | float | Sequence[str]]

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1


@dataclass(slots=True)
class _Tracing:
    tracer: "Tracer | None" = None
    system: str = "redis"
    prompts: bool = False
    to_llm: bool = False


_tracing = _Tracing()
# The trace that a root span is given: of a job whose sender has none, all processes make the same one.
wanted_trace: ContextVar[int | None] = ContextVar("wanted_trace", default=None)
# Whether the trace is told to the server that is called now: all are strangers otherwise.
told_outside: ContextVar[bool] = ContextVar("told_outside", default=False)


def is_on() -> bool:
    """Return whether this process makes spans."""
    return _tracing.tracer is not None


def start(settings: Settings, service: str) -> None:
    """Make spans from now on, if the settings name a collector.

    Args:
        settings: of this process.
        service: which part this is; `OTEL_SERVICE_NAME` goes before it.

    Raises:
        InvalidSetting: a collector is named, and the extra is not installed.
    """
    if settings.otlp_endpoint is None or is_on():
        return
    if find_spec("opentelemetry.sdk") is None:
        raise InvalidSetting(
            "OTEL_EXPORTER_OTLP_ENDPOINT", "is set, and traces are not installed: pip install 'teamfit-pipeline[otel]'"
        )
    from infra.trace_export import exporting_tracer  # noqa: PLC0415 - nothing of it is loaded while traces are off

    name = os.environ.get("OTEL_SERVICE_NAME") or f"teamfit-{service}"
    _tracing.tracer = exporting_tracer(settings.otlp_endpoint, service=name, share=settings.trace_share)
    _tracing.system = "kafka" if "kafka" in settings.broker_url.partition(":")[0] else "redis"
    _tracing.prompts, _tracing.to_llm = settings.trace_prompts, settings.trace_to_llm


@contextmanager
def processing(group: str, topic: str, entry: str | None, attempt: int, event: E) -> Iterator[E]:
    """Make the span of a stage's try; yield the event with its context.

    An event without a trace is given its job's own, and all stages give it the same.
    """
    tracer = _tracing.tracer
    if tracer is None:
        yield event
        return
    job_id, parent = getattr(event, "job_id", None), getattr(event, "traceparent", None)
    attributes = _messaging("process", topic) | {MESSAGING_GROUP: group, ATTEMPT: attempt}
    if entry is not None:
        attributes[MESSAGING_MESSAGE_ID] = entry
    if isinstance(job_id, UUID):
        attributes |= {JOB: str(job_id), RUN: getattr(event, "run", 1)}
    wanted_trace.set(job_id.int if isinstance(job_id, UUID) else None)
    with _span(tracer, f"process {topic}", "CONSUMER", attributes, parent=parent) as span:
        if span.is_recording() and isinstance(event, BaseModel):
            yield event.model_copy(update={"traceparent": _text(span.get_span_context())})
        else:
            yield event


# Within a text of JSON the quotes would be escaped, so this is an attribute. The last digits say that it is sampled.
_IN_EVENT: Final = re.compile(rb'"traceparent": ?"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf])"')


@contextmanager
def sending(entries: Sequence[tuple[str, bytes | None]]) -> Iterator[list[bytes | None]]:
    """Make a span for each sampled entry, and yield the events with its context.

    Args:
        entries: topics and events; an event that must keep its bytes is None.
    """
    tracer = _tracing.tracer
    values = [value for _, value in entries]
    spans: list[Span] = []
    if tracer is not None:
        for place, (topic, value) in enumerate(entries):
            found = None if value is None else _IN_EVENT.search(value)
            if value is None or found is None:
                continue
            parent = _context(found.group(1).decode())
            span = tracer.start_span(f"send {topic}", parent, _kind("PRODUCER"), _messaging("send", topic))
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
def batch(name: str, contexts: "Sequence[SpanContext | None]") -> Iterator[None]:
    """Make one span for a batch, linked to each item's span, below the first."""
    tracer = _tracing.tracer
    sampled = [one for one in contexts if one is not None]
    if tracer is None or not sampled:
        yield
        return
    from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context  # noqa: PLC0415 - loaded by `start`

    attributes: dict[str, Any] = {MESSAGING_SYSTEM: _tracing.system, MESSAGING_BATCH: len(contexts)}
    below = set_span_in_context(NonRecordingSpan(sampled[0]))
    with _span(tracer, f"batch {name}", "INTERNAL", attributes, below=below, links=[Link(one) for one in sampled]):
        yield


def here() -> "SpanContext | None":
    """Return the current span's context, or None if it is not sampled."""
    if _tracing.tracer is None:
        return None
    context = _current().get_span_context()
    return context if context.trace_flags.sampled else None


def traceparent() -> str | None:
    """Return the current span's context as a header says it. None: traces are off."""
    if _tracing.tracer is None:
        return None
    context = _current().get_span_context()
    return _text(context) if context.is_valid else None


def waited(since: datetime, what: str) -> None:
    """Make the span of a wait that ends now, below the current span."""
    if _tracing.tracer is None or here() is None:
        return
    # A sender's clock may be ahead.
    began = min(since, datetime.now(UTC))
    span = _tracing.tracer.start_span(f"wait {what}", start_time=int(began.timestamp() * 1e9))
    span.end()


def rerun(failed: str | None, run: int) -> str | None:
    """Make the span of a replay, linked to what failed; return its context."""
    tracer = _tracing.tracer
    if tracer is None or failed is None:
        return failed
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415 - loaded by `start`

    context = _context(failed)
    link = Link(get_current_span(context).get_span_context(), {LINKED_AS: "failed run"})
    span = tracer.start_span("replay", context, attributes={RUN: run}, links=[link])
    span.end()
    return _text(span.get_span_context())


@contextmanager
def chat(model: str, server: str, prompt: str | None) -> "Iterator[Chat]":
    """Make the span of one call to an LLM. The prompt is in it only if a setting says so."""
    tracer = _tracing.tracer
    if tracer is None:
        yield _NO_CHAT
        return
    attributes: dict[str, Any] = {GEN_AI_OPERATION: "chat", GEN_AI_PROVIDER: "openai"}
    attributes |= {GEN_AI_MODEL: model, SERVER: server}
    if prompt is not None and _tracing.prompts:
        messages = [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
        attributes[GEN_AI_PROMPT] = json.dumps(messages)
    with _span(tracer, f"chat {model}", "CLIENT", attributes) as span:
        before = told_outside.set(_tracing.to_llm)
        try:
            yield Chat(span)
        finally:
            told_outside.reset(before)


@dataclass(frozen=True, slots=True)
class Chat:
    """The span of a call to an LLM, which learns what the answer says."""

    span: "Span | None" = None

    def answered(self, usage: Any) -> None:  # noqa: ANN401 - the generation stage's own, a room above
        """Note what the answer cost."""
        if self.span is None or usage is None:
            return
        known = {
            GEN_AI_ANSWERED_BY: usage.model,
            GEN_AI_TOKENS_IN: usage.prompt_tokens,
            GEN_AI_TOKENS_OUT: usage.completion_tokens,
        }
        self.span.set_attributes({name: value for name, value in known.items() if value is not None})


_NO_CHAT: Final = Chat()


def note_finish(reasons: Sequence[object]) -> None:
    """Note in an LLM call's span why its answers ended."""
    if here() is not None:
        _current().set_attribute(GEN_AI_FINISH, [one for one in reasons if isinstance(one, str)])


def exemplar() -> dict[str, str] | None:
    """Return what joins a value or a log line to the current span."""
    span = here()
    return None if span is None else {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def trace_requests(api: Any) -> None:  # noqa: ANN401 - FastAPI, which workers do not load
    """Make a span of each request, but for those of orchestrators and Prometheus."""
    if is_on():
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - loaded by `start`

        FastAPIInstrumentor.instrument_app(
            api, excluded_urls="healthz,readyz,metrics", exclude_spans=["receive", "send"]
        )


def _current() -> "Span":
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - loaded by `start`

    return get_current_span()


def _messaging(operation: str, topic: str) -> dict[str, Any]:
    return {
        MESSAGING_SYSTEM: _tracing.system,
        MESSAGING_OPERATION: operation,
        MESSAGING_OPERATION_TYPE: operation,
        MESSAGING_DESTINATION: topic,
    }


@contextmanager
def _span(
    tracer: "Tracer",
    name: str,
    kind: str,
    attributes: Attributes,
    *,
    parent: str | None = None,
    below: Any = None,  # noqa: ANN401 - OpenTelemetry's own context, a type that only exists while traces are on
    links: "Sequence[Link]" = (),
) -> "Iterator[Span]":
    context = below if parent is None else _context(parent)
    with tracer.start_as_current_span(
        name, context, _kind(kind), dict(attributes), links, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            _failed(span, error)
            raise


def _failed(span: "Span", error: BaseException) -> None:
    # Its type alone: an error's text may hold what a customer wrote.
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - loaded by `start`

    span.set_attribute(ERROR, type(error).__name__)
    span.set_status(StatusCode.ERROR)


def _kind(name: str) -> Any:  # noqa: ANN401 - as above
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - loaded by `start`

    return SpanKind[name]


def _context(parent: str) -> Any:  # noqa: ANN401 - as above
    from opentelemetry.context import Context  # noqa: PLC0415 - loaded by `start`
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags  # noqa: PLC0415 - loaded by `start`
    from opentelemetry.trace import set_span_in_context as below  # noqa: PLC0415 - loaded by `start`

    match = _PARENT.match(parent)
    if match is None:
        return Context()
    trace, span, flags = (int(one, 16) for one in match.groups())
    remote = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & _SAMPLED))
    return below(NonRecordingSpan(remote), Context())


def _text(context: "SpanContext") -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & _SAMPLED:02x}"
