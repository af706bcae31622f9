"""The claim to be the leader, by itself."""

import asyncio

from redis.asyncio import Redis

from streams.redis.health import Health
from streams.redis.leader import Leader
from tests.stepped_clock import Clock
from tests.waiting import wait_for


async def test_a_leader_that_resigned_does_not_come_back(redis_url: str) -> None:
    """A worker on its way out must not take again the lock that it gave back, though its loop still turns."""
    async with Redis.from_url(redis_url) as redis:
        leaving, staying = (Leader(redis, "group:leader", 0.2, Health()) for _ in range(2))
        loop = asyncio.create_task(leaving.run())
        await wait_for(lambda: leaving.is_leader, deadline_s=5, what="a leader")
        await leaving.resign()
        async with asyncio.timeout(5):
            await loop
        assert not leaving.is_leader
        assert not await redis.exists("group:leader")
        other = asyncio.create_task(staying.run())
        await wait_for(lambda: staying.is_leader, deadline_s=5, what="the next leader")
        await staying.resign()
        await other


async def test_a_dead_leaders_lock_does_not_last_because_the_servers_clock_was_set_back(redis_url: str) -> None:
    """The clock goes back by an hour after the leader's last sign of life: another leads soon, not in an hour."""
    async with Redis.from_url(redis_url) as redis:
        await redis.set("group:leader", "a dead leader's token", px=3_600_000)
        next_leader = Leader(redis, "group:leader", 0.2, Health())
        loop = asyncio.create_task(next_leader.run())
        await wait_for(lambda: next_leader.is_leader, deadline_s=5, what="the next leader")
        await next_leader.resign()
        await loop


async def test_a_leader_knows_that_it_is_none_before_another_can_be(redis_url: str, clock: Clock) -> None:
    """A worker that stalls for nine tenths of its lock's time leads no longer, though the server still has the lock."""
    async with Redis.from_url(redis_url) as redis:
        leader = Leader(redis, "group:leader", 600.0, Health(), clock=clock)
        loop = asyncio.create_task(leader.run())
        await wait_for(lambda: leader.is_leader, deadline_s=5, what="a leader")
        clock.now += 539.0
        assert leader.is_leader
        clock.now += 2.0
        assert not leader.is_leader
        assert await redis.exists("group:leader")
        leader.wake()
        await wait_for(lambda: leader.is_leader, deadline_s=5, what="the lock to be renewed")
        await leader.resign()
        leader.wake()
        await loop


async def test_who_asks_for_a_leader_is_heard_for_as_long_as_a_lock_lasts(redis_url: str, clock: Clock) -> None:
    """Where no timer needs one, nobody takes the lock until an entry is to be tried, and not for ever after."""
    async with Redis.from_url(redis_url) as redis:
        leader = Leader(redis, "group:leader", 600.0, Health(), lambda: False, clock)
        loop = asyncio.create_task(leader.run())
        assert not leader.ask()
        await wait_for(leader.ask, deadline_s=5, what="a leader")
        await redis.delete("group:leader")
        clock.now += 601.0
        leader.wake()
        assert not leader.is_leader
        await leader.resign()
        leader.wake()
        await loop
        assert not await redis.exists("group:leader"), "nobody has asked since"
