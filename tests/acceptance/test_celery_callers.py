"""Code that called the Celery task calls the pipeline, unchanged but for the import."""

import asyncio
import pickle
import re
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, date, datetime, timedelta
from operator import or_
from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.errors import InvalidSetting
from infra.local.organizations import BIRCH, CEDAR
from infra.local.stack import Stack
from producers.celery_compat import (
    FAILURE,
    PENDING,
    REVOKED,
    SUCCESS,
    AsyncResult,
    TaskFailed,
    TaskRevokedError,
    generate_custom_activities_task,
)
from producers.client import InvalidArgument
from streams.jobs.job_ids import job_id_for
from tests.acceptance.customer import WISH
from tests.conftest import Pool


@pytest.fixture(autouse=True)
def addresses(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of the old code has to hold."""
    monkeypatch.setenv("PIPELINE_URL", stack.settings.broker_url)
    monkeypatch.setenv("DATABASE_URL", stack.settings.database_url)


async def row(books: Pool, organization_id: str = BIRCH.id, team_id: str = BIRCH.team.id) -> str:
    """Write a job's row, as the old backend did before it called the task; return the job's ID."""
    job_id = uuid4()
    await books.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, requirements, status) "
        "VALUES ($1, $2, $3, $4, 'pending')",
        *(job_id, organization_id, team_id, WISH),
    )
    return str(job_id)


def call_and_wait(job_id: str, team_id: str, organization_id: str) -> Any:
    """Call the task as the old guide has it; there is no event loop in this thread."""
    result = generate_custom_activities_task.delay(job_id, team_id, organization_id)
    assert result.id == job_id
    activities = result.get(timeout=60)
    assert (result.state, result.status, result.ready(), result.successful()) == (SUCCESS, SUCCESS, True, True)
    return activities


async def test_delay_gives_three_activities(books: Pool) -> None:
    """The requirements are read from the job's row; the row becomes the job's, and calling again changes nothing."""
    job_id = await row(books)
    done = await asyncio.to_thread(call_and_wait, job_id, BIRCH.team.id, BIRCH.id)
    assert (done["job_id"], len(done["activities"])) == (job_id, 3)
    assert done["activities"][0]["steps"]
    again = await asyncio.to_thread(call_and_wait, job_id, BIRCH.team.id, BIRCH.id)
    assert again == done
    charged = "SELECT count(*) FROM quota_ledger WHERE job_id = $1 AND state = 'charged'"
    assert await books.fetchval(charged, UUID(job_id)) == 1


async def test_it_can_be_called_beside_an_event_loop() -> None:
    """An asynchronous view that calls `.delay()` gets what a synchronous one gets, requirements of its own included."""
    job_id = str(uuid4())
    result = generate_custom_activities_task.delay(
        job_id=job_id, team_id=BIRCH.team.id, organization_id=BIRCH.id, requirements=WISH
    )
    assert isinstance(await asyncio.to_thread(result.get, 60), dict)


async def test_a_refused_job_is_a_failure(books: Pool) -> None:
    """`get` raises with the job's code, or returns the error if it is not to raise."""
    job_id = await row(books, CEDAR.id, CEDAR.team.id)
    result = generate_custom_activities_task.apply_async(args=[job_id, CEDAR.team.id, CEDAR.id], priority=9)
    with pytest.raises(TaskFailed) as caught:
        await asyncio.to_thread(result.get, 60)
    assert caught.value.code == CEDAR.refusal
    assert result.failed()
    assert result.state == FAILURE
    assert isinstance(result.get(propagate=False), TaskFailed)
    assert isinstance(result.maybe_throw(propagate=False), TaskFailed)
    for throw in (result.maybe_throw, result.maybe_reraise):
        with pytest.raises(TaskFailed, match=re.escape(str(caught.value))):
            throw()
    assert (result.traceback, result.parent, result.children) == (None, None, [])


@pytest.mark.parametrize(
    "when",
    [
        {"countdown": 3_600},
        {"eta": datetime.now(UTC) + timedelta(hours=1)},
        {"eta": (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)},
        {"eta": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
        {"eta": datetime.now(UTC) + timedelta(hours=1), "countdown": 0},
    ],
    ids=["countdown", "eta", "naive eta", "eta as text", "eta and no countdown"],
)
async def test_a_delayed_call_waits_and_can_be_revoked(books: Pool, when: dict[str, Any]) -> None:
    """It is PENDING until its time; `get` gives up after its timeout; once revoked it stays so."""
    job_id = await row(books)
    result = generate_custom_activities_task.apply_async(args=[job_id, BIRCH.team.id, BIRCH.id], **when)
    with pytest.raises(TimeoutError, match="goes on"):
        await asyncio.to_thread(result.get, 0.5, interval=0.1)
    assert (result.state, result.ready(), result.result) == (PENDING, False, None)
    generate_custom_activities_task.AsyncResult(job_id).revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        await asyncio.to_thread(result.get, 60)
    assert result.state == REVOKED


@pytest.mark.parametrize("countdown", [1e12, -1e12, 1e300, float("inf"), float("nan"), "soon", [1]], ids=repr)
def test_a_countdown_that_ends_at_no_time_is_refused(countdown: Any) -> None:
    """The caller reads which argument is wrong; nothing is sent."""
    with pytest.raises(InvalidArgument, match=r"^countdown: "):
        generate_custom_activities_task.apply_async(GIVEN, countdown=countdown)


@pytest.mark.parametrize("eta", ["tomorrow", "", 3, 1.5, date(2031, 4, 3), timedelta(hours=1)], ids=repr)
def test_an_eta_that_is_no_moment_is_refused(eta: Any) -> None:
    """As above."""
    with pytest.raises(InvalidArgument, match=r"^eta: "):
        generate_custom_activities_task.apply_async(GIVEN, eta=eta)


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"timeout": "5"}, "^timeout: must be a number"),
        ({"timeout": timedelta(seconds=5)}, "^timeout: "),
        ({"timeout": float("nan")}, "^timeout: "),
        ({"interval": None}, "^interval: "),
        ({"callback": print}, "^callback: a result is waited for without it"),
        ({"on_message": print}, "^on_message: a result is waited for without it"),
    ],
)
def test_a_wait_that_cannot_be_is_refused(how: Any, names: str) -> None:
    """Before anything is asked, by the argument's name."""
    with pytest.raises(InvalidArgument, match=names):
        AsyncResult(GIVEN[0]).get(**how)


