"""`docs/reliability.md`, written by the run that it tells of."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.pipeline.score import Score, markdown_table, reasons, told
from tests.chaos.pipeline.teamfit import LEASE_S, SETTINGS, Teamfit

_PAGE = """# What survives what

This page is written by `make chaos`. It runs real processes (two API processes, two workers of each stage, Valkey,
PostgreSQL, an OpenAI-compatible server) under load through all three ways in, breaks one thing again and again, lets
everything come to rest, and reads the books: the harness counts its own jobs, and `teamfit verify --settled` checks
every invariant of the database after each row. A row that leaves anything behind fails the command.

Run on {date}, {machine}:

    {command}

`make chaos FAULT=name` runs one row; `TIMES=` sets how often. By default each fault is injected 20 times, and a few
that take long fewer times, as the table says. To take less time, two fleets share the pipeline's rows, the Celery
design has a third, and the injections of each row that lasts 60 seconds are divided between two more, whose stages
share a process (`teamfit worker all`, twice): all at the same time, each with servers of its own. The seconds are
therefore those of a busy machine.

## The pipeline

{ours}

{verdict} {reasons} {told}

## The Celery design that it replaces

The same harness and the same faults, as far as they apply, against one Celery task that checks the quota, asks the LLM
and saves (`infra/bench/celery_baseline`): late acknowledgement, rejection when the worker is lost, a prefetch of one,
three retries with backoff; save, charge and status are one transaction. A task that is not acknowledged goes to another
worker after 15 seconds, looked for every second; Celery's defaults, an hour and 100 seconds, would count every job of a
killed worker as stuck. A worker that ends by itself is started again, as a supervisor would; one that goes deaf is not,
because it would go unnoticed. (Ours may not end by themselves: a row in which one does is not clean.) A row ends early
when no job completes any more within 15 seconds of an injection.

{theirs}

What `FLUSHALL` takes is not sent again. With Postgres restarting, the log showed retries used up within a second
(their jitter may be zero) and the handler that records the failure failing too, so the job stays as it is. Why jobs
were lost with killed workers, and what saved jobs twice after a restart of Valkey, was not traced.

## How to read it

- **jobs**: accepted, that is HTTP 202, or confirmed by the broker. **refused**: the caller heard an error and knows
  that it must ask again.
- **failed**: ended as failed, with a reason that the customer reads. In the pipeline the event is kept for replay.
- **lost**: accepted and never begun; **stuck**: begun and not ended, {drain} after the last injection.
- **duplicate effects**: jobs with a result saved twice or in part. **double charges**: units of quota beyond one for
  each completed job.
- **extra LLM calls**: beyond one for each job that ended. Calls that the endpoint answered with an error count too; a
  killed worker's call was made and has to be made again.
- **next job**: from the injection to the next completed job. **affected**: from the injection to the end of each job
  that was in flight; for outages, the outage itself included.
- Each round sends nine jobs (before `FLUSHALL` ninety, so that there is something to lose), waits until some are in
  flight, injects, and sends six more. The next round begins when a job completes again, so faults also meet the
  recovery from the one before.
- `SENTINEL FAILOVER` has a fleet whose `BROKER_URL` names a Sentinel (`sentinel=main`); the two servers change places
  each time. What the old master takes until it is told, and what a promoted replica has missed, is lost.
- "In turn": one of the named handlings each time.
- "Black-holed" lasts 1.5 seconds each time. Stalls last {stall:g} s.
- The pipeline ran with `lease={lease:g}s` and {settings}: shorter than the defaults,
  so that every way of waiting is met. Recovery scales with them.
- "Clock stepped": the wall clock jumps by +1 h, -1 h, +40 days (past the end of a month) or -40 days for 1.5 seconds,
  and back; the monotonic clock goes on, as on a real machine. Meanwhile some calls to the LLM fail, so that retries are
  kept and the gate is closed by the wrong clock. Who is hit takes turns: one process of each stage and of the API, both
  schedule workers; then Valkey; PostgreSQL; and all of them, as on one machine. Each process reads its clock through
  libfaketime; where that is not installed the rows are skipped.
- What a wrong clock does all the same: the API refuses tokens that are expired or not yet valid by its own clock (they
  are among the refused). A step ahead of Valkey lets every lease run out at once, so calls under way may be made again.
  PostgreSQL's clock is the fleet's: while it is wrong, delayed jobs (`run_at`) begin by it, and jobs count for its
  month; and for one stall threshold after it jumped ahead nothing that was lost is sent again. What stands in Valkey in
  the name of a worker that died just before Valkey was set back waits as long as the step was; its job is sent again
  after the threshold.
- `FLUSHALL` with unread dead letters: both failures workers are stopped (SIGSTOP) until five jobs
  have failed; each of them is found in `failed_events` in the end, or `teamfit verify` says so.
- "A receiver of webhooks flaps": the row's organization has an endpoint that answers in turn, 0.4 s each, as it should,
  with 500, with 500 though it has taken the event, with 429 and with a cut connection. When all is over it answers
  well, and each end of a run in the archive must have arrived there, verified by the Standard Webhooks library, under
  one ID with one body, and nothing else.
- `FLUSHALL`: a job that came straight into the stream is safe from the moment when the projection has archived it,
  usually within a second; the harness counts it from then. HTTP answers 202 only once the job is in PostgreSQL.
"""


def write(path: Path, scores: Sequence[Score], *, times: int | None) -> None:
    """Write the page from a run's scores."""
    ours = [score for score in scores if score.system == Teamfit.name]
    theirs = [score for score in scores if score.system != Teamfit.name]
    unclean = [score.title for score in ours if not score.clean]
    verdict = (
        f"Not clean: {', '.join(unclean)}."
        if unclean
        else "Every row that was run is clean: nothing lost, stuck or doubled, and `teamfit verify` found nothing."
    )
    page = _PAGE.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"on a machine with {os.cpu_count()} cores",
        command="make chaos" if times is None else f"make chaos TIMES={times}",
        ours=markdown_table(ours),
        verdict=verdict,
        reasons=reasons(ours),
        told=told(ours),
        theirs=markdown_table(theirs) if theirs else "Not run.",
        drain="60 seconds",
        stall=LEASE_S * 1.6,
        lease=LEASE_S,
        settings=", ".join(f"`{name}={value:g}`" for name, value in SETTINGS.items()),
    )
    path.write_text(page)
