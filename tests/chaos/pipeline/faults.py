"""The faults: what each does to a system, and how it is undone.

A fault is a context manager: entering does the damage, leaving repairs it as a supervisor or an operator would. The
harness holds it for `hold_s` in between, while new requests keep coming in.
"""

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from infra.local.processes import ServerFailed
from tests.chaos.pipeline.clock_steps import everything, no_clocks, one_of_each, schedule, server, step
from tests.chaos.pipeline.flushes import flushed, letters_flushed
from tests.chaos.pipeline.grounds import Ground
from tests.chaos.pipeline.pauses import paused_and_killed
from tests.chaos.pipeline.rough import (
    broker_rough,
    combined,
    failed_over,
    killed,
    made_replica,
    postgres_rough,
    promoted_behind,
    streams_mangled,
    webhooks_flushed,
)
from tests.chaos.pipeline.system import Inject, System
from tests.chaos.pipeline.teamfit import LEASE_S


@dataclass(frozen=True)
class Fault:
    """One row of the scoreboard.

    Attributes:
        name: what `FAULT=` takes.
        title: what a reader sees.
        inject: given the system and how often it was injected before.
        hold_s: how long it lasts; 0 for what is over at once.
        times: how often it is injected, unless `TIMES=` says otherwise. A row that takes turns has each of its turns
            at least twice; a row that is slow has fewer than the rest.
        fleets: how many fleets share its injections, since each takes long; their stages share a process.
        anchored: jobs may be lost that the database does not know yet, so the harness waits until it knows them, and
            sends only by ways in that are durable at once meanwhile (DESIGN 5.6).
        crowd: how many jobs an anchored row sends before each injection: more than the fleet has slots, so that runs
            wait.
        ground: what it needs beyond the servers.
        baseline: what takes its place when the Celery design is hit by it; None if it does not apply there.
        told: whether the row's organization has a receiver of webhooks, which flaps while the row lasts.
        skipped: why this machine cannot inject it, or None.
    """

    name: str
    title: str
    inject: Inject
    hold_s: float = 0.0
    times: int = 20
    fleets: int = 1
    anchored: bool = False
    crowd: int = 90
    ground: Ground = Ground.PLAIN
    baseline: Inject | None = None
    told: bool = False
    skipped: Callable[[System], str | None] = lambda _system: None


def _kill(kind: str) -> Inject:
    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        # In turn, so that the other one takes over while this one starts.
        part = system.parts(kind)[turn % 2]
        await asyncio.to_thread(system.kill, part)
        yield
        await asyncio.to_thread(system.start, part)

    return inject


def _stall(*kinds: str) -> Inject:
    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        pids = [system.pid(system.parts(kind)[turn % 2]) for kind in kinds]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    return inject


