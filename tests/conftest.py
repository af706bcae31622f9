"""One real Valkey and one real PostgreSQL for the whole run; a clean database of each for every test."""

import asyncio
import itertools
import os
import re
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
import redis
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from infra.garbage import collect_seldom, spare_what_stays
from infra.local.servers import Postgres, Valkey, start_postgres, start_valkey
from infra.migrations import upgrade
from infra.settings import settings as process_settings
from tests.administrator import Administrator
from tests.command_processes import CommandProcesses
from tests.compiling import share_the_compiling

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_TEMPLATE = "template_migrated"
_LOGICAL_DATABASES = 64
_TESTS: Final = Path(__file__).parent
_ASKS_FOR_PIPELINE: Final = re.compile(r"def test_\w+\([^)]*\b(stack|customer|books|forgery)\b")
_BUSY: Final = ("acceptance", "browser")
_SHORT: Final = "unit"
# These files take half a minute or more while four runners share two processors, the longest first. Most of it waits:
# for registries of packages, ends of leases, pauses and processes. What begins last must be short.
LONGEST_FIRST: Final = (
    "test_up.py",
    "test_commands.py",
    "test_kafka.py",
    "test_further_stage.py",
    "test_bad_worker.py",
    "test_streaming.py",
    "test_wheels_on_each_python.py",
    "test_list_plans.py",
    "test_routes.py",
    "test_poison.py",
    "test_fleet_control.py",
    "test_processes.py",
    "test_from_celery.py",
    "test_typescript.py",
    "test_counts.py",
    "test_duplicates.py",
    "test_tansu.py",
    "test_pacing.py",
    "test_every_answer.py",
    "test_openapi_kept.py",
    "test_servers.py",
    "test_verify.py",
    "test_problems.py",
    "test_gate.py",
    "test_client_wheel.py",
    "test_traces.py",
    "test_in_flight.py",
    "test_endpoints.py",
    "test_rough_handling.py",
    "test_dispatch.py",
    "test_endpoint_away.py",
    "test_quota_worker.py",
    "test_schedule_worker.py",
    "test_blame.py",
    "test_webhooks_worker.py",
    "test_wheels.py",
    "test_overview.py",
    "test_unsupported.py",
    "test_database_tls.py",
)
# Of what a failed test printed, the end is shown: a whole log of it pushes the names of other failures out of sight.
_CAPTURED_SHOWN: Final = 4_000

collect_seldom()

# The same examples each time, so that a change is judged by what it changes. `make fuzz` looks at others.
# No example has a deadline: on a busy machine the fastest takes longer than Hypothesis allows now and then.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@cache
def _shared_pipeline(file: str) -> str | None:
    """Return whose pipeline the tests of a file share, or None."""
    folder = Path(file).parent
    if folder == Path("tests/browser"):
        return str(folder)
    shares = folder == Path("tests/acceptance") and _ASKS_FOR_PIPELINE.search((_TESTS.parent / file).read_text())
    return str(folder) if shares else None


def _scope(nodeid: str) -> str:
    """Return what is run by one runner: a file, or all that share a pipeline, as each runner would start its own."""
    file = nodeid.partition("::")[0]
    return _shared_pipeline(file) or file


def _place(scope: str) -> int:
    name = Path(scope).name
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


