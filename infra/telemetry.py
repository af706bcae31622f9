"""Every metric in one place, and how a process logs."""

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import Counter, Histogram

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
LLM_TOKENS = Counter("teamfit_llm_tokens_total", "Tokens billed by the LLM endpoint, by kind.", ["kind"])


def configure_logging(log_format: Literal["console", "json"], *, level: int = logging.INFO) -> None:
    """Send this process's log, the libraries' lines too, to standard error: one event name and its fields a line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
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
