"""Every command that the transport sends, times every error that a server, or what stands before it, may answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any

import faust
import pytest
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import ResponseError
from yarl import URL

from streams.redis.server import script_digest, script_text
from tests.conformance.brokers import Broker, RedisBroker, valkey
from tests.conformance.harness import Bench, transport_of
from tests.integration.redis_transport.conftest import Client
from tests.resp_proxy import CUT, HALF, LOST, PUSHED, RAW, RespProxy
from tests.waiting import wait_for

SCRIPTS = {
    script_digest(script_text(path.name.removesuffix(".lua"))): path.name.removesuffix(".lua")
    for path in (Path(str(files("streams.redis"))) / "scripts").glob("*.lua")
}
LOCK = {
    script_digest(text): f"lock {name}"
    for name, text in (("release", Lock.LUA_RELEASE_SCRIPT), ("reacquire", Lock.LUA_REACQUIRE_SCRIPT))
}

COMMANDS = (
    "CLIENT ID",
    "CLIENT UNBLOCK",
    "EVAL acknowledge",
    "EVALSHA acknowledge",
    "EVALSHA hand_back",
    "EVALSHA lock reacquire",
    "EVALSHA lock release",
    "EVALSHA remove_consumers",
    "EVALSHA renew_lease",
    "EVALSHA trim",
    "EXISTS",
    "PEXPIRE",
    "PTTL",
    "SELECT",
    "SET",
    "XADD",
    "XCLAIM",
    "XGROUP CREATE",
    "XPENDING",
    "XREAD",
    "XREADGROUP",
)
# The other scripts are sent as EVAL in the same way when the server has forgotten them, and not in each run.
_AS_EVAL = {f"EVAL {name}" for name in (*SCRIPTS.values(), *LOCK.values())}

ERRORS = (
    b"READONLY You can't write against a read only replica.",
    b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    b"NOGROUP No such key or consumer group",
    b"LOADING Redis is loading the dataset in memory",
    b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"CLUSTERDOWN The cluster is down",
    b"TRYAGAIN Multiple keys request during rehashing of slot",
    b"MOVED 3999 127.0.0.1:1",
    b"MOVED",
    b"NOREPLICAS Not enough good replicas to write.",
    b"OOM command not allowed when used memory > 'maxmemory'.",
    b"MISCONF Errors writing to the AOF file: No space left on device",
    b"NOPERM User worker has no permissions to run this command",
    b"NOAUTH Authentication required.",
    b"NOSCRIPT No matching script.",
    b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    b"WRONGTYPE Operation against a key holding the wrong kind of value",
    b"ERR unknown command, with args beginning with: 'x'",
    b"SURPRISE nobody has heard of this one",
    b"ERR max number of clients reached",
    b"WRONGPASS invalid username-password pair or user is disabled.",
    b"ERR Error running script (call to f_3f3a): @user_script:1: -READONLY You can't write against a replica.",
    b"ERR max requests limit exceeded. Limit: 500000, Usage: 500001.",
    CUT,
    LOST,
    # No errors, and no answers either: of a service that does not wait, of one that speaks something else, of one that
    # stops in the middle, of one that says more than it was asked.
    _NOTHING := RAW + b"*-1\r\n",
    RAW + b":1\r\n",
    RAW + b"HTTP/1.1 400 Bad Request\r\n\r\n",
    HALF,
    PUSHED,
)

# By these an entry is settled for good.
_SETTLING = ("XADD", "EVALSHA acknowledge", "EVAL acknowledge")
_ODD = (RAW + b":1\r\n", RAW + b"+OK\r\n", RAW + b"*1\r\n:1\r\n")

_MOST_PER_S = 400  # commands of two members: a loop that spins sends thousands
_RECOVERY_S = 5.0
_AT_ONCE = 6  # fleets, where nothing else uses the machine
_FEW_AT_ONCE = 3
_FAILING_S = 0.6  # the time in which a loop could spin
_PATIENCE_S = (
    2.0,
    4.0,
    8.0,
)  # with a member that is to lead, or to get work, before it leaves: the first is enough mostly


# What was written and not read is given to a worker that is dead for long: the last entry for the third time, which is
# one too many.
_LEFT_BEHIND = """
redis.call('XADD', KEYS[1], '*', 'event', ARGV[2])
local poison = redis.call('XADD', KEYS[1], '*', 'event', ARGV[3])
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], 'dead', 'COUNT', 1000, 'STREAMS', KEYS[1], '>')
for _, entry in ipairs(read[1][2]) do
  local times = entry[1] == poison and 3 or 1
  redis.call('XCLAIM', KEYS[1], ARGV[1], 'dead', 0, entry[1], 'IDLE', 60000, 'RETRYCOUNT', times, 'JUSTID')
