"""Facts become webhooks on real sockets: signed, at least once, to their own organization, whatever receivers do."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import trustme
from aiohttp import web
from standardwebhooks import WebhookVerificationError

from consumers.webhooks.receivers import Receivers
from consumers.webhooks.sender import MOST_OF_ONE
from infra.errors import ForgedEvent
from infra.operations.erase import erase_texts, find_texts
from infra.operations.tenants import UnknownOrganization
from infra.operations.webhooks import (
    InvalidWebhook,
    UnknownWebhook,
    disable_endpoint,
    enable_endpoint,
    list_deliveries,
    remove_endpoint,
    rotate_secret,
    send_test,
)
from producers.cancellation import Cancellation
from producers.replay.apply import Replays
from producers.replay.failed import Filter
from producers.replay.plans import Plans
from producers.schedule.retention import Retention
from streams.delivery.brake import Orders
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.seal import Seal
from streams.jobs.events import JobEvent, JobId
from streams.jobs.organization_facts import Reached, budget_reached
from tests.conftest import Pool
from tests.facts import ENDS, completed, failed, started
from tests.integration.test_failures import Topics
from tests.integration.webhooks_scene import (
    Answering,
    Receiver,
    Scene,
    answers,
    arrives,
    ended,
    on_record,
    receiving,
    scene_on,
)
from tests.served import served
from tests.waiting import wait_for

# A try cannot be noted, as when Postgres goes away at that moment.
_BREAK = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER broken BEFORE UPDATE ON webhook_deliveries FOR EACH ROW
WHEN (new.attempts > old.attempts) EXECUTE FUNCTION broken();
"""


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """The stage's handlers on a database of their own."""
    async with scene_on(database, database_url) as opened:
        yield opened


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server."""
    async with receiving() as one:
        yield one


async def test_each_end_of_a_run_is_told_once_and_verified_by_the_library(scene: Scene, receiver: Receiver) -> None:
    """The ID is the fact's, the body says what the fact says; facts that end nothing, and repeats, are not told."""
    added = await scene.add(receiver)
    facts = await on_record(scene.pool, *(end(job=JobId(uuid4())) for end in ENDS))
    for fact in [*facts, *facts]:
        await scene.hear(fact)
    assert await scene.send() == len(ENDS)
    told = receiver.verified(added.secret)
    assert sorted(receiver.ids) == sorted(fact.id for fact in facts)
    said = {
        fact.id: {**fact.data.model_dump(exclude_none=True), "job_id": str(fact.job_id), "run": 1} for fact in facts
    }
    assert {one: event["data"] for one, event in zip(receiver.ids, told, strict=True)} == said
    assert sorted(event["type"] for event in told) == ["job.cancelled", "job.completed", "job.failed", "job.rejected"]
    assert all(headers["Content-Type"] == "application/json" for headers, _ in receiver.got)
    assert {row["delivered_at"] is not None for row in await scene.pool.fetch("SELECT * FROM webhook_deliveries")} == {
        True
    }


async def test_an_organization_hears_of_its_own_jobs_and_of_the_types_it_wants(scene: Scene) -> None:
    """Not of another's, and not of what it did not ask for; two endpoints of one both hear."""
    async with receiving() as all_of_acme, receiving() as failures, receiving() as birch:
        await scene.add(all_of_acme)
        await scene.add(failures, "acme", "job.failed")
        await scene.add(birch, "birch")
        good, bad = await on_record(scene.pool, completed(job=JobId(uuid4())), failed(job=JobId(uuid4())))
        theirs = await ended(scene.pool, "birch")
        for fact in (good, bad, theirs):
            await scene.hear(fact)
        await scene.send()
        assert sorted(all_of_acme.ids) == sorted([good.id, bad.id])
        assert failures.ids == [bad.id]
        assert birch.ids == [theirs.id]


async def test_what_is_not_true_is_not_told(scene: Scene, receiver: Receiver) -> None:
    """A fact that no stage has decided, and events that end nothing."""
    await scene.add(receiver)
    with pytest.raises(ForgedEvent):
        await scene.hear(completed(job=JobId(uuid4())))
    await scene.hear(started())
    await scene.send()
    assert receiver.got == []


