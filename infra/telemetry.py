"""Every metric in one place, and how a process logs."""

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from infra import tracing
from infra.settings import Settings, settings

OUTCOMES = Counter(
    "teamfit_outcomes_total", "Deliveries taken to an outcome, by consumer group and outcome.", ["group", "outcome"]
)
JOBS = Counter("teamfit_jobs_total", "Runs that reached a terminal state, by outcome.", ["outcome"])
REEMITTED = Counter(
    "teamfit_reemitted_total", "Events sent again for runs that stood still, by the event's type.", ["type"]
)
EXPIRED = Counter("teamfit_expired_total", "Runs given up because nothing is left that could finish them.")
ARCHIVED_EVENTS_DELETED = Counter("teamfit_archived_events_deleted_total", "Archived events past their retention.")
LLM_SECONDS = Histogram(
    "teamfit_llm_call_seconds",
    "Seconds from sending a completion request to its answer or failure.",
    buckets=(0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128),
)
LLM_TOKENS = Counter("teamfit_llm_tokens_total", "Tokens that the LLM endpoint says it billed, by kind.", ["kind"])
LLM_USAGE_UNKNOWN = Counter(
    "teamfit_llm_usage_unknown_total", "Answers of the LLM that do not say, or cannot mean, what they cost."
)
LLM_UNPACKED = Counter(
    "teamfit_llm_unpacked_total", "Answers of the LLM whose JSON was packed, by what was taken off.", ["kind"]
)
LLM_LEARNED = Counter(
    "teamfit_llm_learned_total",
    "Times that this worker has learned how an endpoint is asked, by form and the parameter that bounds the answer.",
    ["form", "answer_limit"],
)
LLM_BLAMED = Counter(
    "teamfit_llm_blamed_total",
    "Calls without an answer, by who is to blame (account, configuration, endpoint, limit, prompt, unknown) and code.",
    ["blame", "code"],
)
BUDGET_REACHED = Counter(
    "teamfit_budget_reached_total", "Organizations that have spent so much of their month's budget.", ["percent"]
)
LLM_PASSED_ON = Counter(
    "teamfit_llm_passed_on_total",
    "Times that a job was passed on to the next endpoint, by the endpoint that took no calls.",
    ["endpoint"],
)
LLM_PROBES = Counter(
    "teamfit_llm_probes_total", "Calls for no job, to see whether the endpoint works, by result.", ["result"]
)
WEBHOOKS = Counter(
    "teamfit_webhook_tries_total", "Tries to deliver a webhook, by outcome: delivered, failed, given_up.", ["outcome"]
)
WEBHOOKS_DISABLED = Counter("teamfit_webhooks_disabled_total", "Webhook endpoints disabled for what they answered.")

STAGE_HELD = Gauge(
    "teamfit_stage_held",
    "1 while a stage of this worker stands still, by what it waits for: postgres, broker, llm, stage (most of its "
    "deliveries fail), bug, or timer (a timer's work, in the schedule worker).",
    ["group", "reason"],
)

PAUSED = Gauge(
    "teamfit_paused",
    "1 while operators have paused a stage, or the intake, for all or (scope: some) for some organizations.",
    ["stage", "scope"],
)

FORGED_HEADERS = Counter(
    "teamfit_forged_headers_total", "Entries with internal headers that the pipeline did not seal.", ["topic"]
)
UNDESCRIBED = Counter(
    "teamfit_failed_events_undescribed_total", "Dead letters of which no more than the bytes could be kept."
)
SET_ASIDE = Counter(
    "teamfit_set_aside_total",
    "Rows that could not be handled and were set aside: schedule, reconcile, dispatch.",
    ["source"],
)

# An alert sees a count rise only if it has seen it before, and a panel shows zero instead of nothing.
for _counter, *_values in (
    (JOBS, "completed", "failed", "rejected", "cancelled"),
    (LLM_TOKENS, "prompt", "completion"),
    (LLM_PROBES, "answered", "failed"),
    (BUDGET_REACHED, "80", "100"),
    (WEBHOOKS, "delivered", "failed", "given_up"),
    (SET_ASIDE, "schedule", "reconcile", "dispatch"),
):
    for _value in _values:
        _counter.labels(_value)

