"""The pipeline reads every setting from the environment and a `.env` file. The file is in the working directory.

The addresses keep their usual names (`DATABASE_URL`, `BROKER_URL`, `OPENAI_API_KEY`, `OPENAI_BASE_URL`); all others
start with `TEAMFIT_`. Each description says what turning the value either way does.
"""

from functools import lru_cache
from typing import Literal

from pydantic import Field, SecretStr

from infra.variables import BaseUrl, Key, Networks, Origins, Prefix, Variables

CompletionFormat = Literal["auto", "json_schema", "json_object_with_schema", "json_object", "prompt"]


_DAY_S = 86_400.0
_LONGEST_S = 3_650 * _DAY_S  # beyond it a time would leave the calendar


class Settings(Variables):
    """The pipeline's settings. Asking for one whose value cannot be used raises InvalidSetting."""

    database_url: str = Field(
        default="postgresql://localhost:5432/teamfit",
        validation_alias="DATABASE_URL",
        description="The Postgres database, as a URL that libpq takes: TLS, several hosts and poolers included.",
    )
    broker_url: str = Field(
        default="redis://localhost:6379/0",
        validation_alias="BROKER_URL",
        description="The broker: `redis://`, `rediss://`, `unix://` (Redis Streams) or `kafka://`. "
        "The query holds transport settings, e.g. `?lease=15s`.",
    )
    openai_api_key: Key | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="Key of the LLM endpoint. The local stack starts an offline one where no endpoint is set.",
    )
    openai_base_url: BaseUrl | None = Field(
        default=None,
        validation_alias="OPENAI_BASE_URL",
        description="Base URL of any OpenAI-compatible endpoint; unset: OpenAI's own.",
    )

    llm_requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Requests that the LLM endpoint takes by the minute; the fleet keeps within them. Unset: what its "
        "answers state, if they do.",
    )
    llm_tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Tokens that the LLM endpoint takes by the minute, prompts and answers together. Unset: what its "
        "answers state, if they do.",
    )
    llm_endpoints: str | None = Field(
        default=None,
        description="A TOML or JSON file that lists several LLM endpoints, in place of `OPENAI_*`, `TEAMFIT_MODEL` and "
        "`TEAMFIT_COMPLETION_FORMAT` (docs/llm.md); unset: the one endpoint that those name.",
    )

    signing_key: SecretStr | None = Field(
        default=None,
        description="Key that signs bearer tokens (HS256), at least 32 bytes. The API does not start without it.",
    )

    signing_key_before: SecretStr | None = Field(
        default=None,
        description="The key before `TEAMFIT_SIGNING_KEY`: its tokens are accepted, and none are made with it. Set it "
        "while you change keys, until the last of its tokens has expired.",
    )
    revoked_tokens: str | None = Field(
        default=None,
        description="A file with the IDs (`jti`) of tokens that are refused, one on a line; read again within 5 s of "
        "a change. Unset: tokens live until they expire.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="The `iss` of an identity provider whose tokens (RS256, ES256) are accepted beside our own; unset: "
        "none are.",
    )
    oidc_audience: str | None = Field(default=None, description="The `aud` that its tokens must be made out to.")
    oidc_jwks_url: str | None = Field(
        default=None, description="Where its keys are: its `jwks_uri`, by `https://`. New keys need no restart."
    )
    oidc_organization_claim: str = Field(
        default="org",
        min_length=1,
        description="The claim that holds the organization; `a.b`: the field `b` of the claim `a`.",
    )
    oidc_scope_claim: str = Field(
        default="scope",
        min_length=1,
        description="The claim that holds the scopes, as a list or separated by spaces; `a.b` as above.",
    )

    model: str = Field(default="gpt-4o-mini", description="Model that composes the activities.")
    completion_format: CompletionFormat = Field(
        default="auto",
        description="How the endpoint is asked for JSON. `auto`: in the strongest form that it takes, which the fleet "
        "learns once. Otherwise by a strict schema, by `json_object` with the schema or alone, or by the prompt "
        "alone. The answer is validated all the same.",
    )
    generation_concurrency: int = Field(
        default=600,
        ge=1,
        le=10_000,
        description="LLM calls in flight per generation worker. "
        "Higher: more throughput and memory; lower: kinder to the endpoint's rate limits.",
    )
    dispatch_window: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Runs that stand ready for the generation stage or are worked on, at most; the others wait in "
        "Postgres in a fair order. Unset: as many as the live generation workers take, and an eighth more. Higher: "
        "more runs are ahead of a customer's new one; lower: slots stand empty.",
    )
    generation_timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=_DAY_S,
        description="Longest that one call to the LLM may take. Longer: slow models can finish; "
        "shorter: a hung call ends sooner.",
    )
    llm_stream: bool = Field(
        default=True,
        description="Whether the LLM's answers are read while they are written, where the endpoint streams, so that a "
        "job's events tell of each activity. Off: less work for the workers and three events fewer for each job.",
    )
    materials_token_budget: int = Field(
        default=2_000,
        ge=0,
        le=10_000_000,
        description="Most tokens of team materials put in a prompt. Higher: better informed and "
        "more expensive answers.",
    )
    max_completion_tokens: int = Field(
        default=4_000,
        ge=256,
        le=10_000_000,
        description="Most tokens an answer may have; a longer one is cut off and fails.",
    )
    max_tokens_per_job: int = Field(
        default=100_000,
        ge=0,
        le=10**12,
        description="Spend cap: a job whose calls, of all its attempts and runs, have used so many tokens gets no "
        "further one and fails with `spend_cap_reached`; 0: no cap. A call of unknown cost counts as a full answer. "
        "Higher: a job that keeps failing is tried for longer, at more cost.",
    )

    batch_size: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Deliveries that a stage handles in one transaction, at most. "
        "Higher: more throughput under load; lower: shorter locks.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=1_000,
        description="Tries of a stage before it gives a job up. Higher: fewer jobs fail "
        "for a passing fault, and more cost.",
    )
    retry_base_s: float = Field(
        default=2.0,
        gt=0,
        le=_DAY_S,
        description="Delay before the second try, give or take half of it; doubled for each next one.",
    )
    retry_cap_s: float = Field(
        default=300.0,
        gt=0,
        le=_DAY_S,
        description="Longest delay between two tries, give or take half of it; longer if the other side asks for it.",
    )
    stage_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=_DAY_S,
        description="Longest that one transaction of a stage may take; a try may take four of them. "
        "Longer: a slow database "
        "is waited for; shorter: a hung query is tried again sooner.",
    )
    stall_threshold_s: float = Field(
        default=600.0,
        gt=0,
        le=_LONGEST_S,
        description="How long an accepted job may stand still before its events are sent again. Longer: a lost event "
        "is noticed later; shorter than 1.5 retry caps and both timeouts: events of jobs that only wait are sent in "
        "vain.",
    )
    reservation_expiry_s: float = Field(
        default=86_400.0,
        gt=0,
        le=_LONGEST_S,
        description="How long a run may stand still of which nothing is left to send again, before it fails and gives "
        "its quota back. Keep it longer than the longest backlog that is to be worked off.",
    )
    event_retention_days: float = Field(
        default=400.0,
        gt=0,
        le=36_500,
        description="How long the archive keeps the events of jobs that have ended. Longer: more disk, and disputes "
        "about older months can be settled; the status of the jobs stays either way. Failed events that were replayed "
        "or discarded, and ended plans, go with them.",
    )
    job_retention_days: float | None = Field(
        default=None,
        ge=62,
        le=36_500,
        description="How long an ended job is kept with everything about it: status, activities, ledger, attempts. "
        "Whole months are deleted; the counters by month stay. Unset: for ever.",
    )
    llm_hours_retention_days: float = Field(
        default=90.0,
        gt=1,
        le=36_500,
        description="How long the hourly figures of each LLM endpoint are kept, which `teamfit llm endpoints` shows. "
        "What calls have cost stays either way.",
    )
    webhook_allow_private: bool = Field(
        default=False,
        description="Whether webhooks may go to addresses of inner networks and of this machine. On: whoever may add "
        "an endpoint reaches what your network protects. For receivers of your own, and for trying out.",
    )
    webhook_allow_http: bool = Field(
        default=False,
        description="Whether webhooks may go to `http://` addresses too. On: what they say can be read and changed on "
        "its way.",
    )
    webhook_concurrency: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Tries to deliver webhooks under way in a worker at once, 8 of each endpoint at most. Higher: more "
        "endpoints that hang at the same time hold up no other.",
    )
    webhook_retention_days: float = Field(
        default=30.0,
        gt=4,
        le=3_650,
        description="How long deliveries of webhooks are kept, those that wait for a disabled endpoint too. Longer: "
        "more disk, and an endpoint may be disabled for longer without loss.",
    )
    trust_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Lowest trust score that may request. Higher: stricter admission."
    )
    database_pool_size: int = Field(
        default=10,
        ge=1,
        le=1_000,
        description="Postgres connections that a process works with, at most; a few more watch and measure "
        "(docs/deploying.md).",
    )
    topic_partitions: int = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Partitions per topic; more than 1 only to span a Redis Cluster or for Kafka.",
    )
    worker_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which a worker answers /healthz, /readyz and /metrics; unset: it opens none.",
    )
    worker_host: str = Field(
        default="127.0.0.1",
        description="Address on which the worker answers. The port asks for no token: open it to no more than your "
        "probes and Prometheus, `0.0.0.0` in a container whose network is its own.",
    )
    root_path: Prefix = Field(
        default="",
        pattern=r"^((/[\w.~%-]+)*)$",
        description="Prefix below which a proxy serves the API, e.g. `/teamfit`; addresses in answers begin with it.",
    )
    trusted_proxies: Networks = Field(
        default="127.0.0.1,::1",
        pattern=r"^\s*(\*|[\da-fA-F.:/]+(\s*,\s*[\da-fA-F.:/]+)*)\s*$",
        description="Addresses and networks of proxies, separated by commas, whose `X-Forwarded-For`, `-Proto` and "
        "`-Prefix` the API believes; `*`: all addresses.",
    )
    cors_origins: Origins | None = Field(
        default=None,
        pattern=r"^(\*|https?://[^\s/,*]+(\s*,\s*https?://[^\s/,*]+)*)$",
        description="Origins of pages that may call the API from a browser, separated by commas, such as "
        "`https://app.example.com`; `*`: all. Unset: pages of the API's own origin alone.",
    )
    console: bool = Field(
        default=False,
        description="Whether the API serves the operators' console, at `/console/`. Off: `teamfit console` serves it.",
    )
    console_viewers_read_texts: bool = Field(
        default=False,
        description="Whether viewers of the console read what customers and models wrote: requirements, activities, "
        "events, errors' texts. Off: operators alone do.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^https?://\S+$",
        description="Address of an OpenTelemetry collector that takes OTLP over HTTP, such as `http://localhost:4318`; "
        "unset: no traces are made. Needs the extra `otel`.",
    )
    trace_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the jobs that are traced, where their caller has not decided. Higher: costs more.",
    )
    trace_statements: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the traced jobs whose SQL and HTTP calls have spans too. Higher: costs more.",
    )
    trace_prompts: bool = Field(
        default=False,
        description="Whether spans hold the prompts, and with them what customers wrote.",
    )
    trace_to_llm: bool = Field(
        default=False,
        description="Whether calls to the LLM carry `traceparent`, for a gateway of yours to go on with the trace.",
    )
    keep_alive_s: int = Field(
        default=75,
        ge=1,
        le=86_400,
        description="How long the API keeps an idle connection open. Longer than the idle time of the load balancer "
        "before it, which otherwise sends requests into connections that are being closed.",
    )
    log_format: Literal["console", "json"] = Field(default="json", description="Log lines for people or for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe lines that a worker and the API write. `debug` writes most; `error` writes least.",
    )


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return this process's settings, read once. Raises InvalidSetting when the `.env` file cannot be read."""
    return Settings.read()