async def test_both_secrets_sign_while_they_change(scene: Scene, receiver: Receiver) -> None:
    """The old one until its time is over, and not at all if it has leaked."""
    old = await scene.add(receiver)
    new = await rotate_secret(scene.database, old.endpoint.id, keep=timedelta(hours=1))
    await scene.hear(await ended(scene.pool))
    await scene.send()
    for secret in (old.secret, new.secret):
        assert len(receiver.verified(secret)) == 1
    newest = await rotate_secret(scene.database, old.endpoint.id, keep=timedelta())
    receiver.got.clear()
    await scene.hear(await ended(scene.pool))
    await scene.send()
    assert len(receiver.verified(newest.secret)) == 1
    for secret in (old.secret, new.secret):
        with pytest.raises(WebhookVerificationError):
            receiver.verified(secret)


async def cut(request: web.Request) -> web.StreamResponse:
    """Hang up without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Hang up in the middle of the answer's head."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 20")
    request.transport.close()
    return web.Response()


async def redirecting(request: web.Request) -> web.StreamResponse:
    """Send whoever comes to another path of the same server."""
    raise web.HTTPTemporaryRedirect(f"{request.path}?again")


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        (answers(500), 500, "500: told you so"),
        (answers(404), 404, "404"),
        (answers(304), 304, "304"),
        (redirecting, 307, "none is followed"),
        (cut, None, "Disconnected"),
        (half, None, ""),
    ],
)
async def test_what_does_not_answer_well_is_tried_again(
    scene: Scene, receiver: Receiver, wrong: Answering, status: int | None, said: str
) -> None:
    """With the same ID, and why stands beside it; then it arrives."""
    added = await scene.add(receiver)
    receiver.answer = wrong
    fact = await ended(scene.pool)
    await scene.hear(fact)
    assert await scene.send() == 1
    row = await scene.row(added.endpoint.id)
    assert (row["attempts"], row["last_status"], row["delivered_at"]) == (1, status, None)
    assert said in row["last_error"]
    assert (await scene.endpoint(added.endpoint.id))["failing_since"] is not None
    assert await scene.later(seconds=1) == 0, "it is not due yet"
    receiver.answer = answers(200)
    assert await scene.later(seconds=10) == 1
    assert receiver.ids == [fact.id, fact.id]
    assert (await scene.row(added.endpoint.id))["delivered_at"] is not None
    assert (await scene.endpoint(added.endpoint.id))["failing_since"] is None


async def test_a_receiver_that_wants_time_gets_it(scene: Scene, receiver: Receiver) -> None:
    """`Retry-After` is longer than the schedule, so it counts."""
    await scene.add(receiver)
    receiver.answer = answers(503, {"Retry-After": "3600"})
    await scene.hear(await ended(scene.pool))
    await scene.send()
    assert await scene.later(seconds=3_500) == 0
    receiver.answer = answers(200)
    assert await scene.later(seconds=200) == 1


async def test_a_receiver_that_is_gone_is_sent_nothing_and_loses_nothing(scene: Scene, receiver: Receiver) -> None:
    """410 disables at once, and says so; what comes meanwhile waits, and is sent when somebody enables it."""
    added = await scene.add(receiver)
    receiver.answer = answers(410)
    first, second = await ended(scene.pool), await ended(scene.pool)
    await scene.hear(first)
    await scene.send()
    assert (await scene.endpoint(added.endpoint.id))["disabled_because"] == "it answered 410 Gone"
    await scene.hear(second)
    assert await scene.later(days=10) == 0
    receiver.answer = answers(200)
    assert (await enable_endpoint(scene.database, added.endpoint.id)).waiting == 2
    await scene.send()
    assert sorted(receiver.ids[1:]) == sorted([first.id, second.id])


async def replayed(scene: Scene) -> Record:
    """Replay what failed in the stage, by plan and apply; return the one entry that is sent."""
    plan = await Plans(scene.database, scene.clock).make(Filter(stage="webhooks"), by="ops")
    topics = Topics()
    await Replays(scene.database, topics, scene.clock).apply(plan.id, rate=1_000)
    (again,) = topics.written
    return await opened(scene, again)


async def opened(scene: Scene, sealed: Record) -> Record:
    """Return an entry as the stage sees it, its seal checked."""
    delivery = await Seal(scene.database).opened(Delivery(sealed.topic, sealed.key, sealed.value, sealed.headers))
    assert delivery.is_for("webhooks")
    assert not delivery.is_for("projection")
    return Record(delivery.topic, delivery.key, delivery.value, delivery.headers)


async def test_what_nobody_takes_becomes_a_failed_event_and_is_replayed(scene: Scene, receiver: Receiver) -> None:
    """After ten tries; the failed event is of this endpoint alone, and what a replay sends is told again."""
    async with receiving() as other:
        await scene.add(other)
        added = await scene.add(receiver)
        fact = await ended(scene.pool)
        await scene.given_up(receiver, fact)
        assert len(receiver.ids) == 10
        assert (await scene.row(added.endpoint.id))["given_up_at"] is not None
        (kept,) = await scene.pool.fetch("SELECT * FROM failed_events")
        assert (kept["topic"], kept["stage"], kept["event_id"]) == ("job-events", "webhooks", fact.id)
        assert (kept["organization_id"], kept["job_id"]) == ("acme", fact.job_id)
        receiver.answer = answers(200)
        again = await replayed(scene)
        for _ in range(2):
            await scene.hear_record(again)
            await scene.send()
        assert receiver.ids == [fact.id] * 11
        assert other.ids == [fact.id]


async def test_an_endpoint_that_takes_nothing_for_days_is_disabled(scene: Scene, receiver: Receiver) -> None:
    """When a delivery is given up: with one in five days, and the reason; one that takes some is not."""
    added = await scene.add(receiver)
    await scene.given_up(receiver, await ended(scene.pool), slower=1.5)
    found = await scene.endpoint(added.endpoint.id)
    assert found["disabled_because"].startswith("it has taken nothing since ")
    assert "500: told you so" in found["disabled_because"]
    async with receiving() as other:
        fickle = await scene.add(other)
        other.answer = answers(500)
        await scene.hear(await ended(scene.pool))
        await scene.send()
        for _ in range(9):
            other.answer = answers(200)
            await scene.hear(await ended(scene.pool))
            await scene.send()
            other.answer = answers(500)
            await scene.later(days=1.2)
        assert (await scene.endpoint(fickle.endpoint.id))["disabled_at"] is None


@pytest.mark.parametrize("allow_private", [False, True])
async def test_nothing_is_sent_inside(allow_private: bool) -> None:
    """A name that leads to this machine, its number, and odd ways to write it: no connection is made."""
    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        sending = Receivers(allow_private=allow_private)
        hosts = ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"]  # noqa: S104
        for host in hosts:
            answer = await sending.post(f"http://{host}:{port}/hooks", {"webhook-id": host}, "{}")
            if not allow_private:
                refused = ("not an address of the open internet", "not a canonical IPv4 address")
                assert answer.status is None
                assert any(why in str(answer.problem) for why in refused), host
        await sending.close()
        assert allow_private == bool(receiver.got)


async def test_a_name_that_means_another_address_a_moment_later_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked is the address of the connection: whatever resolves it, and whenever."""
    meant = iter(["93.184.216.34", "169.254.169.254"])

    def rebinding(_host: str, port: int, *_more: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(meant), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert socket.getaddrinfo("rebinding.example", 80)[0][4][0] == "93.184.216.34"
    sending = Receivers(allow_private=False)
    answer = await sending.post("http://rebinding.example/latest/meta-data", {}, "{}")
    await sending.close()
    assert "169.254.169.254 is not an address of the open internet" in str(answer.problem)


async def test_names_that_cannot_be_looked_up_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs has a thread of its own: twenty of them, and a good receiver is reached."""
    let_go = threading.Event()
    real = socket.getaddrinfo

    def hanging(host: str, *more: Any) -> Any:
        if host.endswith(".hangs.example"):
            let_go.wait(60)
            raise socket.gaierror("no such name")
        return real(host, *more)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    sending = Receivers(allow_private=True)
    hang = [asyncio.create_task(sending.post(f"http://a{n}.hangs.example/", {}, "{}")) for n in range(20)]
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        good = await sending.post(url, {"webhook-id": "1"}, "{}")
        assert good.is_good
        assert not any(one.done() for one in hang)
    let_go.set()
    assert {(await one).status for one in hang} == {None}
    await sending.close()


async def silent(_request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


async def test_who_never_answers_is_waited_for_no_longer_than_a_try_lasts(receiver: Receiver) -> None:
    """And so is a server that takes connections and says nothing."""
    receiver.answer = silent
    sending = Receivers(allow_private=True, timeout=timedelta(seconds=0.3))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for url in (receiver.url, f"http://127.0.0.1:{deaf.getsockname()[1]}/"):
            answer = await sending.post(url, {"webhook-id": "1"}, "{}")
            assert (answer.status, str(answer.problem).startswith("no answer in 0.3 s")) == (None, True)
    await sending.close()


async def test_a_certificate_that_is_not_trusted_is_refused() -> None:
    """Nothing is sent to a server that cannot show who it is."""
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_post("/hooks", receiver.take)
    sending = Receivers(allow_private=True)
    async with served(app, tls=context) as address:
        answer = await sending.post(f"{address.replace('127.0.0.1', 'localhost')}/hooks", {"webhook-id": "1"}, "{}")
    await sending.close()
    assert (answer.status, receiver.got) == (None, [])
    assert "certificate" in str(answer.problem).lower()


async def test_a_stop_waits_for_the_tries_under_way(scene: Scene, receiver: Receiver) -> None:
    """What was sent is noted before the process ends, and nothing more is taken."""
    let_go = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return web.Response(status=204)

    receiver.answer = slow
    added = await scene.add(receiver)
    await scene.hear(await ended(scene.pool))
    scene.sender.start()
    await arrives(receiver, 1)
    stop = asyncio.create_task(scene.sender.close())
    late = await ended(scene.pool)
    await scene.hear(late)
    let_go.set()
    await stop
    found = (await list_deliveries(scene.database, added.endpoint.id)).deliveries
    assert {one.event_id: one.state for one in found}[late.id] == "waiting"
    assert sorted(one.state for one in found) == ["delivered", "waiting"]


ODD_ANSWERS: Mapping[str, tuple[bytes, int | None]] = {
    "204 with a body": (b"204 No Content\r\nContent-Length: 2\r\n\r\nok", 204),
    "204 with a body of no length": (b"204 No Content\r\n\r\nok", 204),
    "204 in pieces": (b"204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204),
    "a body that is no text": (b"200 OK\r\nContent-Length: 3\r\n\r\n\xff\x00\x01", 200),
    "a body of no length": (b"200 OK\r\n\r\nabc", 200),
    "a body that is longer": (b"200 OK\r\nContent-Length: 1\r\n\r\nabc", 200),
    "a body that is shorter": (b"200 OK\r\nContent-Length: 9\r\n\r\nabc", 200),
    "a broken chunk": (b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", 200),
    "a body that is not gzip": (b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 200),
    "an answer before the answer": (
        b"103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        200,
    ),
    "cookies": (b"200 OK\r\nSet-Cookie: =;a[]=b\xff\r\nContent-Length: 0\r\n\r\n", 200),
    "another protocol": (b"101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 101),
    "a redirect inside": (b"301 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", 301),
    "a redirect to nothing": (b"308 Moved\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n", 308),
    "no status": (b"999 x\r\nContent-Length: 0\r\n\r\n", 999),
    "NUL in its text": (b"500 x\r\nContent-Length: 3\r\n\r\na\x00b", 500),
    "two lengths": (b"200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", None),
    "NUL in a header": (b"200 OK\r\nA: a\x00b\r\n\r\n", None),
    "a header that is too long": (b"200 OK\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", None),
    "too many headers": (b"200 OK\r\n" + b"A: b\r\n" * 5_000 + b"\r\n", None),
    "no number": (b"2000 OK\r\n\r\n", None),
    "half a line": (b"20", None),
}


@pytest.mark.parametrize(("said", "status"), ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
async def test_the_status_counts_whatever_follows_it(said: bytes, status: int | None) -> None:
    """A 204 with a body was no answer, and its endpoint was disabled; what is no answer is told in one line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 " + said)
        writer.close()

    sending = Receivers(allow_private=True)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        got = await sending.post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {"webhook-id": "1"}, "{}")
    await sending.close()
    assert got.status == status
    assert got.is_good is (got.problem is None)
    assert "\n" not in str(got.problem)
    if status is None:
        assert str(got.problem).startswith(("no answer of HTTP: ", "ServerDisconnectedError"))


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer with a body that never ends."""
    answer = web.StreamResponse(status=200)
    await answer.prepare(request)
    try:
        while True:
            await answer.write(b"x" * 65_536)
    except ConnectionError:
        return answer


async def million(_request: web.Request) -> web.StreamResponse:
    """Answer with a million bytes."""
    return web.Response(status=500, body=b"x" * 1_000_000)


async def test_long_answers_are_not_read(scene: Scene, receiver: Receiver) -> None:
    """An endless one that is good has arrived; of a million bytes that are not, the beginning is kept."""
    added = await scene.add(receiver)
    receiver.answer = million
    await scene.hear(await ended(scene.pool))
    await scene.send()
    row = await scene.row(added.endpoint.id)
    assert row["last_error"].startswith("500: xxx")
    assert len(row["last_error"]) < 300
    receiver.answer = endless
    assert await scene.later(seconds=10) == 1
    assert (await scene.row(added.endpoint.id))["delivered_at"] is not None


async def test_a_slow_receiver_holds_up_no_other(scene: Scene, receiver: Receiver) -> None:
    """One with a long backlog has its share of the tries, and another's event goes out beside them."""
    let_go = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return web.Response(status=204)

    receiver.answer = slow
    await scene.add(receiver)
    facts = [await ended(scene.pool) for _ in range(3 * MOST_OF_ONE)]
    for fact in facts:
        await scene.hear(fact)
    async with receiving() as quick:
        await scene.add(quick, "birch")
        scene.sender.start()
        await arrives(receiver, MOST_OF_ONE)
        await scene.hear(await ended(scene.pool, "birch"))
        scene.sender.poke()
        await arrives(quick, 1)
        assert len(receiver.got) == MOST_OF_ONE
        let_go.set()
        await arrives(receiver, len(facts))
    await wait_for(
        lambda: scene.pool.fetchval("SELECT bool_and(delivered_at IS NOT NULL) FROM webhook_deliveries"),
        what="all to be noted",
    )
    assert sorted(receiver.ids) == sorted(fact.id for fact in facts)