def test_results_are_waited_for_as_celery_has_it() -> None:
    """By place or by name, with what only says how Celery would; no time, less than none, no pause between looks."""
    result = AsyncResult(GIVEN[0])
    assert (str(result), f"{result}", result.task_id, result.info) == (*[GIVEN[0]] * 3, None)
    assert (result.maybe_throw(), result.traceback) == (None, None)
    assert copy(result) == pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - its own
    with pytest.raises(InvalidArgument, match=r"^callback: "):
        result.maybe_throw(callback=print)  # type: ignore[arg-type] # as old code may have it
    for arguments, how in (
        ((0,), {}),
        ((0.1, False, 0), {"no_ack": True, "follow_parents": True}),
        ((), {"timeout": -3, "disable_sync_subtasks": False}),
        ((0, True, 0.5, True, True), {"callback": None, "on_message": None}),
        ((0,), {"interval": float("inf")}),
    ):
        for wait in (result.get, result.wait):
            with pytest.raises(TimeoutError, match="PENDING"):
                wait(*arguments, **how)


def test_a_call_may_have_its_arguments_by_name_alone() -> None:
    """`args=None` is Celery's own default; a text in the place of a list is refused as that."""
    named = dict(zip(("job_id", "team_id", "organization_id"), GIVEN, strict=True))
    with pytest.raises(InvalidArgument, match="commit the row before the call"):
        generate_custom_activities_task.apply_async(None, named)
    with pytest.raises(InvalidArgument, match=r"^args: must be a list"):
        generate_custom_activities_task.apply_async(GIVEN[0])


@pytest.mark.parametrize("countdown", [0, -5, 0.25, True], ids=repr)
async def test_a_countdown_that_is_over_begins_at_once(books: Pool, countdown: Any) -> None:
    """As Celery has it; fractions count."""
    job_id = await row(books)
    result = generate_custom_activities_task.apply_async([job_id, BIRCH.team.id, BIRCH.id], countdown=countdown)
    assert isinstance(await asyncio.to_thread(result.get, 60), dict)


