"""Spans on their way out, and the caller's trace on its way in."""

import json
from unittest.mock import Mock

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.asgi import asgi_getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, get_current_span

from infra.trace_export import HashedOnce, ToldOnPurpose

_SAID = {"service.name": "teamfit-quota"}


def test_a_resource_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own is written as JSON for every span: the test fails when that has been mended, and ours may go."""
    dumps = Mock(wraps=json.dumps)
    monkeypatch.setattr("opentelemetry.sdk.resources.dumps", dumps)

    def encoded(resource: Resource) -> int:
        """Return how often it was written for a hundred spans."""
        dumps.reset_mock()
        spans = [
            ReadableSpan(name="send", context=SpanContext(1, number, is_remote=False), resource=resource)
            for number in range(1, 101)
        ]
        (group,) = encode_spans(spans).resource_spans
        assert [(one.key, one.value.string_value) for one in group.resource.attributes] == [*_SAID.items()]
        assert len(group.scope_spans[0].spans) == 100
        return dumps.call_count

    ours, theirs = HashedOnce(_SAID), Resource(_SAID)
    assert (ours, hash(ours)) == (theirs, hash(theirs))
    assert encoded(ours) == 0
    assert encoded(theirs) >= 100


_PARENTS = [f"00-{trace * 32}-{'b' * 16}-01" for trace in "cd"]


@pytest.mark.parametrize(
    ("given", "read"), [([], 0), (_PARENTS[:1], int("c" * 32, 16)), (_PARENTS, 0), (_PARENTS[:1] * 2, 0)]
)
def test_a_caller_has_one_trace_or_none(given: list[str], read: int) -> None:
    """Of two, either one may be meant, also where they agree: the span of the request is a root of its own then."""
    scope = {"headers": [(b"traceparent", one.encode()) for one in given]}
    context = ToldOnPurpose().extract(scope, getter=asgi_getter)
    assert get_current_span(context).get_span_context().trace_id == read