async def test_what_a_process_took_and_did_not_note_is_sent_again(scene: Scene, receiver: Receiver) -> None:
    """When its lease is over, and not before; the receiver sees the same ID."""
    added = await scene.add(receiver)
    fact = await ended(scene.pool)
    await scene.hear(fact)
    await scene.pool.execute(_BREAK)
    await scene.send()
    await scene.pool.execute("DROP FUNCTION broken CASCADE")
    assert await scene.later(seconds=30) == 0
    assert await scene.later(seconds=40) == 1
    assert receiver.ids == [fact.id, fact.id]
    assert (await scene.row(added.endpoint.id))["attempts"] == 1


async def _archive(scene: Scene, fact: JobEvent) -> None:
    await scene.pool.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event, archived_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, now())",
        *(fact.job_id, fact.id, fact.run, fact.type, fact.data.organization_id, fact.time, fact.encode().decode()),
    )


async def test_what_was_lost_before_the_first_look_is_found(scene: Scene, receiver: Receiver) -> None:
    """A new worker looks after half a minute for the first time; what came before the first endpoint is not told."""
    await _archive(scene, await ended(scene.pool))
    await scene.add(receiver)
    lost = await ended(scene.pool)
    await _archive(scene, lost)
    scene.clock.skipped += timedelta(minutes=3)
    assert await scene.facts.catch_up() == 1
    await scene.send()
    assert receiver.ids == [lost.id]