end
"""


class Fleet:
    """One or two members of a group behind a proxy, and what they have been given."""

    def __init__(self, bench: Bench, proxy: RespProxy, redis: Client) -> None:
        self.bench, self.proxy, self.redis = bench, proxy, redis
        self.group = f"workers-{bench.number}"
        self.sent: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.poisons = 0
        self.members: list[faust.App] = []

    async def join(self) -> None:
        """Start another member."""
        app = self.bench.app()
        app.conf.topic_disable_leader = False

        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                if event.value.startswith(b"slow"):
                    await asyncio.sleep(0.4)
                self.seen.add(event.value)
                event.ack()

        app.agent(self.bench.topic(app), name="agent", concurrency=4)(agent)
        self.members.append(app)
        await app.start()

    async def leave(self, *, patience_s: float = 2.0) -> None:
        """Stop the leader, or the oldest member if there is none, in the middle of its work if it gets any."""
        for _ in range(8):
            await self.send("slow")
        with suppress(AssertionError):
            await wait_for(self._is_led, deadline_s=patience_s, what="a leader")
        leaving = next((member for member in self.members if member.is_leader()), self.members[0])
        self.members.remove(leaving)
        consumer: Any = leaving.consumer
        with suppress(AssertionError):
            await wait_for(lambda: len(consumer.under_way), deadline_s=patience_s / 4, what="work")
        await leaving.stop()

    def _is_led(self) -> bool:
        return any(member.is_leader() for member in self.members)

    async def send(self, kind: str) -> bytes:
        """Write an entry straight into the server."""
        event = f"{kind}-{len(self.sent)}".encode()
        self.sent.add(event)
        await self.redis.xadd(self.bench.topic_name, {"event": event})
        return event

    async def turmoil(self) -> None:
        """Give a reason to send every command there is."""
        await self.redis.script_flush()
        await self.redis.persist(f"{self.group}:leader")
        for number in range(3):
            await self.send("quick" if number else "slow")
        expired = f"expired-{len(self.sent)}".encode()
        self.sent.add(expired)
        # The group may be missing: the member that is to create it cannot.
        with suppress(ResponseError):
            await self.redis.eval(_LEFT_BEHIND, 1, self.bench.topic_name, self.group, expired, b"poison")
            self.poisons += 1

    async def cell(self, command: str, error: bytes) -> None:
        """Have one command answered so while a member starts, all work and the other stops; then all must be well."""
        proxy, cell = self.proxy, f"{command} × {error!r}"
        proxy.answers = {command: error}
        before = proxy.answered[command]
        # On a busy machine a member may leave without having got to what would make it send the command.
        for patience_s in _PATIENCE_S:
            rate = await self._suffer(patience_s)
            assert rate < _MOST_PER_S, f"{cell}: {rate:.0f} commands a second"
            if proxy.answered[command] > before:
                break
        proxy.answers = {}
        proxy.times.clear()
        last = await self.send("quick")
        await _within(_RECOVERY_S, lambda: last in self.seen, what=f"{cell}: an event")
        await wait_for(lambda: self.sent <= self.seen, deadline_s=15, what=f"{cell}: all events")
        await wait_for(self._is_settled, deadline_s=30, what=f"{cell}: every acknowledgement and dead letter")
        (member,) = self.members
        await wait_for(lambda: _is_green(member), what=f"{cell}: a green light")
        assert not member.crashed, cell
        assert not member.consumer.crashed, cell
        assert proxy.answered[command] > before, f"{cell}: never sent; `turmoil` must give a reason to"

    async def _is_settled(self) -> bool:
        """Return whether no entry is held any more, and what is to be buried is."""
        buried = await self.redis.xlen(f"dead-{self.bench.number}")
        pending = (await self.redis.xpending(self.bench.topic_name, self.group))["pending"]
        assert (buried >= self.poisons, pending) == (True, 0), f"{buried} of {self.poisons} buried, {pending} pending"
        return True

    async def _suffer(self, patience_s: float) -> float:
        """Start a member, have all work, stop the other; return how many commands a second they sent."""
        self.proxy.cut()
        await self.join()
        await self.turmoil()
        begun = monotonic()
        while monotonic() < begun + _FAILING_S:
            await self.redis.persist(f"{self.group}:leader")
            await asyncio.sleep(0.05)
        rate = sum(1 for at in self.proxy.times if at >= begun) / (monotonic() - begun)
        await asyncio.wait_for(self.leave(patience_s=patience_s), 15 + patience_s)
        return rate


async def _within(seconds: float, condition: Callable[[], bool], *, what: str) -> None:
    """Wait until a condition is true, for so long as counted by this process's own turns.

    Where others use the machine, everybody here waits for a processor, and a second of the clock is less than one of
    work: what must be quick is held to the time that it really had.
    """
    turn_s = 0.02
    for _ in range(int(seconds / turn_s)):
        if condition():
            return
        await asyncio.sleep(turn_s)
    raise AssertionError(f"gave up waiting for {what} after {seconds:g} s")


def _is_green(member: faust.App) -> bool:
    assert transport_of(member).health() == []
    return True


@asynccontextmanager
async def fleet(bench: Bench, redis: Client) -> AsyncIterator[Fleet]:
    """A fleet of one member, behind a proxy before the server."""
    assert isinstance(bench.broker, RedisBroker)
    port = URL(bench.broker.address).port
    assert port is not None
    bench.settings.update(
        lease="600ms", scan="100ms", block="300ms", timeout="1s", leader_ttl="600ms", trim_interval="100ms",
        retention="0s", max_deliveries="3", drain="100ms", dead_letter_topic=f"dead-{bench.number}",
    )  # fmt: skip
    async with RespProxy(port, {**SCRIPTS, **LOCK}).listening() as proxy:
        bench.broker = RedisBroker("proxied", f"redis://127.0.0.1:{proxy.port}/1")
        found = Fleet(bench, proxy, redis)
        try:
            await found.join()
            yield found
        finally:
            proxy.answers = {}
            for member in found.members:
                await member.stop()


def second_database(broker: Broker) -> Client:
    """A client of a database other than the first, so that members must select theirs."""
    assert isinstance(broker, RedisBroker)
    return Redis.from_url(broker.address.replace("/0", "/1"))


@pytest.fixture
async def redis(broker: Broker) -> AsyncIterator[Client]:
    """A client of the fleet's database."""
    async with second_database(broker) as client:
        yield client


