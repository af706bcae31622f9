"""The pipeline with the rights that docs/deploying.md gives to each process, and nothing beyond them."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from infra.local.organizations import BIRCH
from infra.local.servers import Postgres, start_valkey
from infra.local.stack import ALL, API, WORKERS, Stack
from infra.migrations import upgrade
from infra.settings import Settings
from producers.broker import Broker
from producers.client import JobRequests
from tests.acceptance.customer import WISH, Customer, assert_three_activities
from tests.acceptance.running import running
from tests.conftest import run_apart

_DEPLOY = Path(__file__).parents[2] / "infra" / "deploy"
USERS = ("admin", "upstream", "api", "operator", ALL, *WORKERS)
TOPICS = ("job-requests", "job-accepted", "job-accepted-priority", "job-events", "dead-letters")
WRITES = {
    "upstream": {"job-requests"},
    "api": set(TOPICS),
    "operator": set(TOPICS),
    "quota": {"job-accepted", "job-events", "dead-letters"},
    "generation": {"job-accepted", "job-events", "dead-letters"},
    "projection": {"dead-letters"},
    "failures": {"job-events", "dead-letters"},
    "webhooks": {"dead-letters"},
    "schedule": set(TOPICS),
    ALL: set(TOPICS),
}
READS = {
    "quota": {"job-requests", "job-events"},
    "generation": {"job-accepted", "job-accepted-priority"},
    "projection": {"job-requests", "job-events"},
    "failures": {"dead-letters"},
    "webhooks": {"job-events"},
    ALL: set(TOPICS),
}


def password(user: str) -> str:
    """The password of one of the broker's users in these tests."""
    return f"of-{user}"


def add_users(url: str) -> None:
    """Give a server the users that `users.sh` prints."""
    variables = {f"BROKER_PASSWORD_{user.upper()}": password(user) for user in USERS}
    printed = subprocess.run(
        ["/bin/sh", _DEPLOY / "valkey" / "users.sh"], env=variables, capture_output=True, text=True, check=True
    ).stdout
    with Redis.from_url(url) as client:
        for line in reversed(printed.splitlines()):  # the default user, as which this is done, is switched off last
            _, name, *rules = re.findall(r"\([^)]*\)|\S+", line)
            client.execute_command("ACL", "SETUSER", name, *rules)


async def execute(url: str, statements: str) -> None:
    """Execute statements, as the server's superuser."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def as_user(url: str, user: str, its_password: str | None = None) -> str:
    """The broker's or the database's URL for one of its users."""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{user}:{its_password or password(user)}@{rest.rpartition('@')[2]}"


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """A broker with the users."""
    with start_valkey() as server:
        add_users(server.url)
        yield server.url


@pytest.fixture(scope="module")
def postgres(postgres_server: Postgres) -> Iterator[str]:
    """A database with the roles, migrated by the one that may."""
    url = postgres_server.url_of("least_rights")
    run_apart(execute(postgres_server.url, "CREATE DATABASE least_rights"))
    run_apart(execute(url, re.sub(r":'(\w+)_password'", r"'of-\1'", (_DEPLOY / "postgres" / "roles.sql").read_text())))
    run_apart(upgrade(as_user(url, "teamfit_migrate", "of-migrate")))
    yield url
    run_apart(execute(postgres_server.url, "DROP DATABASE least_rights WITH (FORCE)"))
    run_apart(execute(postgres_server.url, "DROP ROLE teamfit_migrate, teamfit_app"))


@pytest.fixture(scope="module", params=[WORKERS, (ALL,)], ids=["a worker a stage", "one worker"])
def pipeline(valkey: str, postgres: str, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Each process as its own user of the broker, and all as the application's role of the database."""
    urls = {
        "database_url": as_user(postgres, "teamfit_app", "of-database"),
        "broker_url": as_user(valkey, "api"),
    }
    made = Stack(
        Settings.model_validate(urls),
        llm_latency_s=0.2,
        parts=(*request.param, API),
        variables=lambda part: {"BROKER_URL": as_user(valkey, part)} if part in {*request.param, API} else {},
    )
    with Redis.from_url(as_user(valkey, "admin")) as admin:
        admin.acl_log_reset()  # of what other tests were refused
    with running(made):
        yield made