@asynccontextmanager
async def _valkey_killed(system: System, _turn: int) -> AsyncIterator[None]:
    await asyncio.to_thread(system.grounds.valkey.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(system.grounds.valkey.restart)


@asynccontextmanager
async def _postgres_killed(system: System, _turn: int) -> AsyncIterator[None]:
    await asyncio.to_thread(system.grounds.postgres.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(system.grounds.postgres.restart)


@asynccontextmanager
async def _two_leaders(system: System, _turn: int) -> AsyncIterator[None]:
    # Without its lock the leader believes itself to be one until it next renews, and another worker becomes one too.
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        await redis.delete("schedule:leader")
    yield


@asynccontextmanager
async def _slow_postgres(system: System, _turn: int) -> AsyncIterator[None]:
    system.grounds.database.delay_s = 0.1
    try:
        yield
    finally:
        system.grounds.database.delay_s = 0.0


def _reset(proxy: str) -> Inject:
    @asynccontextmanager
    async def inject(system: System, _turn: int) -> AsyncIterator[None]:
        getattr(system.grounds, proxy).reset()
        yield

    return inject


def _black_hole(proxy: str) -> Inject:
    @asynccontextmanager
    async def inject(system: System, _turn: int) -> AsyncIterator[None]:
        getattr(system.grounds, proxy).swallow()
        try:
            yield
        finally:
            getattr(system.grounds, proxy).pass_on()

    return inject


@asynccontextmanager
async def _flapping_llm(system: System, _turn: int) -> AsyncIterator[None]:
    """Turn the endpoint off and on again, each time in another way, until the fault is over."""

    async def flap() -> None:
        for mode in itertools.cycle(("503", "ok", "reset", "ok", "429", "ok")):
            await system.llm(mode=mode)
            await asyncio.sleep(_FLAP_S)

    flapping = asyncio.create_task(flap())
    try:
        yield
    finally:
        flapping.cancel()
        await asyncio.gather(flapping, return_exceptions=True)
        await system.llm(mode="ok")


def _llm(*orders: dict[str, Any]) -> Inject:
    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        await system.llm(**orders[turn % len(orders)])
        try:
            yield
        finally:
            await system.llm(mode="ok")

    return inject


@asynccontextmanager
async def _disk_full(system: System, _turn: int) -> AsyncIterator[None]:
    disk = system.grounds.disk
    assert disk is not None
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:  # until there is no room for another byte
            file.write(bytes(max(4096, shutil.disk_usage(disk).free // 8)))
    try:
        yield
    finally:
        ballast.unlink()
        # When it cannot write its log Postgres ends, and a supervisor starts it again.
        await asyncio.to_thread(_revive, system)


def _revive(system: System) -> None:
    postgres = system.grounds.postgres
    for _ in range(3):
        if postgres.running:
            return
        with suppress(ServerFailed):
            postgres.restart()


def _no_small_disk(system: System) -> str | None:
    return None if system.grounds.disk else "making a small file system needs root and mount(2)"


_WORKER = "worker"
_PAST_LEASE_S = LEASE_S * 1.6
_FLAP_S = 0.3
_OBEYED_S = 2.5  # every process obeys an operator within 2 s
_PAST_PUBLISHING_S = 6.5  # another dispatcher publishes what one has released and not published after 5 s
_STEPPED_S = 1.5  # long enough for leases to be renewed, retries to become due and the reconciler to look

FAULTS: Sequence[Fault] = (
    Fault("kill-api", "kill -9 of an API process", _kill("api")),
    Fault("kill-quota", "kill -9 of a quota worker", _kill("quota")),
    Fault("kill-generation", "kill -9 of a generation worker", _kill("generation"), baseline=_kill(_WORKER)),
    Fault("kill-projection", "kill -9 of a projection worker", _kill("projection")),
    Fault("kill-failures", "kill -9 of a failures worker", _kill("failures")),
    Fault("kill-schedule", "kill -9 of a schedule worker", _kill("schedule")),
    Fault(
        "kill-webhooks",
        "kill -9 of a webhooks worker while a receiver of webhooks flaps",
        _kill("webhooks"),
        hold_s=0.5,
        told=True,
    ),
    Fault(
        "flushall-webhooks",
        "FLUSHALL and kill -9 of a webhooks worker while a receiver of webhooks flaps",
        webhooks_flushed,
        anchored=True,
        times=4,
        told=True,
    ),
    Fault(
        "paused-killed",
        "a stage paused, kill -9 of its workers, which start again while it is paused; then resumed (in turn)",
        paused_and_killed,
        hold_s=_OBEYED_S,
        times=12,
    ),
    Fault(
        "stall-generation",
        "SIGSTOP of a generation worker past its lease, then SIGCONT",
        _stall("generation"),
        hold_s=_PAST_LEASE_S,
    ),
    Fault(
        "stall-quota", "SIGSTOP of a quota worker past its lease, then SIGCONT", _stall("quota"), hold_s=_PAST_LEASE_S
    ),
    Fault("valkey-restart", "Valkey killed, restarted with its AOF", _valkey_killed, baseline=_valkey_killed),
    Fault("flushall", "FLUSHALL", flushed, anchored=True, baseline=flushed),
    Fault("flushall-letters", "FLUSHALL with unread dead letters", letters_flushed, anchored=True),
    Fault("valkey-away", "Valkey away for 60 s", _valkey_killed, hold_s=60, fleets=2),
    Fault("broker-reset", "connections to Valkey reset", _reset("broker")),
    Fault("broker-black-hole", "Valkey black-holed", _black_hole("broker"), hold_s=1.5),
    Fault("postgres-restart", "Postgres killed and restarted", _postgres_killed, baseline=_postgres_killed),
    Fault("postgres-away", "Postgres away for 60 s", _postgres_killed, hold_s=60, fleets=2, baseline=_postgres_killed),
    Fault("postgres-slow", "Postgres slow (100 ms on every answer)", _slow_postgres, hold_s=1.5),
    Fault("postgres-reset", "connections to Postgres reset", _reset("database")),
    Fault("postgres-black-hole", "Postgres black-holed", _black_hole("database"), hold_s=1.5),
    Fault("disk-full", "disk full for Postgres", _disk_full, hold_s=1.0, skipped=_no_small_disk),
    Fault(
        "llm-429",
        "LLM answers 429",
        _llm({"mode": "429", "retry_after": 0.5}),
        hold_s=1.0,
        baseline=_llm({"mode": "429", "retry_after": 0.5}),
    ),
    Fault("llm-500", "LLM answers 500", _llm({"mode": "500"}), hold_s=1.0, baseline=_llm({"mode": "500"})),
    Fault(
        "llm-slow",
        "LLM slow (3 s, and 6 s with a limit of 4 s)",
        _llm({"mode": "slow", "latency": 3}, {"mode": "slow", "latency": 6}),
        hold_s=0.5,
    ),
    Fault("llm-flapping", "LLM away and back every 0.3 s, each time in another way", _flapping_llm, hold_s=2.0),
    Fault("llm-rubbish", "LLM answers rubbish", _llm({"mode": "rubbish"}), hold_s=1.0),
    Fault("two-leaders", "two leaders at once", _two_leaders),
    Fault("replica", "Valkey made a replica, and a master again 3 s later", made_replica, hold_s=3.0, times=10),
    Fault(
        "sentinel-failover",
        "SENTINEL FAILOVER, the old master alive and its replica afterwards",
        failed_over,
        hold_s=1.0,
        times=10,
        anchored=True,
        ground=Ground.SENTINEL,
    ),
    Fault(
        "promoted-behind",
        "a replica promoted without the last second's writes",
        promoted_behind,
        hold_s=1.0,
        anchored=True,
        times=6,
    ),
    Fault(
        "streams-mangled",
        "every stream trimmed to nothing, deleted, without groups, read from 0 again, of a wrong type (in turn)",
        streams_mangled,
        hold_s=1.0,
        anchored=True,
        times=10,
    ),
    Fault(
        "broker-rough",
        "scripts and clients of Valkey gone, its memory full, clients paused (in turn)",
        broker_rough,
        hold_s=1.5,
        times=12,
    ),
    Fault(
        "postgres-rough",
        "Postgres read-only, tables locked, backends terminated (in turn)",
        postgres_rough,
        hold_s=1.5,
        times=12,
    ),
    Fault(
        "kill-dispatchers",
        "kill -9 of a quota, a generation and a schedule worker while runs wait for their turn",
        killed("quota", "generation", "schedule"),
        anchored=True,
        crowd=200,
        times=10,
    ),
    Fault(
        "two-dispatchers",
        "SIGSTOP of a quota and a schedule worker until others dispatch for them, then SIGCONT, while runs wait",
        _stall("quota", "schedule"),
        hold_s=_PAST_PUBLISHING_S,
        anchored=True,
        crowd=200,
        times=6,
    ),
    Fault(
        "postgres-waiting",
        "Postgres killed and restarted while 5,000 runs wait",
        _postgres_killed,
        anchored=True,
        crowd=5_000,
        times=2,
    ),
    Fault("flushall-waiting", "FLUSHALL while 5,000 runs wait", flushed, anchored=True, crowd=5_000, times=2),
    Fault(
        "combined",
        "Valkey and two workers killed with the backends; FLUSHALL with projection and schedule killed (in turn)",
        combined,
        anchored=True,
        times=6,
    ),
    *(
        Fault(
            f"clock-{name}",
            f"clock stepped, of {whose}",
            step(*groups),
            hold_s=_STEPPED_S,
            ground=Ground.OWN_CLOCKS,
            skipped=no_clocks,
        )
        for name, whose, groups in (
            (
                "workers",
                "one of each worker and the API, or of the schedule",
                (schedule, one_of_each(0), one_of_each(1)),
            ),
            ("valkey", "Valkey", (server("valkey"),)),
            ("postgres", "Postgres", (server("postgres"),)),
            ("machine", "everything at once", (everything,)),
        )
    ),
)
