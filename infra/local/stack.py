"""The stack runs the whole pipeline on this machine as child processes. They start in order and stop together.

Every part that the settings already name (`DATABASE_URL`, `BROKER_URL`, an LLM endpoint) is used as it is; the others
are embedded. All children hang on this process: however it ends, they end too (see `processes`).
"""

import asyncio
import http.client
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from infra.auth import issue_token, signing_key
from infra.errors import DependencyDown
from infra.local.environment import environment
from infra.local.lifecycle import Server
from infra.local.organizations import seed
from infra.local.processes import HOST, GuardedProcess, ServerFailed, free_port, remove_folder
from infra.local.servers import Postgres, Valkey, start_postgres, start_valkey
from infra.migrations import upgrade
from infra.ports import require_free
from infra.settings import Settings
from producers.broker import Broker
from streams.jobs.stages import STAGES

WORKERS: Final = tuple(stage.name for stage in STAGES)
API: Final = "api"
ALL: Final = "all"  # every stage in one worker
PROCESSES: Final = "processes"  # every stage, each in a process that is forked from one
LLM: Final = "llm"
WEB: Final = "web"  # the example of a front end
TRACES: Final = "traces"  # a collector that shows what it gets

# Generous: a cold disk and a busy machine may take long to import everything; a child that dies ends the wait at once.
_READY_S = 60.0
_BROKER_S = 10.0
_TOKEN_LIFETIME = timedelta(days=1)
_LOOKED_AT: Final = {API: "/readyz", LLM: "/v1/models", WEB: "/", TRACES: "/"}