async def test_what_the_broker_lost_is_found_in_the_archive(scene: Scene, receiver: Receiver) -> None:
    """A fact that is archived and was never heard of is told once; what came before the endpoint is not."""

    async def archive(fact: JobEvent) -> None:
        await _archive(scene, fact)

    before = await ended(scene.pool)
    await archive(before)
    await scene.facts.catch_up()
    await scene.add(receiver)
    heard, lost, theirs = await ended(scene.pool), await ended(scene.pool), await ended(scene.pool, "birch")
    for fact in (heard, lost, theirs):
        await archive(fact)
    await scene.hear(heard)
    assert await scene.facts.catch_up() == 0, "it may still come"
    scene.clock.skipped += timedelta(minutes=3)
    assert await scene.facts.catch_up() == 1
    assert await scene.facts.catch_up() == 0
    await scene.send()
    assert sorted(receiver.ids) == sorted([heard.id, lost.id])


async def test_a_budget_that_is_reached_is_told(scene: Scene, receiver: Receiver) -> None:
    """Once, if the schedule has noted the mark; what the broker lost is found, and what was made up is refused."""
    added = await scene.add(receiver)
    told = Reached(organization_id="acme", period="2031-04", percent=80, budget=50, kind="hard", spent=40)
    fact = budget_reached(told, at=scene.clock.now())
    with pytest.raises(ForgedEvent):
        await scene.hear(fact)
    for percent in (80, 100):
        await scene.pool.execute(
            "INSERT INTO budget_marks (organization_id, period, percent, budget, cost, reached_at) "
            "VALUES ('acme', '2031-04', $1, 50, 50, now())",
            percent,
        )
    for _ in range(2):
        await scene.hear(fact)
    await scene.send()
    (event,) = receiver.verified(added.secret)
    assert (event["type"], event["data"]["percent"], receiver.ids) == ("budget.reached", 80, [fact.id])
    scene.clock.skipped += timedelta(minutes=3)
    assert await scene.facts.catch_up() == 1
    await scene.send()
    assert [event["data"]["percent"] for event in receiver.verified(added.secret)] == [80, 100]


