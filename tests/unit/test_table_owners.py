"""Each table is written in one place, so that whoever looks for what changes it looks there."""

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Retention and `teamfit erase` delete and blank rows of all tables; seeds of the local stack are data; a bench is none
# of the pipeline. Migrations make what is written.
EVERYWHERE = ("infra/migrations", "infra/local", "infra/bench", "infra/deploy", "infra/operations/erase.sql")
RETENTION = "producers/schedule/queries.sql"

OWNERS = {
    "archive_retention": "producers/schedule",
    "cancel_plan_items": "infra/operations",
    "cancel_plans": "infra/operations",
    "budget_marks": "producers/schedule",
    "console_links": "infra/console/sessions.sql",
    "console_sessions": "infra/console/sessions.sql",
    "customization_jobs": "consumers/projection",
    "customized_activities": "consumers/generation",
    "discard_plan_items": "infra/operations",
    "discard_plans": "infra/operations",
    "dispatch_workers": "streams/jobs/dispatch.sql",
    "dispatch_runs": "streams/jobs/dispatch.sql",
    "early_cancellations": "streams/jobs/ownership.sql",
    "event_tickets": "infra/api/tickets.sql",
    "failed_events": "streams/delivery/failed_events.sql",
    "fleet_controls": "infra/operations/controls.sql",
    "fleet_processes": "streams/jobs/processes.sql",
    "generation_attempts": "consumers/generation",
    "job_counts": "producers/schedule/counts.sql",
    "job_counts_progress": "producers/schedule/counts.sql",
    "job_events": "consumers/projection",
    "job_outcomes": "streams/jobs/outcomes.sql",
    "job_owners": "streams/jobs/ownership.sql",
    "job_requests": "producers/intake.sql",
    "llm_dialects": "consumers/generation",
    "llm_streams": "consumers/generation",
    "llm_gate": "consumers/generation",
    "llm_holds": "consumers/generation",
    "llm_hours": "consumers/generation",
    "llm_pace": "consumers/generation",
    "llm_prices": "infra/operations/prices.sql",
    "llm_probes": "consumers/generation",
    "operator_actions": "infra/actions.sql",
    "organizations": "infra/operations/tenants.sql",
    "periodic_tasks": "producers/schedule/periodic.sql",
    "plan_shares": "infra/operations/plans.sql",
    "quota_ledger": "consumers/quota",
    "quota_usage": "consumers/quota",
    "reemissions": "producers/reconcile",
    "replay_plan_items": "producers/replay",
    "replay_plans": "producers/replay",
    "scheduled_events": "streams/delivery/scheduled.sql",
    "subscriptions": "infra/operations/tenants.sql",
    "teams": "infra/operations/tenants.sql",
    "verify_reports": "infra/verify/report.sql",
    "webhook_deliveries": "consumers/webhooks",
    "webhook_endpoints": "consumers/webhooks",
    "webhook_progress": "consumers/webhooks",
}
# What else writes, and why it is not the owner that does. One is left: the schedule opens each month's counters at
# midnight, producers know no consumer, and a module of `streams/jobs` that both call would take the insert alone.
# Counting stays in the quota stage, whose ledger moves in the same statements: the table would have two rooms still.
ALSO = {
    ("quota_usage", "producers/schedule/queries.sql"): "opens a month's counters, at zero",
    ("webhook_endpoints", "producers/schedule/queries.sql"): "says from when on its deliveries are whole",
}

_COMMENT = re.compile(r"--[^\n]*")
_WRITE = re.compile(r"\b(INSERT INTO|DELETE FROM|UPDATE)\s+([a-z_]+|/\* [a-z]+ \*/)")
# The tables that `infra/operations/frozen_plans.py` fills in.
_FILLED_IN = {
    "/* plans */": ("cancel_plans", "discard_plans"),
    "/* items */": ("cancel_plan_items", "discard_plan_items"),
}
_LOCK_OR_UPSERT = re.compile(r"\b(FOR|NO KEY|DO)\s+$")
_TEMPORARY = re.compile(r"CREATE TEMP(?:ORARY)? TABLE(?: IF NOT EXISTS)? ([a-z_]+)")


def written() -> dict[str, set[tuple[str, str]]]:
    """Return which files write each table, and how."""
    found = defaultdict(set)
    for path in (
        path for folder in ("streams", "consumers", "producers", "infra") for path in (ROOT / folder).rglob("*.sql")
    ):
        name, text = str(path.relative_to(ROOT)), _COMMENT.sub("", path.read_text())
        if name.startswith(EVERYWHERE):
            continue
        own = set(_TEMPORARY.findall(text))
        for match in _WRITE.finditer(text):
            if match[2] not in own and not _LOCK_OR_UPSERT.search(text[: match.start()]):
                for table in _FILLED_IN.get(match[2], (match[2],)):
                    found[table].add((name, match[1]))
    return found


def test_each_table_has_one_owner_that_writes_it() -> None:
    """What else writes is on a list with its reason; nothing on the lists is out of date."""
    strangers, used = [], set()
    for table, writes in written().items():
        for name, how in writes:
            if (table, name) in ALSO:
                used.add((table, name))
            elif not name.startswith(OWNERS[table]) and not (name == RETENTION and how == "DELETE FROM"):
                strangers.append(f"{name}: {how} {table}, which is {OWNERS[table]}'s")
    assert strangers == []
    assert used == ALSO.keys()
    assert OWNERS.keys() == written().keys()


def test_the_architecture_page_says_who_writes_each_table() -> None:
    """Its list has each table once, with the folder of its owner and of whoever else writes it."""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Who writes which table")[2]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.MULTILINE)
    told = [(table, by) for tables, by in rows for table in re.findall(r"`(\w+)`", tables)]
    writers = dict(told)
    assert len(writers) == len(told)
    assert OWNERS.keys() <= writers.keys()
    also = dict(ALSO.keys())
    folders = [
        (table, str(Path(where).parent) if where.endswith(".sql") else where)
        for table, where in [*OWNERS.items(), *also.items()]
    ]
    assert [(table, folder) for table, folder in folders if folder not in writers[table]] == []
