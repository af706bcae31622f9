"""HTTP requests are sent to the API at a rate, or by connections, and timed."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

_WISH: Final = {"requirements": "A session outdoors for 6 people, about 45 minutes"}
_LONGEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Times:
    """Requests took these milliseconds; `rate` is how many ended in a second."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float], whole_s: float) -> "Times":
        """Sum up the seconds that requests took, which all ended within the whole."""
        cuts = statistics.quantiles([one * 1000 for one in seconds], n=100, method="inclusive")
        return cls(len(seconds), round(len(seconds) / whole_s, 1), round(cuts[49], 1), round(cuts[98], 1))


@dataclass(frozen=True, slots=True)
class Api:
    """An API's address, a token for it, and whose jobs are asked for."""

    url: str
    token: str
    organization_id: str
    team_id: str

    def session(self, connections: int) -> aiohttp.ClientSession:
        """Return a client of at most so many connections."""
        return aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=_LONGEST_S),
        )

    async def submit(self, session: aiohttp.ClientSession) -> str:
        """Ask for a job; return its ID."""
        wish = {"organization_id": self.organization_id, "team_id": self.team_id, **_WISH}
        async with session.post("/api/activities/generate-custom", json=wish) as answer:
            answer.raise_for_status()
            return str((await answer.json())["job_id"])

    async def read(self, session: aiohttp.ClientSession, job_id: str, *, wait: bool = False) -> str:
        """Read a job, or wait until it ends; return the answer's body."""
        headers = {"Prefer": "wait=50"} if wait else {}
        async with session.get(f"/api/jobs/{job_id}", headers=headers) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def complete(self, session: aiohttp.ClientSession) -> None:
        """Ask for a job and wait until it is completed."""
        body = await self.read(session, await self.submit(session), wait=True)
        if '"status":"completed"' not in body:
            raise RuntimeError(f"a job did not complete: {body[:300]}")


async def at_rate(request: Callable[[], Awaitable[object]], *, per_s: float, seconds: float) -> Times:
    """Begin requests at a fixed rate. A slow answer delays no later request."""
    took: list[float] = []

    async def timed() -> None:
        began = time.perf_counter()
        await request()
        took.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for number in range(round(per_s * seconds)):
            await asyncio.sleep(began + number / per_s - time.perf_counter())
            requests.create_task(timed())
    return Times.of(took, time.perf_counter() - began)


async def by_connections(request: Callable[[], Awaitable[object]], *, connections: int, seconds: float) -> Times:
    """Have so many clients send one request after the other for so long."""
    took: list[float] = []
    began = time.perf_counter()

    async def client() -> None:
        while (start := time.perf_counter()) < began + seconds:
            await request()
            took.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as clients:
        for _ in range(connections):
            clients.create_task(client())
    return Times.of(took, time.perf_counter() - began)