def test_a_job_that_nobody_knows_is_pending() -> None:
    """That is Celery's word for it; to revoke it is an error, because nothing would come of it."""
    result = AsyncResult(str(uuid4()))
    assert (result.state, result.result) == (PENDING, None)
    with pytest.raises(InvalidArgument, match=r"^id: there is no job"):
        result.revoke()


WAYS: Mapping[str, Callable[[Any, UUID, str, str], AsyncResult]] = {
    "every option": lambda task, job, team, organization: task.apply_async(
        (job, team, organization), **OPTIONS, link=None, link_error=[], expires=None
    ),
    "the ID by place": lambda task, job, team, organization: task.apply_async(
        [job, team], {"organization_id": organization}, str(job).upper()
    ),
    "a signature": lambda task, job, team, organization: task.s(job, team, organization).delay(),
    "a part of one": lambda task, job, team, organization: task.s(organization).set(priority=3).delay(job, team),
    "an immutable one": lambda task, job, team, organization: task.si(job, team, organization).apply_async(("more",)),
    "one with options": lambda task, job, team, organization: task.subtask(
        [job], {"team_id": team}, countdown=0.1
    ).apply_async(kwargs={"organization_id": organization}),
}
OPTIONS: Mapping[str, Any] = {
    **dict.fromkeys(("queue", "routing_key", "exchange", "shadow", "serializer", "compression", "reply_to"), "x"),
    "priority": 9,
    "headers": {"a": 1},
    "ignore_result": True,
    "retry": True,
    "retry_policy": {"max_retries": 3},
    "add_to_parent": False,
    "connection": object(),
    "publisher": object(),
    "time_limit": None,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_each_way_to_call_is_one_job(books: Pool, way: Any) -> None:
    """With all that says how a message travels, in parts, and by signatures."""
    job_id = await row(books)
    result = way(generate_custom_activities_task, UUID(job_id), BIRCH.team.id, BIRCH.id)
    assert result == AsyncResult(job_id) == AsyncResult(UUID(job_id), app=object(), backend=None)
    assert isinstance(await asyncio.to_thread(result.get, 60), dict)
    result.forget()
    assert result.state == SUCCESS


@pytest.mark.parametrize(
    "missing", ["apply", "retry", "map", "starmap", "chunks", "request", "app", "run", "delay_on_commit"]
)
def test_what_a_task_has_not_is_said(missing: str) -> None:
    """With what to call in its place; so for a signature, and for a result."""
    for one, says in (
        (generate_custom_activities_task, "call delay or apply_async"),
        (generate_custom_activities_task.s(*GIVEN), "call delay or apply_async"),
        (AsyncResult(GIVEN[0]), "it has id, state, result and get"),
    ):
        assert not hasattr(one, missing)
        with pytest.raises(AttributeError, match=rf"^{missing}: .*{says}"):
            getattr(one, missing)


def test_work_here_and_now_and_chains_are_refused() -> None:
    """A job is followed by its events."""
    one = generate_custom_activities_task.s(*GIVEN)
    for call in (generate_custom_activities_task, one):
        with pytest.raises(InvalidArgument, match="the work is done by the pipeline alone"):
            call(*GIVEN)
    for first, then in ((one, one), (one, 7), (7, one)):
        with pytest.raises(InvalidArgument, match=r"^chain: "):
            or_(first, then)


@pytest.mark.parametrize(
    ("task_id", "how", "says"),
    [(None, {}, "^id: must be"), (7, {}, "^id: must be"), (b"x", {}, "^id: must"), ("x", {"a": 1}, "^a: a result has")],
)
def test_a_result_of_no_id_is_refused(task_id: Any, how: Any, says: str) -> None:
    """By the argument's name."""
    with pytest.raises(InvalidArgument, match=says):
        AsyncResult(task_id, **how)


GIVEN = (str(uuid4()), "t1", "acme")


@pytest.mark.parametrize(
    ("args", "options", "names"),
    [
        (("7", "t1", "acme"), {}, "^job_id: must be a UUID"),
        (GIVEN[:2], {}, "^organization_id: missing"),
        ((*GIVEN, WISH, "more"), {}, "^arguments: one too many"),
        (GIVEN, {"kwargs": {"team_id": "t2"}}, "given twice"),
        (GIVEN, {"kwargs": {"team": "t2"}}, "^team: the task has no such argument"),
        (GIVEN, {}, "^job_id: job .* commit the row before the call"),
        (GIVEN, {"expires": 60}, "^expires: the pipeline has no such option"),
        (GIVEN, {"expires": 0}, "^expires: the pipeline has no such option"),
        (GIVEN, {"expires": datetime.now(UTC)}, "^expires: the pipeline has no such option"),
        (GIVEN, {"link": generate_custom_activities_task.s()}, "^link: the pipeline has no such option"),
        (GIVEN, {"link_error": [1]}, "^link_error: the pipeline has no such option"),
        (GIVEN, {"soft_time_limit": 5}, "^soft_time_limit: the pipeline has no such option"),
        (GIVEN, {"chord": {"a": 1}}, "^chord: the pipeline has no such option"),
        (GIVEN, {"kwargs": {"self": 1}}, "^self: the task has no such argument"),
        (GIVEN, {"task_id": 7}, "^task_id: the job's ID is the task's ID"),
        ((GIVEN[0], 5.0, "acme"), {}, "^team_id: must be text, and is float"),
        ((GIVEN[0], "t1", None), {}, "^organization_id: missing"),
        ((), {}, "^job_id: missing"),
        (5, {}, "^args: must be a list or a tuple"),
        (b"abc", {}, "^args: must be a list or a tuple"),
        (set(GIVEN), {}, "^args: must be a list or a tuple"),
        (dict.fromkeys(GIVEN), {}, "^args: must be a list or a tuple"),
        (GIVEN, {"kwargs": [1]}, "^kwargs: must have names"),
        (GIVEN, {"kwargs": "x"}, "^kwargs: must have names"),
        (GIVEN, {"kwargs": {1: 2}}, "^kwargs: must have names"),
        ((GIVEN[0], ["t1"], "acme"), {}, "^team_id: must be text, and is list"),
        ((*GIVEN[:2], True), {}, "^organization_id: must be text, and is bool"),
        ((*GIVEN, {"wish": WISH}), {}, "^requirements: must be text, and is dict"),
        ((*GIVEN, WISH.encode()), {}, "^requirements: must be text, and is bytes"),
        (([GIVEN[0]], *GIVEN[1:]), {}, "^job_id: must be text, and is list"),
        (GIVEN, {"task_id": str(uuid4())}, "^task_id: the job's ID is the task's ID"),
        ((*GIVEN, " "), {}, "^requirements: must have at least 1"),
        ((str(job_id_for("acme", "1")), "t1", "acme", WISH), {}, "^job_id: must be a UUID of a version below 8"),
    ],
)
def test_what_cannot_be_requested_is_said_at_the_call(args: Any, options: Any, names: str) -> None:
    """The error names the argument and the fix, and nothing is sent."""
    with pytest.raises(InvalidArgument, match=names):
        generate_custom_activities_task.apply_async(args, **options)


@pytest.mark.parametrize("wrong", ["organization_id", "team_id", "requirements"])
async def test_a_call_that_contradicts_the_row_is_refused(books: Pool, wrong: str) -> None:
    """Its job would not be the row's; nothing is sent, and the error names the argument."""
    job_id = await row(books)
    given = {"job_id": job_id, "team_id": BIRCH.team.id, "organization_id": BIRCH.id} | {wrong: "another"}
    with pytest.raises(InvalidArgument, match=f"^{wrong}: job {job_id} has another in customization_jobs"):
        generate_custom_activities_task.delay(**given)
    await books.execute("DELETE FROM customization_jobs WHERE job_id = $1", UUID(job_id))


@pytest.mark.parametrize("missing", ["PIPELINE_URL", "DATABASE_URL"])
def test_a_missing_address_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The environment variable is in the message."""
    monkeypatch.delenv(missing)
    monkeypatch.delenv("BROKER_URL", raising=False)
    named = "BROKER_URL" if missing == "PIPELINE_URL" else missing
    result = AsyncResult(GIVEN[0])
    call = result.ready if missing == "DATABASE_URL" else lambda: generate_custom_activities_task.delay(*GIVEN, WISH)
    with pytest.raises(InvalidSetting, match=f"^{named} is not set"):
        call()
