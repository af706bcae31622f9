"""An LLM endpoint that goes away and comes back, and counts what it is asked meanwhile."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from infra.local.llm.server import create_app
from tests.served import served

# Each job's wish has a number; a probe has none.
_WISH = re.compile(r"variant \d+")
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0


@dataclass
class AwayProvider:
    """Such an endpoint.

    Attributes:
        url: its address.
        is_away: whether it answers 503.
        answered: jobs' calls that it has answered.
        refused: jobs' calls while it was away.
        probes: other calls while it was away.
    """

    url: str = ""
    is_away: bool = False
    answered: int = 0
    refused: int = 0
    probes: int = 0


def wish(number: int) -> str:
    """Return a wish by which a job's call is told from a probe."""
    return f"An hour outdoors, variant {number}."


def most_probes(away_s: float, workers: int) -> int:
    """Return how many probes a fleet may send in this time.

    After 0.5 s, 1 s, 2 s, … 30 s each; and one of each worker, by which it finds that the job is not to blame.
    """
    periods, passed = 0, 0.0
    while (passed := passed + min(_FIRST_WAIT_S * 2**periods, _LONGEST_WAIT_S)) <= away_s:
        periods += 1
    return periods + workers


@asynccontextmanager
async def away_provider(*, latency_s: float) -> AsyncIterator[AwayProvider]:
    """Serve such an endpoint."""
    told = AwayProvider()

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_job = _WISH.search(await request.text()) is not None
        if told.is_away:
            told.probes += not is_job
            told.refused += is_job
            return web.json_response({"error": {"message": "upstream is down"}}, status=503)
        answer = await handler(request)
        told.answered += is_job
        return answer

    app = create_app(latency_s=latency_s)
    app.middlewares.append(watch)
    async with served(app) as address:
        told.url = f"{address}/v1"
        yield told