async def test_a_paused_stage_sends_nothing(scene: Scene, receiver: Receiver) -> None:
    """Until it is resumed."""
    await scene.add(receiver)
    await scene.hear(await ended(scene.pool))
    scene.brake.obey(Orders(paused="ops: they asked"))
    assert await scene.send() == 0
    scene.brake.obey(Orders())
    assert await scene.send() == 1


async def test_what_operators_do_holds_and_is_logged(scene: Scene, receiver: Receiver) -> None:
    """Disabled, removed, tested; with its line in the log of actions, which has no secret."""
    added = await scene.add(receiver)
    await send_test(scene.database, added.endpoint.id)
    await scene.send()
    assert receiver.verified(added.secret)[0]["type"] == "webhook.test"
    await disable_endpoint(scene.database, added.endpoint.id, "they move house")
    fact = await ended(scene.pool)
    await scene.hear(fact)
    assert await scene.send() == 0
    found = (await list_deliveries(scene.database, added.endpoint.id)).deliveries
    assert [(one.type, one.state) for one in found] == [("job.completed", "waiting"), ("webhook.test", "delivered")]
    with pytest.raises(InvalidWebhook, match="disabled"):
        await send_test(scene.database, added.endpoint.id)
    await remove_endpoint(scene.database, added.endpoint.id)
    with pytest.raises(UnknownWebhook):
        await enable_endpoint(scene.database, added.endpoint.id)
    log = await scene.pool.fetch("SELECT action, outcome, effects::text FROM operator_actions ORDER BY at")
    assert [(row["action"], row["outcome"]) for row in log] == [
        *((f"webhook.{what}", "done") for what in ("add", "test", "disable")),
        ("webhook.test", "refused"),
        ("webhook.remove", "done"),
        ("webhook.enable", "refused"),
    ]
    assert not any("whsec_" in row["effects"] or added.secret[6:] in row["effects"] for row in log)


