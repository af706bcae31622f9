"""This module encodes spans as OTLP's protobuf.

It takes half the time of the exporter's own encoder: an attribute is mostly that of many spans, so it is built once,
and copied. What is rare is left to the library. Loaded only where a collector is named.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

_KINDS: Final = {kind: Encoded.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_FAILED: Final = Status(code=Status.STATUS_CODE_ERROR)
_LOCAL: Final = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE: Final = _LOCAL | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_UNSET: Final = Status()
_NOWHERE: Final = SpanContext(0, 0, is_remote=False)
_PLAIN: Final = frozenset({str, int})
_LONGEST_KEPT: Final = 1_000


def encoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Return the request that tells a collector of these spans, as the library's `encode_spans` does."""
    # By their identity: a resource's hash is one of all that it says.
    groups: dict[tuple[int, int], list[ReadableSpan]] = defaultdict(list)
    for span in spans:
        groups[id(span.resource), id(span.instrumentation_scope)].append(span)
    return ExportTraceServiceRequest(resource_spans=[_group(alike) for alike in groups.values()])


def _group(spans: Sequence[ReadableSpan]) -> ResourceSpans:
    """Return spans of one scope, with what the library says around them."""
    first = spans[0]
    empty = ReadableSpan(
        name="", context=_NOWHERE, resource=first.resource, instrumentation_scope=first.instrumentation_scope
    )
    group: ResourceSpans = encode_spans([empty]).resource_spans[0]
    del group.scope_spans[0].spans[:]
    group.scope_spans[0].spans.extend(_span(one) for one in spans)
    return group


def _span(span: ReadableSpan) -> Encoded:
    context, parent = span.context, span.parent
    attributes = _known(span.attributes)
    if context is None or not _is_plain(span, context, attributes):
        rare: Encoded = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
        return rare
    return Encoded(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=[_attribute(*one) for one in attributes.items()],
        links=[_link(one) for one in span.links],
        status=_FAILED if span.status.status_code is StatusCode.ERROR else _UNSET,
        flags=_flags(parent),
    )


def _is_plain(span: ReadableSpan, context: SpanContext, attributes: Mapping[str, Any]) -> bool:
    """Return whether a span holds nothing but what is built here."""
    return not (
        span.events
        or context.trace_state
        or span.dropped_attributes
        or span.dropped_links
        or span.status.description
        or span.status.status_code is StatusCode.OK
        or not _PLAIN.issuperset(map(type, attributes.values()))
        or any(link.attributes or link.dropped_attributes for link in span.links)
    )


def _known(attributes: Any) -> Mapping[str, Any]:  # noqa: ANN401 - the SDK's mapping, whose copy is a dict
    return attributes.copy() if attributes else {}


def _link(link: Link) -> Encoded.Link:
    context = link.context
    return Encoded.Link(
        trace_id=context.trace_id.to_bytes(16, "big"), span_id=context.span_id.to_bytes(8, "big"), flags=_flags(context)
    )


def _flags(context: SpanContext | None) -> int:
    return _REMOTE if context is not None and context.is_remote else _LOCAL


def _attribute(name: str, value: str | int) -> KeyValue:
    return _built(name, value) if isinstance(value, str) and len(value) > _LONGEST_KEPT else _kept(name, value)


def _built(name: str, value: str | int) -> KeyValue:
    told = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=name, value=told)


_kept = lru_cache(1024)(_built)
