"""The bounds that documents tell are the constants."""

import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from consumers.generation import (
    allowance,
    endpoint,
    fleet,
    gate,
    learning,
    line,
    llm,
    pace,
    rate_limits,
    runs,
    streaming,
)
from consumers.generation import worker as generation
from consumers.generation.activities import ACTIVITIES_PER_JOB
from consumers.generation.body import MOST_BYTES, MOST_STREAM_BYTES
from consumers.generation.progress import WORTH_TELLING_S
from consumers.projection import changes
from consumers.webhooks import deliveries, receivers, retries, sender
from consumers.webhooks.sender import MOST_OF_ONE
from infra import auth, clock, key_sets, trace_export
from infra.api.body_limit import BodyLimit
from infra.api.limits import StreamLimits
from infra.api.problems import RETRY_AFTER_S
from infra.api.routes import events as events_routes
from infra.api.routes import job_lists, operators
from infra.api.routes.jobs import LONGEST_WAIT
from infra.api.server import BoundedConnection
from infra.api.tickets import LIFE
from infra.auth import SHORTEST_KEY
from infra.bench import console as console_bench
from infra.cli.frozen_plans import RATE
from infra.console import sessions
from infra.console.live import MOST_STREAMS, Board
from infra.console.pages.jobs import MOST_FACTS
from infra.console.sessions import LIFETIME
from infra.local import traces as local_traces
from infra.operations import faults
from infra.operations.job_content import archived_events
from infra.operations.job_search import COUNTED
from infra.operations.webhooks import MOST_ENDPOINTS
from infra.settings import Settings
from infra.verify.report import _KEPT as REPORTS_KEPT
from producers import turns
from producers.replay.failed_groups import LOOKED_AT, MOST_GROUPS
from producers.schedule import budgets, counts
from producers.schedule import worker as schedule
from producers.schedule.periodic import PERIODIC
from producers.schedule.retention import Retention
from streams.delivery.standstill import FailureWindow
from streams.jobs import events, gauges
from streams.jobs.completion import MOST_TOKENS
from streams.jobs.events import LONGEST_DELAY, MAX_IDEMPOTENCY_KEY, MAX_REQUIREMENTS
from streams.redis import stream, window
from streams.redis.settings import RedisSettings

ROOT = Path(__file__).parents[2]
_MIB = 2**20
_WORDS = {2: "two", 3: "three", 5: "five", 8: "eight", 10: "ten", 15: "fifteen"}
_NTH = {11: "eleventh"}
_HUNDRED, _HOUR_S = 100, 3600
_HOURS = (timedelta(hours=1), timedelta(days=100))
_TRANSPORT = RedisSettings()


def _streams(name: str) -> int:
    return int(_parameter(StreamLimits, name))


def _parameter(of: Any, name: str) -> Any:
    return inspect.signature(of).parameters[name].default


def _default(setting: str) -> Any:
    return Settings.model_fields[setting].default


def _at(task: str) -> str:
    """When a periodic task runs, of those that run once a day."""
    minute, hour, *_ = next(str(one.crontab) for one in PERIODIC if one.name == task).split()
    return f"{int(hour):02}:{int(minute):02}"


def _where(holds: bool, words: str) -> str:
    """Return words that hold, or some that stand in no document."""
    return words if holds else f"no longer: {words}"


def _short(delay: timedelta) -> str:
    """Return a time as a table has it: `5 s`, `30 min`, `14 h`."""
    seconds = int(delay.total_seconds())
    unit, name = next((unit, name) for unit, name in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= unit)
    return f"{seconds // unit} {name}"


_LIMITS = (ROOT / "infra/migrations/versions/0016_intake_limits.sql").read_text()
_PER_MINUTE, _MOST_WAITING = (
    int(found)
    for name in ("requests_per_minute", "max_waiting")
    for found in re.findall(rf"shares\.{name}, (\d+)\)", _LIMITS)
)
_DECISIONS = {path.name[:4]: str(path.relative_to(ROOT)) for path in (ROOT / "docs/decisions").glob("*.md")}
_SPREAD_S = gate._SPREAD * gate._ASK_AGAIN_S

