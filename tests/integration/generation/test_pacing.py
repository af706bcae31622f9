"""Workers keep within a provider's limits before it has to say 429, and no headers shut the fleet."""

import asyncio
import time
from datetime import timedelta

import pytest

from consumers.generation.allowance import Limits
from consumers.generation.pace import Pacer
from infra.errors import Postponed
from infra.local.llm.limits import Limiter
from infra.postgres import Database
from streams.delivery.deliveries import Delivery
from tests.integration.generation.conftest import Endpoint, Pool, Starter, accepted, offline_endpoint

pytestmark = pytest.mark.usefixtures("team")

_MINUTE_S = 3.0


async def completed(database: Pool) -> int:
    """Return how many runs are completed."""
    return int(await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'"))


def pacer(database: Database, limits: Limits) -> Pacer:
    """Return a worker's part of the budget, by a minute of three seconds."""
    minute, patience = timedelta(seconds=_MINUTE_S), timedelta(seconds=60)
    return Pacer(
        database,
        endpoint="e",
        model="m",
        limits=lambda: limits,
        most_tokens=4_000,
        patience=patience,
        minute=minute,
    )


async def _unnoted(_waited: timedelta) -> None:
    """Note nothing: there are no runs."""


_BUDGETS = [
    (Limits(requests=300), 400),
    (Limits(tokens=60_000), 400),
    (Limits(300, 60_000), 400),
    # So small that a call is a large part of it, and the most that one might use is most of it.
    (Limits(requests=30), 60),
    (Limits(tokens=6_000), 60),
    (Limits(600, 6_000), 60),
]


@pytest.mark.parametrize(("limits", "calls"), _BUDGETS)
async def test_two_workers_keep_within_one_budget(database_url: str, limits: Limits, calls: int) -> None:
    """A provider that counts strictly refuses one call in a hundred at most, whatever the calls use."""
    strict = Limiter(int(limits.requests or 10**9), int(limits.tokens or 10**9), minute_s=_MINUTE_S)
    database = Database(database_url, size=2)
    workers = [pacer(database, limits) for _ in range(2)]

    async def call(place: int) -> None:
        async with workers[place % 2].turn(_unnoted) as taken:
            used = 150 + 100 * (place % 3 == 0)
            strict.take(used)
            taken.called = True
            await asyncio.sleep(0)
            taken.used = float(used)

    try:
        await asyncio.gather(*(call(place) for place in range(calls)))
    finally:
        for worker in workers:
            await worker.close()
        await database.close()
    assert strict.refused <= calls // 100


class ByTheWindow:
    """A provider whose minute begins anew for everybody at once."""

    def __init__(self, limit: int) -> None:
        self._limit, self._window, self._used = limit, -1, 0
        self.refused = 0

    def take(self) -> None:
        """Count a call."""
        window = int(time.monotonic() / _MINUTE_S)
        self._window, self._used = window, self._used + 1 if window == self._window else 1
        self.refused += self._used > self._limit


class ByTheBucket:
    """A provider that gives a minute's limit out evenly: a bucket of a sixtieth of it, or of another part."""

    def __init__(self, limit: int, part: float) -> None:
        self._limit, self._size = limit, max(1.0, part * limit)
        self._left, self._at = self._size, time.monotonic()
        self.refused = 0

    def take(self) -> None:
        """Count a call."""
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._at) * self._limit / _MINUTE_S)
        self._at = now
        if self._left < 1:
            self.refused += 1
        else:
            self._left -= 1


@pytest.mark.parametrize(
    "provider",
    [ByTheWindow(300), ByTheBucket(300, 1 / 30), ByTheBucket(300, 1.0)],
    ids=["a window", "a small bucket", "a bucket of a minute"],
)
async def test_one_budget_suits_providers_that_count_otherwise(
    database_url: str, provider: ByTheWindow | ByTheBucket
) -> None:
    """Whether a minute slides, begins anew or is given out evenly, one call in a hundred at most is refused."""
    database = Database(database_url, size=2)
    workers = [pacer(database, Limits(requests=300)) for _ in range(2)]

    async def call(place: int) -> None:
        async with workers[place % 2].turn(_unnoted) as taken:
            provider.take()
            taken.called, taken.used = True, 100.0

    try:
        await asyncio.gather(*(call(place) for place in range(400)))
    finally:
        for worker in workers:
            await worker.close()
        await database.close()
    assert provider.refused <= 4


async def test_a_job_that_waits_for_pacing_spends_no_attempt(start_stage: Starter, database: Pool) -> None:
    """It is postponed after a while; nothing of it is on record, and no call was made."""
    strict = Limiter(1_000, 10**9)
    async with offline_endpoint(strict) as endpoint:
        stage = await start_stage(
            openai_base_url=endpoint.base_url, llm_requests_per_minute=1, stage_timeout_s=0.5, retry_base_s=0.1
        )
        with pytest.raises(Postponed):
            await stage.handle(accepted())
        assert (await endpoint.calls())["received"] == 0
    assert not await database.fetchval("SELECT count(*) FROM generation_attempts")


async def test_limits_are_learned_from_answers(start_stage: Starter, database: Pool) -> None:
    """After a few answers that agree, calls are paced by what they state."""
    strict = Limiter(600, 10**9)
    async with offline_endpoint(strict) as endpoint:
        stage = await start_stage(openai_base_url=endpoint.base_url)
        for _ in range(3):
            await stage.handle(accepted())
        assert not await database.fetchval("SELECT count(*) FROM llm_pace")
        await asyncio.gather(*(stage.handle(accepted()) for _ in range(5)))
    assert await database.fetchval("SELECT requests_per_minute FROM llm_pace") == 600


_SENSELESS = [
    {"x-ratelimit-limit-requests-minute": "1", "x-ratelimit-remaining-requests-minute": "1"},
    {"ratelimit-policy": '"a";q=2;w=60', "ratelimit": '"a";r=1;t=60'},
    {"x-ratelimit-limit-tokens": "5", "x-ratelimit-remaining-tokens": "4", "x-ratelimit-reset-tokens": "12s"},
    {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "0"},
    {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"},
    {"x-ratelimit-limit-tokens": "5", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "50ms"},
    {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "50ms"},
    {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "NaN", "x-ratelimit-reset-requests": "1s"},
    {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0.5", "x-ratelimit-reset-requests": "1h"},
    {"x-ratelimit-limit-requests": "1e400", "x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "60"},
]


@pytest.mark.parametrize("headers", _SENSELESS)
async def test_senseless_headers_of_answers_do_not_shut_the_fleet(
    start_stage: Starter, endpoint: Endpoint, database: Pool, headers: dict[str, str]
) -> None:
    """All jobs complete, and after a few answers the gate stays open."""
    stage = await start_stage()
    endpoint.headers.update(headers)
    one = stage.wrapped()
    for _ in range(8):
        event = accepted()
        assert await one.process(Delivery("job-accepted", event.key, event.encode()))
    assert await completed(database) == 8
    assert not stage.line.gate.is_closed
