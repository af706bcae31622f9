"""Spans are told to a collector in the very words of the library's own encoder."""

from collections.abc import Sequence

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AnyValue

from infra.trace_encoding import encoded

_LINKED = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1))
_STATEFUL = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")]))


def _made() -> Sequence[ReadableSpan]:
    """Spans of two scopes: of every kind, with every sort of attribute, below each other, linked, failed."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "a-service"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer, other = provider.get_tracer("teamfit", schema_url="https://a.schema/1"), provider.get_tracer("another")
    for kind in SpanKind:
        with tracer.start_as_current_span(f"of {kind.name}", kind=kind):
            other.start_span("below").end()
    sorts: tuple[AnyValue, ...] = ("", "ä" * 2_000, 1, 0, -(2**63), 2**63 - 1, True, 1.0, 0.0, ["stop"], b"x", {"a": 1})
    for value in sorts:
        tracer.start_span("attributes", attributes={"before": "x", "value": value}).end()
    for link in (Link(_LINKED), Link(_STATEFUL), Link(_LINKED, {"why": "because"})):
        tracer.start_span("linked", links=[link, Link(_LINKED)]).end()
    for code in StatusCode:
        span = tracer.start_span("ended")
        span.set_status(code)
        span.end()
    span = tracer.start_span("told of")
    span.add_event("an event", {"of": 1})
    span.set_status(StatusCode.ERROR, "why")
    span.end()
    return kept.get_finished_spans()


@pytest.mark.parametrize("again", [False, True])
def test_each_sort_of_span_is_told_as_the_library_tells_it(again: bool) -> None:
    """Alone, where its bytes are the same; a value that another one equals (1, True, 1.0) keeps its type."""
    spans = _made()
    for span in reversed(spans) if again else spans:
        assert encoded([span]).SerializeToString() == encode_spans([span]).SerializeToString(), span.to_json()


def test_all_spans_of_a_request_are_in_it_below_their_scope() -> None:
    """Together too: as many, each below its own scope and resource."""
    spans = _made()
    told = {
        scope.scope.name: [span.name for span in scope.spans]
        for group in encoded(spans).resource_spans
        for scope in group.scope_spans
    }
    assert told == {
        name: [one.name for one in spans if one.instrumentation_scope and one.instrumentation_scope.name == name]
        for name in ("another", "teamfit")
    }


def test_the_exporter_asks_for_its_encoder_by_the_name_that_is_replaced() -> None:
    """Whoever upgrades it hears of it here."""
    assert callable(vars(trace_exporter)["encode_spans"])
    assert "encode_spans" in trace_exporter.OTLPSpanExporter.export.__code__.co_names
