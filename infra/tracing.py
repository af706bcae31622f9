"""This module names every span and attribute by one version of OpenTelemetry's conventions.

Off, nothing of OpenTelemetry is imported, and each call here is a look at one variable. On, a job's events carry the
context of the span that wrote them, so that whoever handles an event goes on below it, in whichever process. The
messaging and `gen_ai` conventions still change; a test compares the names here with the installed version.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from infra.errors import InvalidSetting
from infra.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

    from infra.spans import Spans

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


@dataclass(slots=True)
class _Tracing:
    spans: "Spans | None" = None


_tracing = _Tracing()
# The trace that a root span is given: of a job whose sender has none, all processes make the same one.
wanted_trace: ContextVar[int | None] = ContextVar("wanted_trace", default=None)
# Whether the trace is told to the server that is called now: all are strangers otherwise.
told_outside: ContextVar[bool] = ContextVar("told_outside", default=False)


def is_on() -> bool:
    """Return whether this process makes spans."""
    return _tracing.spans is not None


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
    # Nothing of it is loaded while traces are off.
    from infra.spans import Spans  # noqa: PLC0415
    from infra.trace_export import WhileItAnswers, exporting_tracer  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or f"teamfit-{service}"
    exporter = WhileItAnswers.to(settings.otlp_endpoint)
    _tracing.spans = Spans(
        exporting_tracer(exporter, service=name, share=settings.trace_share),
        share=settings.trace_share,
        statements=settings.trace_statements,
        system="kafka" if "kafka" in settings.broker_url.partition(":")[0] else "redis",
        prompts=settings.trace_prompts,
        to_llm=settings.trace_to_llm,
        is_away=exporter.is_away,
    )


def only_in_tries() -> None:
    """Have clients make spans in tries and batches alone, in this thread and its tasks.

    Those of a worker's timers would be begun, and then not sampled.
    """
    if _tracing.spans is not None:
        _tracing.spans.only_in_tries()


def processing(group: str, topic: str, entry: str | None, attempt: int, event: E) -> AbstractContextManager[E]:
    """Make the span of a stage's try; give the event with its context.

    An event without a trace is given its job's own, and all stages give it the same.
    """
    spans = _tracing.spans
    return nullcontext(event) if spans is None else spans.processing(group, topic, entry, attempt, event)


def taking(group: str, topic: str, entry: str | None, attempt: int, event: E) -> AbstractContextManager[E]:
    """Link an event's batch to what sent it; make a span of a failing try.

    For a stage from whose events nothing follows; a try that is not the first has its span as in other stages.
    """
    spans = _tracing.spans
    return nullcontext(event) if spans is None else spans.taking(group, topic, entry, attempt, event)


def sending(entries: Sequence[tuple[str, bytes | None]]) -> AbstractContextManager[list[bytes | None]]:
    """Make a span for each sampled entry, and give the events with its context.

    Args:
        entries: topics and events; an event that must keep its bytes is None.
    """
    spans = _tracing.spans
    return nullcontext([value for _, value in entries]) if spans is None else spans.sending(entries)


def batch(
    name: str, contexts: "Sequence[SpanContext | None]", *, looks_up: bool = False
) -> AbstractContextManager[object]:
    """Make one span for a batch, linked to each item's span, below the first.

    Args:
        name: of what is done.
        contexts: of the items.
        looks_up: whether it only looks something up: then it has a span where statements have.
    """
    spans = _tracing.spans
    return nullcontext() if spans is None else spans.batch(name, contexts, looks_up=looks_up)


def here() -> "SpanContext | None":
    """Return the current span's context, or None if it is not sampled."""
    return None if _tracing.spans is None else _tracing.spans.here()


def traceparent() -> str | None:
    """Return the current span's context as a header says it. None: traces are off."""
    return None if _tracing.spans is None else _tracing.spans.traceparent()


def waited(since: datetime, what: str) -> None:
    """Make the span of a wait that ends now, below the current span."""
    if _tracing.spans is not None:
        _tracing.spans.waited(since, what)


def rerun(failed: str | None, run: int) -> str | None:
    """Make the span of a replay, linked to what failed; return its context."""
    return failed if _tracing.spans is None or failed is None else _tracing.spans.rerun(failed, run)


def chat(model: str, server: str, prompt: str | None) -> "AbstractContextManager[Chat]":
    """Make the span of one call to an LLM. The prompt is in it only if a setting says so."""
    spans = _tracing.spans
    return nullcontext(NO_CHAT) if spans is None else spans.chat(model, server, prompt)


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


NO_CHAT: Final = Chat()


def note_finish(reasons: Sequence[object]) -> None:
    """Note in an LLM call's span why its answers ended."""
    if _tracing.spans is not None:
        _tracing.spans.note(GEN_AI_FINISH, [one for one in reasons if isinstance(one, str)])


def exemplar() -> dict[str, str] | None:
    """Return what joins a value or a log line to the current span."""
    span = here()
    return None if span is None else {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def trace_requests(api: Any) -> None:  # noqa: ANN401 - FastAPI, which workers do not load
    """Make a span of each request, but for those of orchestrators and Prometheus."""
    if _tracing.spans is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - loaded by `start`

        FastAPIInstrumentor.instrument_app(
            api,
            server_request_hook=_tracing.spans.begin_request,
            excluded_urls="healthz,readyz,metrics",
            exclude_spans=["receive", "send"],
        )
