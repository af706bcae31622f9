"""From a caller's trace to what became of it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import orjson

from tests.acceptance.customer import Customer
from tests.conftest import Pool
from tests.waiting import wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


async def test_an_operator_finds_a_failed_event_by_the_callers_trace(customer: Customer, books: Pool) -> None:
    """The W3C headers of the POST are on every event of the job, its dead letter, and the log lines about it."""
    stack = customer.stack
    control = f"{str(stack.settings.openai_base_url).removesuffix('/v1')}/control"
    async with customer.http.put(control, json={"mode": "refusal", "count": 1}) as answer:
        assert answer.status == 200
    status, accepted = await customer.post(headers={"traceparent": PARENT, "tracestate": STATE})
    assert status == 202
    job_id = accepted["job_id"]
    job = await customer.ended_job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "llm_refusal")

    rows = await books.fetch("SELECT event FROM job_events WHERE job_id = $1", job_id)
    events = [orjson.loads(row["event"]) for row in rows]
    assert {event["type"].split(".")[2] for event in events} == {"requested", "started", "failed"}
    assert {(event["traceparent"], event["tracestate"]) for event in events} == {(PARENT, STATE)}

    async def kept() -> Sequence[asyncpg.Record]:
        return await books.fetch("SELECT id, job_id FROM failed_events WHERE trace_id = $1", TRACE)

    (letter,) = await wait_for(kept, what="the dead letter")
    assert str(letter["job_id"]) == job_id
    found = subprocess.run(
        [sys.executable, "-m", "infra.cli", "failed", "list", "--trace", TRACE],
        env={**os.environ, "DATABASE_URL": stack.settings.database_url, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(letter["id"]) in found.stdout

    def logged() -> bool:
        lines = [line for part in ("api", "generation") for line in _log(stack.folder / f"{part}.log") if TRACE in line]
        told = [(line["event"], line["trace_id"], line["job_id"]) for line in map(orjson.loads, lines)]
        # What the fleet learned of the endpoint is told in the job that it was learned from, if it is the first one.
        told = [one for one in told if one[0] not in {"llm.learned", "llm.stream_learned"}]
        assert told == [(event, TRACE, job_id) for event in ("request.accepted", "delivery.dead_lettered")]
        return True

    # A stage logs what it has done: the dead letter may be kept by then.
    await wait_for(logged, what="the log lines")


def _log(file: Path) -> Sequence[str]:
    return file.read_text().splitlines()


async def test_a_trace_that_is_none_does_not_keep_a_job(customer: Customer, books: Pool) -> None:
    """W3C: whoever gets a malformed `traceparent` goes on as if there were none, and drops `tracestate` with it."""
    odd = (
        "nonsense",
        PARENT.upper(),
        PARENT.replace(TRACE, "0" * 32),
        "ff" + PARENT[2:],
        f"{PARENT}-more",
        f"{PARENT}, {PARENT}",
    )
    for number, parent in enumerate(odd):
        headers = {"traceparent": parent, "tracestate": STATE}
        status, accepted = await customer.post(headers=headers, requirements=f"A walk, variant {number}")
        assert status == 202
        event = await books.fetchval("SELECT event FROM job_requests WHERE job_id = $1", accepted["job_id"])
        assert not {"traceparent", "tracestate"} & orjson.loads(event).keys()
        await customer.ended_job(accepted["job_id"])