# What the whole fleet shares. Every process tells it, as last read from Postgres or the broker: take the max over them.
SOURCE_UP = Gauge(
    "teamfit_source_up", "1 if the source of the gauges of the fleet has just answered: postgres, broker.", ["source"]
)
TOPIC_ENTRIES = Gauge(
    "teamfit_topic_entries",
    "Entries in a topic, those included that all have acknowledged and that are not trimmed.",
    ["topic"],
)
GROUP_LAG = Gauge(
    "teamfit_group_lag_entries", "Entries that a consumer group was never given; absent if unknown.", ["topic", "group"]
)
GROUP_PENDING = Gauge(
    "teamfit_group_pending_entries", "Entries that were delivered and are not acknowledged.", ["topic", "group"]
)
GROUP_OLDEST_PENDING = Gauge(
    "teamfit_group_oldest_pending_age_seconds",
    "Seconds since the oldest pending entry was written.",
    ["topic", "group"],
)
GROUP_CONSUMERS = Gauge("teamfit_group_consumers", "Workers that read a topic for a group.", ["topic", "group"])
FAILED_EVENTS_OPEN = Gauge("teamfit_failed_events_open", "Failed events that are open.", ["stage"])
GATE_CLOSED_UNTIL = Gauge(
    "teamfit_llm_gate_closed_until_timestamp_seconds",
    "Until when no worker calls an LLM endpoint, in seconds since 1970; in the past: the gate is open.",
    ["endpoint"],
)
OLDEST_LIVE_JOB = Gauge(
    "teamfit_oldest_live_job_age_seconds",
    "Seconds since the live job that has stood for longest last moved; what waits for its time is left out.",
    ["status"],
)
SCHEDULED_DUE = Gauge("teamfit_scheduled_events_due", "Scheduled events whose time has come.", ["topic"])
SCHEDULED_OVERDUE = Gauge(
    "teamfit_scheduled_events_overdue_seconds", "Seconds since the time of the oldest of them came.", ["topic"]
)
WEBHOOK_ENDPOINTS = Gauge("teamfit_webhook_endpoints", "Endpoints of webhooks: working, failing, disabled.", ["state"])
WEBHOOKS_OVERDUE = Gauge(
    "teamfit_webhooks_overdue_seconds",
    "Seconds since the first delivery that waits was due, by the state of its endpoint.",
    ["state"],
)


def start_logging(service: str) -> Settings:
    """Return a serving process's settings, once its log and traces are as they say.

    They are read a second time then, so that what they are warned about is in that log.
    """
    first = Settings()
    configure_logging(first.log_format, first.log_level)
    started = settings()
    tracing.start(started, service)
    return started


def _with_span(_logger: object, _level: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return line if (span := tracing.exemplar()) is None else {**line, **span}


def exposed(accept: str) -> tuple[bytes, str]:
    """Return this process's metrics and their type. Who asks for OpenMetrics gets exemplars too."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type


def configure_logging(log_format: Literal["console", "json"], level_name: str) -> None:
    """Send this process's log to standard error, an event name and its fields a line.

    The libraries' lines go there too.

    Args:
        log_format: for people or for machines.
        level_name: "debug", "info", "warning" or "error"; lines below it are left out.
    """
    level = logging.getLevelNamesMapping()[level_name.upper()]
    _configured.clear()
    _configured.append(level_name)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_span,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    # The level may change while the process runs, and loggers that were used keep their wrapper: so the wrapper lets
    # all pass, and the first processor asks.
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if log_format == "console" else [structlog.processors.format_exc_info]),
                renderer,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The `openai` package's HTTP client writes a line for every call, hundreds a second.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


_configured: list[str] = []


def set_log_level(level_name: str | None) -> None:
    """Have this process log from another level on; None: from the one of its settings."""
    if _configured:
        wanted = logging.getLevelNamesMapping()[(level_name or _configured[0]).upper()]
        if logging.getLogger().level != wanted:
            logging.getLogger().setLevel(wanted)


def log_level() -> str:
    """Return the level from which on this process logs."""
    return logging.getLevelName(logging.getLogger().level).lower()