BOUNDS = [
    ("README.md", f"at most {LONGEST_DELAY.days} days ahead"),
    ("README.md", f"at least {SHORTEST_KEY} bytes"),
    ("README.md", f"{MOST_OF_ONE} of each endpoint at most"),
    ("docs/events.md", f"at most {LONGEST_DELAY.days} days ahead"),
    ("docs/events.md", f"up to {MAX_REQUIREMENTS:,} characters"),
    ("docs/events.md", f"at most {MAX_IDEMPOTENCY_KEY} characters"),
    ("docs/front-ends.md", f"of at most {MAX_IDEMPOTENCY_KEY} characters"),
    ("docs/front-ends.md", f"more than {LONGEST_DELAY.days} days ahead"),
    ("docs/front-ends.md", f"at most {_streams('at_once')} streams open"),
    (
        "docs/front-ends.md",
        f"at most {_WORDS[_streams('per_second')]} a second on average, {_streams('burst')} at once",
    ),
    ("docs/llm.md", f"{MOST_STREAM_BYTES // _MIB} MiB, of which {MOST_BYTES // _MIB} MiB may be the answer's own"),
    ("docs/llm.md", f"{MOST_BYTES // _MIB} MiB of a body"),
    ("docs/llm.md", f"beyond {MOST_TOKENS // 1_000_000} million"),
    ("docs/llm.md", f"At most {_WORDS[ACTIVITIES_PER_JOB]} events an attempt"),
    ("docs/llm.md", f"passes it over for {_WORDS[int(line._REST_S)]} seconds"),
    ("docs/llm.md", f"each of {pace._PART * 100:g} % of a minute's limit"),
    ("docs/llm.md", f"no minute, wherever it begins, has more than {pace._WHOLE * 100:g} % of the limit"),
    ("docs/llm.md", f"The waits are {fleet._FIRST_WAIT.total_seconds()} s, 1 s, … {fleet._LONGEST_WAIT.seconds} s"),
    ("docs/llm.md", _where(timedelta(hours=1) == rate_limits.LONGEST_WAIT, "an hour at most")),
    ("docs/llm.md", f"{_WORDS[streaming._MOST_BROKEN]} streams in a row that broke off"),
    (
        "docs/llm.md",
        f"{_WORDS[streaming._MANY]} calls or more under way, whose latest {streaming._LATEST} took less than",
    ),
    ("docs/llm.md", f"an answer that takes less than {_WORDS[int(WORTH_TELLING_S)]} seconds"),
    ("docs/llm.md", f"is waited for {_WORDS[int(llm._QUIET_S)]} seconds"),
    ("docs/llm.md", f"reaching 80 and 100 % is told within {schedule._OFTEN_S:g} s"),
    ("docs/llm.md", f"until {_WORDS[budgets._LATE.seconds // 60]} minutes after its end"),
    ("docs/llm.md", f"comes again {_WORDS[runs._CALLS_END.seconds]} seconds later if calls under way"),
    ("docs/llm.md", f"{_WORDS[allowance._ALIKE].capitalize()} answers in a row must agree"),
    ("docs/llm.md", f"from the {_NTH[endpoint._LIMITED_ALONE + 1]} time on"),
    (_DECISIONS["0001"], f"is {window.HORIZON_S * 1000:g} ms of the rate"),
    (_DECISIONS["0001"], f"gives way every {stream._GIVE_WAY_EVERY} events"),
    (_DECISIONS["0007"], f"finds no turn in {_WORDS[int(turns._LONGEST_WAIT_S)]} seconds hears 503"),
    (_DECISIONS["0011"], f"the schedule's timer each {schedule._INTERVAL_S * 1000:g} ms"),
    (_DECISIONS["0011"], f"rows that workers renew every {generation._TELL_S:g} s"),
    (_DECISIONS["0013"], f"costs {_WORDS[deliveries._SETTLED_AFTER.seconds // 60]} minutes"),
    (_DECISIONS["0013"], f"for {_default('webhook_retention_days'):g} days"),
    ("docs/llm.md", f"the others wait for it, {_WORDS[int(learning._LONGEST_WAIT_S)]} seconds at most"),
    ("docs/llm.md", f"last half minute of the wait ({gate._SHORTEST_SPREAD_S} s to {_SPREAD_S:g} s)"),
    ("docs/webhooks.md", f"It answers 2xx within {receivers.TIMEOUT.seconds} s"),
    ("docs/webhooks.md", f"| after the one before | | {' | '.join(map(_short, retries.DELAYS))} |"),
    ("docs/webhooks.md", _where(timedelta(days=1) == retries._LONGEST_WAIT, "a date, a day at most")),
    ("docs/webhooks.md", f"has taken nothing for {_WORDS[sender.DISABLED_AFTER.days]} days"),
    ("docs/webhooks.md", f"An organization has {MOST_ENDPOINTS} endpoints at most"),
    ("docs/webhooks.md", _where(timedelta(minutes=1) == sender._LEASE, "under a lease of a minute")),
    ("docs/webhooks.md", f"(`job_events`) {_WORDS[deliveries._SETTLED_AFTER.seconds // 60]} minutes later"),
    ("docs/webhooks.md", f"An endpoint has {MOST_OF_ONE} tries under way in a worker at most"),
    ("docs/webhooks.md", f"of an answer {receivers._MOST_BYTES // 1024} KiB are read"),
    ("docs/traces.md", f"the latest {local_traces._MOST_TRACES} traces"),
    ("docs/traces.md", f"a queue of {trace_export._QUEUE:,} in each process"),
    ("docs/traces.md", f"does not take in {_WORDS[trace_export._SEND_S]} seconds"),
    ("docs/traces.md", f"asked again after {trace_export._ASK_AGAIN_S[0]:g} s"),
    ("docs/traces.md", f"every {_WORDS[int(trace_export._ASK_AGAIN_S[1]) // 60]} minutes at last"),
    ("docs/traces.md", _where(_default("trace_share") == 1 / 20, "a twentieth by default")),
    ("docs/traces.md", _where(_default("trace_statements") == 1 / 20, "in a twentieth of the traced jobs")),
    ("docs/front-ends.md", f"{auth._CLOCK_SKEW.seconds} s of difference between clocks"),
    ("docs/front-ends.md", f"is known within {key_sets._BETWEEN_FETCHES_S:g} s"),
    ("docs/front-ends.md", _where(key_sets._FRESH_S == _HOUR_S, "when they are an hour old")),
    ("docs/front-ends.md", f"({LONGEST_WAIT.seconds} at most)"),
    ("docs/front-ends.md", f"at most {job_lists._LARGEST_PAGE})"),
    ("docs/front-ends.md", f"each counted up to {COUNTED:,}"),
    ("docs/front-ends.md", f"for {_WORDS[job_lists._MONTHS // 12]} years at most"),
    ("docs/front-ends.md", f"After {events_routes._KEEP_ALIVE_S:g} s without one"),
    (
        "docs/front-ends.md",
        f"after {_WORDS[int(events_routes._LONGEST_S) // 60]} minutes, or when its API",
    ),
    ("docs/front-ends.md", f"within {LIFE.seconds} s, at any API process"),
    ("docs/front-ends.md", f"Without either: {_PER_MINUTE:,} requests a minute, {_MOST_WAITING:,} waiting"),
    ("docs/fairness.md", f"each says every {generation._TELL_S:g} s that it takes"),
    ("docs/replay.md", f"sends for at most {_WORDS[operators._APPLY_AT_MOST.seconds]} seconds"),
    ("docs/events.md", f"at most {events._LONGEST_ID} characters"),
    ("docs/events.md", f"at most {events._LONGEST_SOURCE:,} characters"),
    ("docs/events.md", f"in the years {clock._EARLIEST.year} to {clock._LATEST.year - 1} of UTC"),
    ("docs/operating.md", f"one lease after its last sign of life ({_TRANSPORT.lease.seconds} s)"),
    ("docs/operating.md", f"for up to {_TRANSPORT.drain.seconds} s (`drain`"),
    ("docs/operating.md", f"stay for `retention` ({_TRANSPORT.retention.seconds // 60} minutes"),
    ("docs/operating.md", f"(`retention`, {_TRANSPORT.retention.seconds // 60} minutes)"),
    ("docs/operating.md", f"kills its worker {_WORDS[_TRANSPORT.max_deliveries]} times"),
    ("docs/operating.md", f"At {FailureWindow.minimum} failures or more"),
    ("docs/operating.md", f"at most every {_WORDS[int(gauges._FRESH_S)]} seconds"),
    ("docs/operating.md", f"did not answer the last look within {_WORDS[int(gauges._LONGEST_LOOK_S)]} seconds"),
    ("docs/operating.md", f"in pages of {_parameter(Retention, 'page_size'):,}"),
    ("docs/operating.md", f"at {_at('retention')} UTC"),
    ("docs/operating.md", f"`Retry-After: {RETRY_AFTER_S}`"),
    ("docs/operating.md", f"up to {_WORDS[int(turns._LONGEST_WAIT_S)]} seconds, then 503 `too_busy`"),
    ("docs/operating.md", f"It has {MOST_OF_ONE} tries at once in each worker"),
    ("docs/operating.md", f"cancels exactly these, {RATE:g} a second unless"),
    ("docs/operating.md", f"`TEAMFIT_DATABASE_POOL_SIZE` ({_default('database_pool_size')})"),
    ("docs/operating.md", f"`TEAMFIT_STALL_THRESHOLD_S` ({_default('stall_threshold_s'):g})"),
    ("docs/operating.md", f"| some twenty rows an hour | {counts.KEPT.days} days |"),
    ("docs/operating.md", f"a row for each `teamfit verify` | {REPORTS_KEPT.days} days |"),
    ("docs/deploying.md", f"keeps idle connections for {_default('keep_alive_s')} s"),
    ("docs/deploying.md", f"must be above {LONGEST_WAIT.seconds} s, the longest that `Prefer: wait` waits"),
    ("docs/deploying.md", f"above {events_routes._KEEP_ALIVE_S:g} s between two bytes"),
    ("docs/deploying.md", f"headers must come within {BoundedConnection.headers_within_s:g} s"),
    ("docs/deploying.md", f"a body within {_parameter(BodyLimit, 'within_s'):g} s (408)"),
    ("docs/deploying.md", f"must be read on within {BoundedConnection.read_within_s:g} s"),
    ("docs/deploying.md", f"the API looks every {changes._OFTEN_S * 1000:g} ms instead"),
    ("docs/console.md", f"lasts {_WORDS[LIFETIME.seconds // 3600]} hours"),
    ("docs/console.md", f"other processes notice within {_WORDS[int(sessions._LOOKED_UP_EVERY_S)]} seconds"),
    ("docs/console.md", f"reads nothing of it for {faults._UNREAD_FOR_S:g} s"),
    ("docs/console.md", _where(timedelta(minutes=1) == faults._OVERDUE, "for a minute")),
    (
        "docs/console.md",
        f"of {_WORDS[counts._FINE.seconds // 60]} minutes for {_WORDS[counts._FINE_FOR.days]} days",
    ),
    ("docs/console.md", _where((counts._COARSE, counts.KEPT) == _HOURS, "of an hour for a hundred days")),
    ("docs/console.md", f"every {_WORDS[int(schedule._OFTEN_S)]} seconds what has changed"),
    (
        "docs/console.md",
        _where(_parameter(archived_events, "limit") == _HUNDRED, "a hundred a page"),
    ),
    (
        "docs/console.md",
        f"every {_WORDS[int(_parameter(Board, 'every_s'))]} seconds, one after another",
    ),
    ("docs/console.md", f"{console_bench.P50_MS:g} ms at the median or {console_bench.P99_MS:g} ms at p99"),
    ("docs/console.md", f"exact to {COUNTED:,}"),
    ("docs/console.md", f"a page looks at {COUNTED:,} jobs"),
    ("docs/console.md", f"the first {MOST_FACTS} events"),
    ("docs/console.md", f"At most {MOST_STREAMS} pages are live"),
    ("docs/console.md", f"the latest {LOOKED_AT:,} that the filter finds"),
    ("docs/console.md", f"The {MOST_GROUPS} largest groups"),
]


def assert_says(document: str, words: str) -> None:
    """Pass if a document has these words, wherever its lines break."""
    assert words
    assert words in " ".join((ROOT / document).read_text().split())


@pytest.mark.parametrize(("document", "words"), BOUNDS, ids=lambda value: value)
def test_a_bound_in_a_document_is_the_constant(document: str, words: str) -> None:
    """Who reads a limit and plans by it meets that limit."""
    assert_says(document, words)


@pytest.mark.parametrize("document", ["docs/operating.md"])
def test_the_retentions_that_are_told_are_the_defaults(document: str) -> None:
    """`TEAMFIT_…_RETENTION_DAYS` (400) names the setting's default."""
    text = (ROOT / document).read_text()
    told = {
        field: Settings.model_fields[field].default
        for field in Settings.model_fields
        if field.endswith("_retention_days") and Settings.model_fields[field].default is not None
    }
    missing = [name for name, days in told.items() if f"`TEAMFIT_{name.upper()}` ({days:g})" not in text]
    assert told
    assert missing == []