async def test_the_pipeline_needs_no_more(pipeline: Stack, valkey: str) -> None:
    """With all of them at once jobs are done and counted, and nobody has asked for what it may not."""
    async with aiohttp.ClientSession(pipeline.api_url) as http:
        customer = Customer(pipeline, http)
        _, accepted = await customer.post()
        async with JobRequests.connect(as_user(valkey, "upstream")) as requests:
            job_id = await requests.submit(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=WISH)
        for job in (accepted["job_id"], job_id):
            assert_three_activities(await customer.ended_job(job))
        async with http.get("/metrics") as answer:
            assert 'teamfit_source_up{source="broker"} 1.0' in await answer.text()
    # What a worker does when it stops: hand back, resign, tell, leave. Nothing needs them any more.
    workers = [part for part in pipeline.pids() if part in USERS and part != API]
    await asyncio.gather(*(asyncio.to_thread(pipeline.stop, worker) for worker in workers))
    broker = Broker(Settings.model_validate({"broker_url": as_user(valkey, "operator")}), name="lag")
    assert {backlog.topic for backlog in await broker.backlogs()} == set(TOPICS)
    await broker.close()
    with Redis.from_url(as_user(valkey, "admin")) as admin:
        log: Any = admin.acl_log()
    assert [(entry["username"], entry["object"]) for entry in log] == []


@pytest.mark.parametrize("user", WRITES)
def test_who_may_write_which_stream(valkey: str, user: str) -> None:
    """Each user writes the streams that are its own to write, and is refused every other, by script too."""
    with Redis.from_url(as_user(valkey, user)) as client:
        for topic in TOPICS:
            for command in (("XADD", topic, "0-0", "a", "b"), ("XADD", f"{{{topic}.1}}", "0-0", "a", "b")):
                with pytest.raises(ResponseError) as caught:
                    client.execute_command(*command)
                assert isinstance(caught.value, NoPermissionError) == (topic not in WRITES[user]), command
            if topic not in WRITES[user]:
                with pytest.raises(ResponseError):
                    client.eval("return redis.call('XADD', KEYS[1], '*', 'a', 'b')", 1, topic)


@pytest.mark.parametrize("user", WRITES)
def test_who_may_take_from_which_stream(valkey: str, user: str) -> None:
    """Taking, acknowledging, trimming and resetting is for the stages that read the stream; deleting is for nobody."""
    with Redis.from_url(as_user(valkey, user)) as client:
        for topic in TOPICS:
            for command in _reading(topic):
                assert _refused(client, command) == (topic not in READS.get(user, set())), command
            for command in _destroying(topic):
                assert _refused(client, command), command
        for command in _ANYTHING_ELSE:
            assert _refused(client, command), command


def _reading(topic: str) -> list[tuple[str, ...]]:
    return [
        ("XREADGROUP", "GROUP", "none", "me", "STREAMS", topic, ">"),
        ("XACK", topic, "none", "1-1"),
        ("XTRIM", topic, "MINID", "0"),
    ]


def _destroying(topic: str) -> list[tuple[str, ...]]:
    never = [("DEL", topic), ("XGROUP", "DESTROY", topic, "none"), ("XGROUP", "SETID", topic, "none", "0")]
    return [*never, ("XREAD", "STREAMS", topic, "0"), ("XRANGE", topic, "-", "+"), ("XDEL", topic, "1-1")]


_ANYTHING_ELSE = (
    ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("CLIENT", "LIST"), ("SUBSCRIBE", "a"),
)  # fmt: skip


def _refused(client: Any, command: tuple[str, ...]) -> bool:
    try:
        client.execute_command(*command)
    except NoPermissionError:
        return True
    except ResponseError:  # such as that there is no such group: it was let through
        return False
    return False


def test_nobody_comes_without_a_password(valkey: str) -> None:
    """The default user is off, and a wrong password is refused."""
    for url in (valkey, as_user(valkey, "api", "wrong")):
        with Redis.from_url(url) as client, pytest.raises(AuthenticationError):
            client.ping()


async def test_the_applications_role_changes_rows_alone(postgres: str) -> None:
    """It is no superuser and owns nothing."""
    connection = await asyncpg.connect(as_user(postgres, "teamfit_app", "of-database"))
    try:
        for statement in (
            "CREATE TABLE more (id int)",
            "ALTER TABLE customization_jobs ADD COLUMN more int",
            "DROP TABLE customization_jobs",
            "TRUNCATE job_events",
            "CREATE ROLE more",
            "COPY job_events TO PROGRAM 'true'",
            "SET ROLE teamfit_migrate",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
