"""Spans go to a collector by OTLP over HTTP. Loaded only where one is named."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import aiohttp
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, default_getter, default_setter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, Status, Tracer, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from wrapt import wrap_function_wrapper

from infra.tracing import CONVENTIONS, ERROR, told_outside, wanted_trace

log = structlog.get_logger(__name__)

# One thread sends; spans beyond the queue are dropped.
_QUEUE: Final = 4_096
_BATCH: Final = 1_024
_SEND_S: Final = 5  # with tries again
_ASK_AGAIN_S: Final = (10.0, 300.0)
_BEGINS: Final = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})


class WhileItAnswers(SpanExporter):
    """Drops spans while the collector is away, and asks it again ever later.

    So no span is encoded in vain, the log has two lines of an outage, and a process that ends waits for nothing.
    """

    def __init__(self, exporter: SpanExporter, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._seconds = seconds
        self._wait_s = 0.0
        self._asks_at = float("-inf")
        self._asks = False

    @classmethod
    def to(cls, endpoint: str) -> "WhileItAnswers":
        """Return one that sends to a collector by OTLP over HTTP."""
        # It has a line for each of its tries.
        logging.getLogger("opentelemetry.exporter.otlp.proto.http").setLevel(logging.ERROR)
        return cls(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_SEND_S))

    def is_away(self) -> bool:
        """Return whether spans would be dropped, as a batch was that came before."""
        return bool(self._wait_s) and (self._asks or self._seconds() < self._asks_at)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, unless the collector has just not taken one."""
        if self._seconds() < self._asks_at:
            return SpanExportResult.FAILURE
        self._asks = True
        try:
            result = self._exporter.export(spans)
        finally:
            self._asks = False
        if result is SpanExportResult.SUCCESS:
            if self._wait_s:
                log.info("traces.resumed")
            self._wait_s = 0.0
            return result
        if not self._wait_s:
            log.warning("traces.dropped", why="the collector takes none; its exporter's line says more")
        first, last = _ASK_AGAIN_S
        self._wait_s = min(max(first, 2 * self._wait_s), last)
        self._asks_at = self._seconds() + self._wait_s
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


class TypesAlone(BatchSpanProcessor):
    """Tells the collector an error's type alone.

    Its text and stack may hold what a customer wrote. The SDK puts them into every span that an error leaves, those of
    its instrumentations among them.
    """

    def on_end(self, span: ReadableSpan) -> None:
        """Queue it for the collector."""
        super().on_end(_without_texts(span) if span.events or span.status.description else span)


def _without_texts(span: ReadableSpan) -> ReadableSpan:
    types = [(event.attributes or {}).get("exception.type") for event in span.events if event.name == "exception"]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={ERROR: types[-1], **(span.attributes or {})} if types else span.attributes,
        events=[event for event in span.events if event.name != "exception"],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class Share(Sampler):
    """Samples a share of the traces that begin here. What is no job's and no request's begins none: a timer's query."""

    def __init__(self, share: float) -> None:
        self._share = TraceIdRatioBased(share)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about a span without a parent."""
        if kind not in _BEGINS:
            return ALWAYS_OFF.should_sample(parent_context, trace_id, name)
        return self._share.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name the sampler."""
        return f"Share({self._share.rate})"


class ToldOnPurpose(TraceContextTextMapPropagator):
    """Reads traces of callers, and tells no server of one unless it is wanted.

    The instrumentation of HTTP would tell an LLM's provider, an identity provider and webhooks' endpoints.
    """

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Add the headers where they are wanted."""
        if told_outside.get():
            super().inject(carrier, context, setter)

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Read the caller's trace. Of two that are given, either one may be meant, so there is none."""
        if len(getter.get(carrier, "traceparent") or ()) > 1:
            return Context() if context is None else context
        return super().extract(carrier, context, getter)


class HashedOnce(Resource):
    """Says whose spans these are, and is hashed once.

    The exporter looks each span's up in a dict, and the SDK's is written as JSON each time: half of what a span's
    encoding takes (1.45.1).
    """

    def __init__(self, attributes: Attributes, schema_url: str | None = None) -> None:
        super().__init__(attributes or {}, schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class AskedEachTime(list[aiohttp.TraceConfig]):
    """An HTTP client's hooks, of which it has none while its calls make no spans.

    Each call prepares what its hooks are told before they say that they want nothing: 20 us of it (aiohttp 3.14, which
    looks at `_trace_configs` once a call, as `uninstrument_session` relies on too).
    """

    def __iter__(self) -> Iterator[aiohttp.TraceConfig]:
        """Return the hooks of the call that begins."""
        return super().__iter__() if is_http_instrumentation_enabled() else iter(())

    @classmethod
    def of_new_clients(cls) -> None:
        """Have each client that is made from now on ask."""

        def make(
            made: Callable[..., None], client: aiohttp.ClientSession, args: Sequence[object], how: Mapping[str, object]
        ) -> None:
            made(*args, **how)
            client._trace_configs = cls(client._trace_configs)  # noqa: SLF001 - as above

        wrap_function_wrapper(aiohttp.ClientSession, "__init__", make)


class JobTraces(RandomIdGenerator):
    """Gives a job without a trace the same one in every process: its ID."""

    def generate_trace_id(self) -> int:
        """Return the ID of a trace that begins."""
        return wanted_trace.get() or super().generate_trace_id()


def exporting_tracer(exporter: SpanExporter, *, service: str, share: float) -> Tracer:
    """Return this process's tracer. Its clients of Postgres and HTTP make spans below ours."""
    resource = Resource.create({"service.name": service, "service.namespace": "teamfit"})
    provider = TracerProvider(
        sampler=ParentBased(Share(share)),
        id_generator=JobTraces(),
        resource=HashedOnce(resource.attributes, resource.schema_url),
    )
    provider.add_span_processor(
        TypesAlone(exporter, max_queue_size=_QUEUE, max_export_batch_size=_BATCH, schedule_delay_millis=1_000)
    )
    trace.set_tracer_provider(provider)
    set_global_textmap(ToldOnPurpose())
    AsyncPGInstrumentor().instrument(tracer_provider=provider)
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    AskedEachTime.of_new_clients()
    return provider.get_tracer("teamfit", schema_url=CONVENTIONS)
