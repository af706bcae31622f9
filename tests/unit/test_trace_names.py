"""The names in spans are those of the conventions that `infra/tracing.py` says it follows."""

import ast
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from unittest.mock import Mock

from faust.contrib.opentelemetry import OpenTelemetrySensor
from faust.types import TP
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import get_current_span

from infra import tracing
from infra.settings import Settings

_ROOT = Path(__file__).parents[2]
_KNOWN = {
    value
    for module in (gen_ai_attributes, messaging_attributes, error_attributes, server_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
_OURS = {value for name, value in vars(tracing).items() if name.isupper() and isinstance(value, str)}


def test_attributes_are_those_of_the_installed_conventions() -> None:
    """Names that are still in development change: whoever upgrades the package finds them here."""
    names = {value for value in _OURS if not value.startswith(("http", "teamfit."))}
    assert len(names) > 12
    assert names <= _KNOWN
    assert list(Schemas)[-1].value == tracing.CONVENTIONS
    assert version("opentelemetry-semantic-conventions") == "0.66b1", "look what changed, and say so in CONVENTIONS"


def test_no_other_module_names_attributes() -> None:
    """One module holds them."""
    for folder in ("streams", "consumers", "producers", "infra"):
        for file in (_ROOT / folder).rglob("*.py"):
            texts = {one.value for one in ast.walk(ast.parse(file.read_text())) if isinstance(one, ast.Constant)}
            assert file.name == "tracing.py" or not texts & _KNOWN & _OURS, file


def test_without_a_collector_nothing_is_made() -> None:
    """No endpoint, no spans: an event goes through as it is."""
    tracing.start(Settings(_env_file=None), "quota")
    assert not tracing.is_on()
    event = object()
    with tracing.processing("quota", "job-requests", "1-0", 1, event) as same:
        assert same is event
    with tracing.sending([("job-requests", b"{}")]) as values:
        assert values == [b"{}"]
    assert [tracing.here(), tracing.exemplar(), tracing.traceparent()] == [None] * 3


def test_fausts_own_hook_reads_headers_and_speaks_of_kafka() -> None:
    """docs/traces.md says why it is not used: look there when one of these has changed."""
    tracer, told = Mock(), Mock()
    sensor = OpenTelemetrySensor(tracer=tracer)
    told.message.headers = {"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    sensor.on_stream_event_in(TP("job-requests", 0), 1, Mock(), told)
    (begun,) = tracer.start_span.call_args_list
    assert get_current_span(begun.kwargs["context"]).get_span_context().trace_id
    assert begun.kwargs["attributes"]["messaging.system"] == "kafka"
    assert list(signature(sensor.on_stream_event_out).parameters) == ["tp", "offset", "stream", "event", "state"]