async def test_old_deliveries_and_those_of_a_forgotten_customer_are_deleted(scene: Scene, receiver: Receiver) -> None:
    """After their time, whatever became of them; another organization's, and younger ones, stay."""
    async with receiving() as other:
        for one, organization in ((receiver, "acme"), (other, "birch")):
            await scene.add(one, organization)
            for _ in range(3):
                await scene.hear(await ended(scene.pool, organization))
        await scene.pool.execute(
            "UPDATE webhook_deliveries SET created_at = now() - interval '31 days' WHERE event_id IN "
            "(SELECT min(event_id) FROM webhook_deliveries GROUP BY endpoint_id)"
        )
        assert (
            await Retention(scene.database, scene.clock, keep=timedelta(days=400), page_size=1).delete_webhooks() == 2
        )
        cancellation = Cancellation(scene.database, Topics(), scene.clock)
        await erase_texts(scene.database, cancellation, await find_texts(scene.database, "acme"), operator="ops")
        await scene.send()
        assert (len(receiver.got), len(other.got)) == (0, 2)
        assert await scene.pool.fetchval("SELECT count(*) FROM webhook_endpoints") == 2


async def test_an_endpoint_that_cannot_be_is_refused(scene: Scene) -> None:
    """With the field and the fix: its URL, its types, its organization, and more than twenty."""
    good = Receiver("http://127.0.0.1:9/hooks")
    for wrong, types in (("nonsense", ()), ("http://user@h/", ()), (good.url, ("job.exploded",))):
        with pytest.raises(InvalidWebhook, match=r"^(url|types): "):
            await scene.add(Receiver(wrong), "acme", *types)
    with pytest.raises(UnknownOrganization):
        await scene.add(good, "nobody-knows")
    for _ in range(20):
        await scene.add(good, "birch")
    with pytest.raises(InvalidWebhook, match="20 endpoints"):
        await scene.add(good, "birch")
