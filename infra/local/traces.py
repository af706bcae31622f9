"""`python -m infra.local.traces --port N` is a collector for a machine without one.

It takes OTLP over HTTP, keeps the latest traces in memory, and shows each as a tree of its spans.
"""

import argparse
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infra.local.processes import HOST
from infra.ports import PortTaken, require_free
from infra.tracing import ATTEMPT, ERROR, JOB

_MOST_TRACES: Final = 200
_MOST_SPANS: Final = 5_000  # of one trace
_LONGEST_BODY: Final = 64 * 2**20
_STYLE: Final = (
    "body{font:14px system-ui;margin:2em}table{border-collapse:collapse;width:100%}"
    "td,th{padding:2px 8px;text-align:left;white-space:nowrap}tr:nth-child(odd){background:#8881}"
    ".bar{width:45%}.bar i{display:block;height:10px;min-width:2px;background:#47c}"
    ".wrong{color:#c22}.wrong+td+td+td i{background:#c22}small{color:#777}"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A span, as a process told of it. `began` and `ended` are in nanoseconds since 1970."""

    id: bytes
    parent: bytes
    name: str
    service: str
    began: int
    ended: int
    attributes: dict[str, Any]


class Traces:
    """The latest traces, by their IDs; the one that was heard of last comes last."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, dict[bytes, Span]] = OrderedDict()

    def take(self, body: bytes) -> None:
        """Keep what a process tells. Raises ValueError if it is not OTLP."""
        try:
            told = ExportTraceServiceRequest.FromString(body)
        except Exception as error:  # protobuf has a class of its own in each implementation
            raise ValueError(str(error)) from error
        for resource in told.resource_spans:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for one in (span for scope in resource.scope_spans for span in scope.spans):
                spans = self._spans.setdefault(one.trace_id.hex(), {})
                self._spans.move_to_end(one.trace_id.hex())
                if len(spans) < _MOST_SPANS:
                    spans[one.span_id] = Span(
                        *(one.span_id, one.parent_span_id, one.name, str(service)),
                        *(one.start_time_unix_nano, one.end_time_unix_nano, _attributes(one.attributes)),
                    )
        while len(self._spans) > _MOST_TRACES:
            self._spans.popitem(last=False)

    def ids(self) -> list[str]:
        """Return the traces' IDs, the latest first."""
        return list(reversed(self._spans))

    def tree(self, trace: str) -> list[tuple[int, Span]]:
        """Return a trace's spans in the order of a tree, with their depths."""
        spans = self._spans.get(trace, {})
        below: dict[bytes, list[Span]] = {}
        for span in sorted(spans.values(), key=lambda one: (one.began, -one.ended)):
            below.setdefault(span.parent if span.parent in spans else b"", []).append(span)
        return list(_walk(below))


def _walk(below: dict[bytes, list[Span]]) -> Iterator[tuple[int, Span]]:
    """Yield spans depth first. Those that name each other as parents are below none, and are left out."""
    ahead = [(0, span) for span in reversed(below.get(b"", []))]
    while ahead:
        depth, span = ahead.pop()
        yield depth, span
        ahead += [(depth + 1, one) for one in reversed(below.get(span.id, []))]


def _attributes(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - protobuf's own
    return {one.key: getattr(one.value, kind) for one in pairs if (kind := one.value.WhichOneof("value")) is not None}


def create_app() -> web.Application:
    """Return the collector with its pages."""
    app = web.Application(client_max_size=_LONGEST_BODY)
    traces = Traces()

    async def take(request: web.Request) -> web.Response:
        try:
            traces.take(await request.read())
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"send OTLP as protobuf: {error}") from error
        return web.Response(content_type="application/x-protobuf")

    async def show_all(_request: web.Request) -> web.Response:
        return _page("Traces", _list(traces), refresh=True)

    async def show_one(request: web.Request) -> web.Response:
        tree = traces.tree(request.match_info["trace"])
        if not tree:
            raise web.HTTPNotFound(text="there is no such trace, or none any more")
        return _page(f"Trace {request.match_info['trace']}", _waterfall(tree), refresh=False)

    app.router.add_post("/v1/traces", take)
    app.router.add_get("/", show_all)
    app.router.add_get("/traces/{trace}", show_one)
    return app


def _page(title: str, content: str, *, refresh: bool) -> web.Response:
    again = '<meta http-equiv="refresh" content="2">' if refresh else ""
    return web.Response(
        text=f'<!doctype html><html lang="en"><meta charset="utf-8">{again}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{content}</html>",
        content_type="text/html",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "no-store",
        },
    )


def _list(traces: Traces) -> str:
    if not traces.ids():
        return "<p>None yet: a job's trace comes a second after it happened.</p>"
    rows = []
    for trace in traces.ids():
        spans = [span for _, span in traces.tree(trace)]
        if not spans:
            continue
        jobs = sorted({str(span.attributes[JOB]) for span in spans if JOB in span.attributes})
        link = f'<a href="/traces/{trace}">{trace}</a>'
        cells = (link, escape(spans[0].name), escape(", ".join(jobs)), str(len(spans)), _ms(_length(spans)))
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    heads = "".join(f"<th>{name}</th>" for name in ("trace", "begins with", "job", "spans", "took"))
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _waterfall(tree: Sequence[tuple[int, Span]]) -> str:
    start = min(span.began for _, span in tree)
    whole = _length([span for _, span in tree]) or 1
    rows = []
    for depth, span in tree:
        left, width = 100 * (span.began - start) / whole, 100 * (span.ended - span.began) / whole
        error = span.attributes.get(ERROR)
        name = f"<span style='padding-left:{1.2 * depth}em'>{escape(span.name[:80])}</span>"
        told = f"attempt {span.attributes[ATTEMPT]}" if ATTEMPT in span.attributes else ""
        rows.append(
            f"<tr><td{' class=wrong' if error else ''}>{name} <small>{escape(str(error or told))}</small></td>"
            f"<td>{escape(span.service)}</td><td>{_ms(span.ended - span.began)}</td>"
            f"<td class=bar><i style='margin-left:{left:.2f}%;width:{width:.2f}%'></i></td></tr>"
        )
    return f"<p><a href='/'>All traces</a></p><table>{''.join(rows)}</table>"


def _length(spans: Sequence[Span]) -> int:
    return max(span.ended for span in spans) - min(span.began for span in spans)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:,.1f} ms"


def main() -> int:
    """Serve until a signal ends it. A port that is taken is a plain message and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.traces", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="the port on the loopback interface")
    port = parser.parse_args().port
    try:
        require_free(port, "--port")
    except PortTaken as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    web.run_app(create_app(), host=HOST, port=port, access_log=None, print=None, shutdown_timeout=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