class Stack:
    """The running pipeline; a context manager.

    Entering and leaving block for some seconds and start event loops of their own, so an async caller hands both to a
    thread. `kill` and `start` take one part down and bring it back, as a crash and its supervisor would.

    Attributes:
        settings: what the children run with, the addresses of the embedded parts included.
        given: the settings that the user made.
        folder: holds the children's logs; removed in the end.
        valkey: the embedded broker, or None when the settings name one.
        postgres: the embedded database, or None when the settings name one.
        offline: whether the offline LLM server answers instead of a real endpoint.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        api_port: int | None = None,
        llm_latency_s: float = 1.0,
        broker_parameters: str = "",
        durable: bool = True,
        parts: Iterable[str] = (*WORKERS, API),
        variables: Callable[[str], Mapping[str, str]] = lambda _part: {},
        report: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """Remember what to start.

        Args:
            settings: the user's own; see the module for what they replace.
            api_port: the API's port; a free one by default.
            llm_latency_s: how long the offline LLM takes for each answer.
            broker_parameters: the query of the embedded broker's URL, such as "lease=2s".
            durable: whether the embedded servers survive a crash of the machine; off is faster, in memory if it can.
            parts: which stages to run (or `ALL`, or `PROCESSES`), and whether the API, `WEB` and `TRACES`. A name with
                a number is one more of the same: "quota-2".
            variables: called with the name of a part; more environment variables for it.
            report: called with each step of the start, for people to read.
        """
        self.settings = settings
        self.given = frozenset(settings.model_fields_set)
        self.valkey: Valkey | None = None
        self.postgres: Postgres | None = None
        self.offline = not (settings.openai_api_key or settings.openai_base_url or settings.llm_endpoints)
        self._fixed_port = api_port is not None
        self._ports = {API: api_port or free_port()}
        self._llm_latency_s = llm_latency_s
        self._broker_parameters = broker_parameters
        self._durable = durable
        self._parts = tuple(parts)
        self._variables = variables
        self._report = report
        self._children: dict[str, GuardedProcess] = {}

    @property
    def api_url(self) -> str:
        """The API's address."""
        return self.url_of(API)

    @property
    def web_url(self) -> str:
        """The front end's address."""
        return self.url_of(WEB)

    @property
    def broker_address(self) -> str:
        """The broker's URL without the transport's settings, for plain Redis clients."""
        return self.settings.broker_url.partition("?")[0]

    def url_of(self, part: str) -> str:
        """Return the address of a part that serves HTTP."""
        return f"http://{HOST}:{self._port_of(part)}"

    def has(self, part: str) -> bool:
        """Return whether a part was asked for."""
        return part in self._parts

    def token(self, organization_id: str) -> str:
        """Return a bearer token for an organization."""
        return issue_token(signing_key(self.settings), organization_id=organization_id, lifetime=_TOKEN_LIFETIME)

    def __enter__(self) -> Self:
        """Start everything and wait until it is ready.

        Raises:
            LocalServerError: a part did not start; the message says which and holds the end of its log.
            TeamfitError: the database cannot be migrated or reached, or the broker that the settings name cannot.
        """
        # Said before anything is started, so that a taken port costs no wait.
        if self._fixed_port:
            require_free(self._ports[API], "--port")
        if "broker_url" in self.settings.model_fields_set:
            asyncio.run(_require_broker(self.settings))
        self.folder = Path(tempfile.mkdtemp(prefix="teamfit-run-"))
        try:
            self._start_servers()
            self._report("preparing the database")
            asyncio.run(self._prepare_database())
            self._report("starting the stages and the API")
            self.start(*self._parts)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.close()

    def start(self, *names: str) -> None:
        """Start parts that do not run, and wait until all of them are ready.

        Raises:
            LocalServerError: one ended, or was not ready in time; the message holds the end of its log.
        """
        for name in names:
            self._ready_file(name).unlink(missing_ok=True)
            self._children[name] = self._child(name, self._command(name))
        for name in names:
            self._wait_ready(name, self._children[name])

    def kill(self, name: str) -> None:
        """End one part by SIGKILL."""
        self._children.pop(name).kill()

    def stop(self, name: str) -> None:
        """Ask one part to end in good order."""
        self._children.pop(name).stop()

    def pids(self) -> dict[str, int]:
        """Return the process ID of every child and embedded server, by name."""
        servers = {name: server.pid for name, server in self._servers().items() if server.running}
        return {name: child.pid for name, child in self._children.items()} | servers

    def check(self) -> None:
        """Look whether every child still lives.

        Raises:
            LocalServerError: one has ended by itself; the message holds the end of its log.
        """
        for name in self.ended():
            raise ServerFailed(name, "ended by itself", self.log_of(name))

    def ended(self) -> dict[str, str]:
        """Return how each part ended that has ended by itself, by name."""
        # Servers first: the others would not become ready without them.
        parts: dict[str, Server | GuardedProcess] = {**self._servers(), **self._children}
        return {name: part.ending for name, part in parts.items() if not part.running}

    def start_again(self, name: str) -> None:
        """Start a part that has ended by itself, and wait until it is ready.

        Raises:
            LocalServerError: it ended, or was not ready in time; the message holds the end of its log.
        """
        server = self._servers().get(name)
        if server is not None:
            server.restart()
            return
        self._children.pop(name).stop()
        self.start(name)

    def log_of(self, name: str) -> Path:
        """Return the file that a part writes its log to."""
        server = self._servers().get(name)
        return self.folder / f"{name}.log" if server is None else server.log

    def _servers(self) -> dict[str, Server]:
        return {server.name: server for server in (self.valkey, self.postgres) if server is not None}

    def close(self) -> None:
        """Stop everything, dependants first, and remove its files. It may be repeated."""
        children, self._children = self._children, {}
        llm = children.pop(LLM, None)
        _all_at_once([child.stop for child in children.values()])
        rest = [part.stop for part in (llm, self.valkey, self.postgres) if part is not None]
        self.valkey = self.postgres = None
        _all_at_once(rest)
        remove_folder(self.folder)

    def _start_servers(self) -> None:
        given = self.settings.model_fields_set
        updates: dict[str, object] = {}
        if self.offline:
            self._report("starting the offline LLM server")
            self._children[LLM] = self._child(LLM, self._command(LLM))
            updates |= {
                "openai_base_url": f"http://{HOST}:{self._port_of(LLM)}/v1",
                "openai_api_key": SecretStr("offline"),
            }
        if "broker_url" not in given:
            self._report("starting Valkey")
            self.valkey = start_valkey(in_memory=not self._durable)
            updates["broker_url"] = f"{self.valkey.url}?{self._broker_parameters}".rstrip("?")
        if "database_url" not in given:
            self._report("starting PostgreSQL")
            self.postgres = start_postgres(durable=self._durable, in_memory=not self._durable)
            updates["database_url"] = self.postgres.url
        if self.settings.signing_key is None:
            updates["signing_key"] = SecretStr(secrets.token_urlsafe(32))
        # Receivers of webhooks are on this machine too.
        for name in ("webhook_allow_private", "webhook_allow_http"):
            if name not in given:
                updates[name] = True
        if WEB in self._parts:
            updates["cors_origins"] = self._origins()
        if TRACES in self._parts:
            updates |= {"otlp_endpoint": self.url_of(TRACES), "trace_share": 1.0, "trace_statements": 1.0}
        self.settings = self.settings.model_copy(update=updates)
        if self.offline:
            self._wait_ready(LLM, self._children[LLM])

    def _origins(self) -> str:
        """Return which pages may call the API: the front end's besides those that the settings name."""
        given = self.settings.cors_origins
        own = f"{self.web_url},http://localhost:{self._port_of(WEB)}"
        return {None: own, "*": "*"}.get(given, f"{given},{own}")

    async def _prepare_database(self) -> None:
        await upgrade(self.settings.database_url)
        await seed(self.settings.database_url)

    def _command(self, name: str) -> list[str]:
        if _kind(name) == API:
            return ["-m", "infra.cli", "api", "--host", HOST, "--port", str(self._port_of(name))]
        if name == WEB:
            return ["-m", "infra.local.web", "--port", str(self._port_of(WEB)), "--api", self.api_url]
        if name == TRACES:
            return ["-m", "infra.local.traces", "--port", str(self._port_of(TRACES))]
        if name == LLM:
            return ["-m", "infra.local.llm", "--port", str(self._port_of(LLM)), "--latency", str(self._llm_latency_s)]
        stages = [ALL, "--processes"] if name == PROCESSES else [_kind(name)]
        return ["-m", "infra.cli", "worker", *stages, "--ready-file", str(self._ready_file(name))]

    def _child(self, name: str, arguments: list[str]) -> GuardedProcess:
        return GuardedProcess(
            [sys.executable, *arguments],
            name=name,
            log=self.folder / f"{name}.log",
            stop_signal=signal.SIGTERM,
            # Any of the children will do: its watchdog removes the folder that they share.
            remove_on_death=self.folder,
            env={**environment(self.settings), **self._variables(name)},
        )

    def _wait_ready(self, name: str, child: GuardedProcess) -> None:
        path = _LOOKED_AT.get(_kind(name))
        ready = self._ready_file(name).exists if path is None else lambda: _answers(self._port_of(name), path)
        child.wait_ready(ready, timeout_s=_READY_S)

    def _ready_file(self, name: str) -> Path:
        return self.folder / f"{name}.ready"

    def _port_of(self, part: str) -> int:
        return self._ports.setdefault(part, free_port())


async def _require_broker(settings: Settings) -> None:
    """Ask for a sign of life: stages that wait for a broker, or end for want of one, do not say it to the user.

    Raises:
        DependencyDown: there was none; the message names the setting.
    """
    broker = Broker(settings, name="stack")
    try:
        async with asyncio.timeout(_BROKER_S):
            await broker.probe()
    except TimeoutError as error:
        raise DependencyDown("broker", f"the broker did not answer in {_BROKER_S:g} s; check BROKER_URL") from error
    finally:
        await broker.close()


def _kind(name: str) -> str:
    """Return what a part is, whichever of several it is."""
    return name.partition("-")[0]


def _answers(port: int, path: str) -> bool:
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(HOST, port, timeout=5)) as connection,
    ):
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _all_at_once(stops: list[Callable[[], None]]) -> None:
    """Run every stop, each in a thread of its own, and raise the first error when all are through."""
    if not stops:
        return
    with ThreadPoolExecutor(len(stops)) as threads:
        results = [threads.submit(stop) for stop in stops]
    for result in results:
        result.result()