async def test_the_table_has_every_command(bench: Bench, redis: Client) -> None:
    """What two members send while everything happens that can happen is what the table below is made of."""
    async with fleet(bench, redis) as members:
        for _ in range(3):
            members.proxy.cut()
            await members.join()
            await members.turmoil()
            await wait_for(lambda: members.sent <= members.seen, what="all events")
            await members.leave()
        await wait_for(
            lambda: set(COMMANDS) <= set(members.proxy.seen),
            what=f"{set(COMMANDS) - set(members.proxy.seen)}",
        )
    assert set(members.proxy.seen) - set(COMMANDS) - _AS_EVAL == set()


async def meet(folder: Path, parts: Sequence[Sequence[tuple[str, bytes]]]) -> None:
    """Have a fleet go through each part of the table. Most of a cell is waiting, so the fleets share the time.

    Each has its server: one that makes a server forget its scripts would have another find them loaded again, or gone
    once more.
    """

    async def one(broker: Broker, cells: Sequence[tuple[str, bytes]]) -> None:
        async with second_database(broker) as redis, fleet(Bench(broker, folder), redis) as members:
            for command, error in cells:
                await members.cell(command, error)

    with ExitStack() as servers:
        fleets = [one(servers.enter_context(valkey()), cells) for cells in parts]
        for failure in filter(None, await asyncio.gather(*fleets, return_exceptions=True)):
            raise failure


async def test_no_answer_ends_a_worker(tmp_path: Path) -> None:
    """A cross-section of the table, in which each command and each error comes: workers live and lose nothing."""
    most = max(len(COMMANDS), len(ERRORS))
    cells = [(COMMANDS[number % len(COMMANDS)], ERRORS[number % len(ERRORS)]) for number in range(most)]
    # Of a proxy that passes on no BLOCK: it must not be asked again at once.
    cells.append(("XREADGROUP", _NOTHING))
    # A reply that is not the server's confirms nothing.
    cells += [(command, answer) for command in _SETTLING for answer in _ODD]
    await meet(tmp_path, [cells[part::_FEW_AT_ONCE] for part in range(_FEW_AT_ONCE)])


@pytest.mark.chaos
@pytest.mark.parametrize("command", COMMANDS)
async def test_no_answer_to_any_command_ends_a_worker(tmp_path: Path, command: str) -> None:
    """The whole table: workers live, consume within five seconds of the last error, lose nothing and do not spin."""
    await meet(tmp_path, [[(command, error) for error in ERRORS[part::_AT_ONCE]] for part in range(_AT_ONCE)])
