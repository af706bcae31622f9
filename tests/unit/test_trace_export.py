"""A batch of spans is encoded under one resource, which is hashed once for all of them."""

import json
from unittest.mock import Mock

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from infra.trace_export import HashedOnce

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
