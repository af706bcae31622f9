"""`python -m infra.bench.invoice` holds the pipeline's books against the invoice of the LLM's provider.

Two offline endpoints answer, streamed and whole; meanwhile they fail, cut connections and go away, and workers are
killed.
It exits with 1 where the books differ from the invoice by a token or a micro-unit.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiosql
from pydantic import BaseModel, TypeAdapter
from rich.console import Console

from infra.bench.books import Balance, Call, Price, balance
from infra.local.llm.misbehaviour import Line, Mode, Order, Tally
from infra.local.llm.server import MODEL
from infra.local.organizations import BIRCH
from infra.local.processes import HOST, free_port
from infra.local.stack import WORKERS, Stack
from infra.postgres import Connection, Database
from infra.settings import Settings
from producers.client import JobRequests, Request

_queries = aiosql.from_path(Path(__file__).with_name("invoice.sql"), "asyncpg")

_PRICE: Final = Price(input=150_000, output=600_000)
_KILLED: Final = ("generation", "generation-2")
_POLL_S: Final = 0.1
_DEADLINE_S: Final = 240.0  # a probe whose worker is killed is made again after a minute
_DEADLINE_PER_JOB_S: Final = 0.2
_MORE: Final = 4  # jobs


@dataclass(frozen=True)
class _Fault:
    """Something goes wrong when this part of the jobs has ended: an endpoint gets an order, or a worker is killed."""

    at: float
    which: int
    order: Order | None = None


_FAULTS: Final = (
    _Fault(0.05, 0, Order(mode=Mode.SERVER_ERROR, count=5)),
    _Fault(0.10, 1, Order(mode=Mode.CUT, count=3)),
    _Fault(0.15, 0),
    _Fault(0.25, 0, Order(mode=Mode.RUBBISH, count=3)),
    _Fault(0.30, 1, Order(mode=Mode.RESET, count=3)),
    _Fault(0.40, 0, Order(mode=Mode.UNAVAILABLE)),
    _Fault(0.55, 0, Order()),
    _Fault(0.60, 1, Order(mode=Mode.NO_STREAM)),
    _Fault(0.70, 1),
    _Fault(0.75, 0, Order(mode=Mode.TWO_ACTIVITIES, count=3)),
    _Fault(0.80, 1, Order(mode=Mode.CUT, count=3)),
    _Fault(0.90, 0, Order(mode=Mode.STREAM_WITHOUT_USAGE, count=2)),
)


class _Told(BaseModel):
    mode: Mode
    remaining: int | None
    calls: Tally


class InvoiceReport(BaseModel):
    """The result of a run. `by_endpoint`: calls on each invoice; `met`: how the endpoints met calls."""

    jobs: int
    seconds: float
    by_endpoint: list[int]
    streamed: int
    met: dict[str, int]
    probes: int
    balance: Balance


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.invoice", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs to send (default 2000)")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that an answer takes (default 0.2)")
    options = parser.parse_args()
    report = run(options.jobs, latency_s=options.latency)
    books = report.balance
    print(report.model_dump_json(indent=2))
    print(
        f"{books.unknown_calls} calls of unknown cost, held at {books.unknown_cost}; {books.unbilled_calls} not billed",
        file=sys.stderr,
    )
    return 1 if report.balance.differences else 0


def run(jobs: int, *, latency_s: float = 0.2, slots: int = 25) -> InvoiceReport:
    """Send so many jobs while much goes wrong, and compare the books.

    It blocks, and runs event loops of its own.
    """
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, _providers(latency_s) as ports:
        path = Path(folder) / "endpoints.json"
        listed = [
            {"name": f"endpoint-{port}", "base_url": f"http://{HOST}:{port}/v1", "key": "offline", "model": MODEL}
            for port in ports
        ]
        path.write_text(json.dumps({"endpoint": listed}))
        settings = Settings(
            _env_file=None, llm_endpoints=str(path), generation_concurrency=slots, retry_base_s=0.2, max_attempts=5
        )
        with Stack(
            settings,
            parts=(*WORKERS, "generation-2"),
            broker_parameters="lease=2s",
            durable=False,
            report=lambda step: progress.print(f"{step} …"),
        ) as stack:
            return asyncio.run(_measure(stack, ports, jobs))


@contextmanager
def _providers(latency_s: float) -> Iterator[list[int]]:
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "infra.local.llm", "--latency", str(latency_s), "--port"]
    running = [subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL) for port in ports]  # noqa: S603 - our own module
    try:
        yield ports
    finally:
        for provider in running:
            provider.terminate()
            provider.wait()


async def _measure(stack: Stack, ports: Sequence[int], jobs: int) -> InvoiceReport:
    database = Database(stack.settings.database_url, size=1)
    began = time.monotonic()
    try:
        async with database.transaction() as connection:
            await _queries.set_price(connection, model=MODEL, input_price=_PRICE.input, output_price=_PRICE.output)
        async with JobRequests.connect(stack.settings.broker_url, source="bench") as requests:
            await _send(requests, range(jobs))
            sent = await _go_wrong(stack, database, ports, requests, jobs)
        tallies = [(await _told(port)).calls for port in ports]
        invoices = [TypeAdapter(list[Line]).validate_json(await _ask(port, "/invoice")) for port in ports]
        invoice = [line for lines in invoices for line in lines]
        async with database.transaction() as connection:
            calls = [Call(**row) async for row in _queries.calls(connection)]
            result = balance(calls, invoice, _PRICE)
            result.differences.extend(await _wrong_totals(connection, calls))
    finally:
        await database.close()
    return InvoiceReport(
        jobs=sent,
        seconds=round(time.monotonic() - began, 1),
        by_endpoint=[len(lines) for lines in invoices],
        streamed=sum(line.streamed for line in invoice),
        met=dict(sum((Counter(tally.by_mode) for tally in tallies), Counter())),
        probes=sum(tally.answered for tally in tallies) - len(invoice),
        balance=result,
    )


async def _send(requests: JobRequests, numbers: range) -> int:
    """Send jobs whose wishes have these numbers, by which the invoice knows them; return how many."""
    jobs = (
        Request(
            organization_id=BIRCH.id,
            team_id=BIRCH.team.id,
            requirements=f"An hour outdoors, invoice line {number}.",
        )
        for number in numbers
    )
    return len(await requests.submit_many(jobs))


async def _go_wrong(stack: Stack, database: Database, ports: Sequence[int], requests: JobRequests, jobs: int) -> int:
    """Let each fault happen in its turn, until all jobs have ended and no call is under way; return their number.

    While an endpoint is held after one fault, the other may end all jobs before the next fault has been met: then more
    are sent.
    """
    deadline = time.monotonic() + _DEADLINE_S + _DEADLINE_PER_JOB_S * jobs
    faults = list(_FAULTS)
    sent = jobs
    restarts: list[asyncio.Task[None]] = []
    while True:
        async with database.transaction() as connection:
            ended, under_way = await _queries.ended(connection), await _queries.under_way(connection)
        while faults and ended >= faults[0].at * jobs and await _may_happen(ports, faults[0]):
            restarts += await _happen(stack, ports, faults.pop(0))
        if ended == sent and faults:
            sent += await _send(requests, range(sent, sent + _MORE))
        elif ended == sent and not under_way and not await _in_flight(ports):
            await asyncio.gather(*restarts)
            return sent
        stack.check()
        if time.monotonic() > deadline:
            sys.exit(f"only {ended} of {sent} jobs have ended; {under_way} calls are under way")
        await asyncio.sleep(_POLL_S)


async def _may_happen(ports: Sequence[int], fault: _Fault) -> bool:
    """Return whether calls have met what the endpoint was told before."""
    told = await _told(ports[fault.which])
    return fault.order is None or (told.remaining is None and told.mode in told.calls.by_mode)


async def _happen(stack: Stack, ports: Sequence[int], fault: _Fault) -> list[asyncio.Task[None]]:
    """Let it happen; return the restart of a killed worker, while which the others go on."""
    if fault.order is not None:
        await _ask(ports[fault.which], order=fault.order)
        return []
    name = _KILLED[fault.which]
    stack.kill(name)
    return [asyncio.create_task(asyncio.to_thread(stack.start, name))]


async def _in_flight(ports: Sequence[int]) -> int:
    return sum([(await _told(port)).calls.in_flight for port in ports])


async def _wrong_totals(connection: Connection, calls: Sequence[Call]) -> list[str]:
    """Return how the running totals differ from the calls that they add up."""
    expected: Mapping[str, int] = {
        "calls": len(calls),
        "unknown_calls": sum(call.maybe_billed for call in calls),
        "prompt_tokens": sum(call.prompt_tokens or 0 for call in calls),
        "completion_tokens": sum(call.completion_tokens or 0 for call in calls),
        "cost": sum(call.cost or 0 for call in calls),
        "unpriced_calls": 0,
    }
    return [
        f"{name} of the month: {total[name]} and not {one}"
        async for total in _queries.months(connection)
        for name, one in expected.items()
        if total[name] != one
    ]


async def _told(port: int) -> _Told:
    return _Told.model_validate_json(await _ask(port))


async def _ask(port: int, path: str = "", order: Order | None = None) -> bytes:
    def ask() -> bytes:
        body = None if order is None else order.model_dump_json().encode()
        request = urllib.request.Request(
            f"http://{HOST}:{port}/control{path}", data=body, method="GET" if body is None else "PUT"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
            return bytes(answer.read())

    return await asyncio.to_thread(ask)


if __name__ == "__main__":
    sys.exit(main())
