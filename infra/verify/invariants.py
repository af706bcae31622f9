"""One SQL statement checks each invariant. This says what each means, its query, and what to do when it is broken."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Invariant:
    """One invariant.

    Attributes:
        name: stable, for scripts.
        query: in `checks.sql`.
        patient: the query forgives what is younger than the patience given.
        at_rest: it holds only when nothing is under way.
    """

    name: str
    query: str
    statement: str
    next_step: str
    patient: bool = False
    at_rest: bool = False


INVARIANTS: Sequence[Invariant] = (
    Invariant(
        name="accepted = terminal + live",
        query="accepted",
        statement="every accepted request has ended, holds quota, or is scheduled",
        next_step="See whether the quota stage runs and how far it lags (a backlog is no loss). If it has caught up, "
        "the events were lost on the way: the reconciler emits them again; see that the schedule stage runs.",
        patient=True,
    ),
    Invariant(
        name="charged = completed",
        query="charged",
        statement="by organization and period, what is charged is what completed",
        next_step="Completed but reserved: see whether the quota stage lags on job-events. Anything else is a wrong "
        "bill: keep the rows of quota_ledger, job_outcomes and job_events of these jobs, then correct the charge.",
        patient=True,
    ),
    Invariant(
        name="reserved = live",
        query="reserved",
        statement="quota is held only for runs that have not ended",
        next_step="See whether the quota stage lags on job-events; if not, the terminal fact was lost, and the "
        "reconciler settles the reservation.",
        patient=True,
    ),
    Invariant(
        name="counters = ledger",
        query="counters",
        statement="the counters of quota_usage are the sums of quota_ledger",
        next_step="Somebody changed one of the two tables by hand, or there is a bug: the ledger is right. "
        "teamfit quota repair ORGANIZATION sets the counters to its sums; find out who wrote them.",
    ),
    Invariant(
        name="within the limit",
        query="within_limit",
        statement="no organization has taken more than the monthly quota",
        next_step="See whether the plan was lowered within the month, which is no fault. If not, quota was overspent: "
        "keep the ledger's rows of this organization and period, and report a bug.",
    ),
    Invariant(
        name="three activities",
        query="activities",
        statement="a completed job has exactly the three activities of its run, no other job has any",
        next_step="Missing or mixed: rows were changed by hand, or there is a bug. What was saved is gone; "
        "ask for the job again as its next run. Not completed: find out who wrote the activities.",
    ),
    Invariant(
        name="no event twice",
        query="event_ids",
        statement="no event ID is in a job's archive twice",
        next_step="The unique constraint of job_events is gone: restore it after removing the later copies.",
    ),
    Invariant(
        name="outcomes are told",
        query="outcomes_told",
        statement="every outcome has its terminal fact in the archive",
        next_step="See whether the projection lags on job-events, and look for the fact among the failed events "
        "(teamfit failed list). If it is nowhere it was lost; the reconciler emits it again.",
        patient=True,
    ),
    Invariant(
        name="facts were decided",
        query="facts_decided",
        statement="every terminal fact in the archive is the outcome of its run",
        next_step="Somebody outside the pipeline wrote to job-events: the event's source in job_events says who.",
    ),
    Invariant(
        name="nothing forged",
        query="forged",
        statement="no event says of a job what only another organization or a stage may say",
        next_step="Nothing followed from these events, and each names its sender in `source` (teamfit failed show). "
        "See who may write to the topic (docs/deploying.md), then set them aside: teamfit failed discard --error "
        "ForgedEvent --because REASON",
    ),
    Invariant(
        name="mistakes of senders",
        query="mistaken",
        statement="what a sender gets wrong about a job of its own has no effect",
        next_step="Tell the senders what teamfit failed list says of their events, then discard them.",
    ),
    Invariant(
        name="records are whole",
        query="records",
        statement="a job shows the team and the time of the request that the intake recorded",
        next_step="Run teamfit projection rebuild. If it stays, the request is not in the archive: look for it in "
        "job_requests.",
    ),
    Invariant(
        name="one saved attempt",
        query="saved_attempts",
        statement="at most one attempt at a run is saved, and only if the run completed",
        next_step="Two results were saved for one run: keep the rows of generation_attempts and report a bug.",
    ),
    Invariant(
        name="spend = attempts",
        query="spend",
        statement="the totals of llm_usage are the sums of generation_attempts",
        next_step="Rows of one of the two tables were changed or removed by hand: the attempts are right.",
    ),
    Invariant(
        name="failed means findable",
        query="findable",
        statement="every run that a stage gave up has a failed event",
        next_step="See whether the failures stage runs and what it holds for (teamfit lag, its /readyz): it "
        "keeps what the transport buried. If it is idle, the row was removed by hand, or report a bug.",
        patient=True,
    ),
    Invariant(
        name="dead letters say why",
        query="failed_events",
        statement="every failed event names its stage and its error",
        next_step="Look at the row in failed_events: its bytes and headers say where it came from.",
    ),
    Invariant(
        name="nothing set aside",
        query="set_aside",
        statement="no run stands still because one of its rows cannot be handled",
        next_step="The reason is in reemissions.set_aside: mend the row that it speaks of, or report a bug. The "
        "reconciler looks again at growing intervals, of an hour at most, and sends the run on.",
    ),
    Invariant(
        name="line = counters",
        query="line_counters",
        statement="what waits and what is in flight is counted for each organization as its rows are",
        next_step="Somebody changed dispatch_runs or dispatch_organizations by hand, or there is a bug. The schedule "
        "sets the counters to the rows within the hour; SELECT dispatch_recount() does at once.",
    ),
    Invariant(
        name="line = live",
        query="line_is_live",
        statement="what waits for its turn or holds a slot has quota and has not ended",
        next_step="See whether the schedule stage runs: it finds ends by itself too. If it does, report a bug.",
        patient=True,
    ),
    Invariant(
        name="webhooks are recorded",
        query="webhooks_recorded",
        statement="each end of a run, and each mark of a budget, has its delivery at each endpoint that wants it",
        next_step="See whether the webhooks stage runs and how far it lags on job-events: it finds in the archive what "
        "the broker has lost, a few minutes later. If it is idle, the rows were removed by hand, or report a bug.",
        patient=True,
    ),
    Invariant(
        name="webhooks are true",
        query="webhooks_true",
        statement="each delivery of a webhook tells its own organization of a fact in the archive",
        next_step="See whether the projection lags on job-events. If not, rows were changed by hand: see who writes to "
        "webhook_deliveries and webhook_endpoints, and tell the receiver.",
        patient=True,
    ),
    Invariant(
        name="webhooks are findable",
        query="webhooks_findable",
        statement="each delivery of a webhook that was given up has a failed event",
        next_step="The failed event was removed by hand, or there is a bug. What the delivery says is in "
        "webhook_deliveries; the receiver can ask for the job's state.",
    ),
    Invariant(
        name="nothing reserved",
        query="nothing_reserved",
        statement="at rest, no quota is held",
        next_step="Wait until the stages are idle. If it stays, the run stands still: see the reconciler.",
        at_rest=True,
    ),
    Invariant(
        name="nothing live",
        query="nothing_live",
        statement="at rest, every job has ended or waits for its time",
        next_step="Wait until the stages are idle. If it stays, the job stands still: see the reconciler.",
        at_rest=True,
    ),
    Invariant(
        name="nothing overdue",
        query="nothing_overdue",
        statement="at rest, nothing that is due waits in the schedule",
        next_step="See whether the schedule stage runs (teamfit worker schedule) and reaches the broker.",
        at_rest=True,
    ),
)