class _Scheduling(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Share the tests out as `make test` asks for it."""
    return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Have runners that start together compile each module once."""
    if runner := getattr(session.config, "workerinput", None):
        number = int(runner["workerid"].removeprefix("gw"))
        share_the_compiling(session.config, runner=number, runners=runner["workercount"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes long first when runners share the tests, so that none is left with it when the others are done.

    Pipelines of many processes need the processors, most others wait: they come in turn. Last, because pytest-randomly
    shuffles in the same hook; beside this its order stays.
    """
    if not hasattr(config, "workerinput"):
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(_scope(item.nodeid), []).append(item)
    folders = {scope: Path(scope).parts[1] for scope in tests}
    busy = [scope for scope in tests if folders[scope] in _BUSY]
    waiting = [scope for scope in tests if folders[scope] not in (*_BUSY, _SHORT)]
    busy.sort(key=lambda scope: (scope.endswith(".py"), _place(scope)))
    waiting.sort(key=_place)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(busy, waiting))
    order = [*filter(None, in_turn), *(scope for scope in tests if folders[scope] == _SHORT)]
    items[:] = [item for scope in order for item in tests[scope]]


def pytest_collection_finish() -> None:
    """Have no look for garbage go through all tests that there are."""
    spare_what_stays()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shorten what a test has printed."""
    report = yield
    report.sections = [(title, _end(text)) for title, text in report.sections]
    return report


def _end(text: str) -> str:
    left_out = len(text) - _CAPTURED_SHOWN
    return text if left_out <= 0 else f"({left_out:,} characters before)\n{text[-_CAPTURED_SHOWN:]}"


@pytest.fixture(autouse=True)
def _settings_of_its_own() -> None:
    """Have each test read this process's settings from its own environment, and not from an earlier test's."""
    process_settings.cache_clear()


@pytest.fixture(scope="session")
def command_processes() -> Iterator[CommandProcesses]:
    """Runs commands of `teamfit`, each as a process of its own."""
    loaded = CommandProcesses()
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """The run's Valkey. A test that flushes all of it, kills or stalls it starts one of its own instead."""
    with start_valkey(append_only=False, options=("--databases", str(_LOGICAL_DATABASES))) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The run's PostgreSQL. A test that kills or stalls it starts one of its own instead."""
    with start_postgres(durable=False, in_memory=True) as server:
        yield server


@pytest.fixture(scope="session")
def _logical_databases() -> Iterator[int]:
    return itertools.cycle(range(_LOGICAL_DATABASES))


@pytest.fixture
def redis_url(valkey_server: Valkey, _logical_databases: Iterator[int]) -> str:
    """A broker URL that sees no keys but the test's own.

    Each test gets the next logical database, emptied: a worker that outlives its test writes where nobody looks for
    the next sixty tests.
    """
    url = f"redis://127.0.0.1:{valkey_server.port}/{next(_logical_databases)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def _administrator(postgres_server: Postgres) -> Iterator[Administrator]:
    """Who makes and drops the tests' databases."""
    administrator = Administrator(postgres_server.url)
    yield administrator
    administrator.close()


@pytest.fixture(scope="session")
def _migrated_template(postgres_server: Postgres, _administrator: Administrator) -> str:
    """The name of a database with the schema in it, which others are cloned from."""
    _administrator.execute(f"CREATE DATABASE {_TEMPLATE}")
    run_apart(upgrade(postgres_server.url_of(_TEMPLATE)))
    # A template with a visitor in it cannot be cloned.
    _administrator.execute(
        f"ALTER DATABASE {_TEMPLATE} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_TEMPLATE}'",
    )
    return _TEMPLATE


@pytest.fixture(scope="session")
def _database_names() -> Iterator[str]:
    return (f"test_{number}" for number in itertools.count(1))


@pytest.fixture
def empty_database_url(
    postgres_server: Postgres, _administrator: Administrator, _database_names: Iterator[str]
) -> Iterator[str]:
    """The URL of a database without tables, for tests of the migrations themselves."""
    with _own_database(_administrator, name := next(_database_names), template="template1"):
        yield postgres_server.url_of(name)


@pytest.fixture
def database_url(
    postgres_server: Postgres, _administrator: Administrator, _migrated_template: str, _database_names: Iterator[str]
) -> Iterator[str]:
    """The URL of a database with the current schema and no rows, the test's own."""
    with _own_database(_administrator, name := next(_database_names), template=_migrated_template):
        yield postgres_server.url_of(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Pool]:
    """A pool of connections to the test's own database, for arranging rows and looking at them."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=5) as pool:
        yield pool


@contextmanager
def _own_database(administrator: Administrator, name: str, *, template: str) -> Iterator[None]:
    # Copying files takes a quarter of the time of copying through the log.
    administrator.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield
    administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def run_apart(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine in a thread of its own, so that the test's event loop is not touched."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
