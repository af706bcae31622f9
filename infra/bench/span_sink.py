"""A collector of OpenTelemetry that keeps nothing: what `infra.bench.tracing` sends spans to."""

import argparse
import asyncio
from typing import Final

from aiohttp import web

from infra.local.processes import HOST

SINK_READY: Final = "ready"


async def _take(request: web.Request) -> web.Response:
    async for _ in request.content.iter_any():
        pass
    return web.Response(content_type="application/x-protobuf")


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_post("/v1/traces", _take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    print(SINK_READY, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until a signal stops it."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.span_sink", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
