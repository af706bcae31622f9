"""The client for upstream services, on a real server."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from producers.client import InvalidArgument, JobRequests, Request, SubmitFailed
from producers.job_ids import job_id_for
from streams.jobs.events import JobRequested, RunAtTooFar, parse_event
from tests.api_server import UNUSED_URL
from tests.stream_entries import entries_of


async def requests_in(redis_url: str, stream: str = "job-requests") -> list[JobRequested]:
    """Return the request events in a stream, having checked that each is keyed by its job."""
    events = []
    for fields in await entries_of(redis_url, stream):
        event = parse_event(fields[b"event"])
        assert isinstance(event, JobRequested)
        assert fields[b"key"] == event.key
        events.append(event)
    return events


async def test_a_request_becomes_an_event(redis_url: str) -> None:
    """What is submitted is in the stream when `submit` returns, under the job that it returned."""
    async with JobRequests.connect(redis_url, source="billing") as requests:
        job_id = await requests.submit(organization_id="acme", team_id="t1", requirements=" Two hours outdoors ")
    (event,) = await requests_in(redis_url)
    assert (event.job_id, event.source, event.run) == (job_id, "billing", 1)
    assert event.data.model_dump() == {
        "organization_id": "acme",
        "team_id": "t1",
        "requirements": "Two hours outdoors",
        "run_at": None,
    }


async def test_a_repeat_with_the_same_key_is_the_same_event(redis_url: str) -> None:
    """Two submissions under one idempotency key are one job and one event ID; without a key they are two jobs."""
    request = Request(organization_id="acme", team_id="t1", requirements="walk", idempotency_key="order-42")
    keyless = Request(organization_id="acme", team_id="t1", requirements="walk")
    async with JobRequests.connect(redis_url) as requests:
        first, second, third, fourth = await requests.submit_many([request, request, keyless, keyless])
    assert first == second == job_id_for("acme", "order-42")
    assert len({first, third, fourth}) == 3
    events = await requests_in(redis_url)
    assert events[0].id == events[1].id


async def test_a_service_may_give_the_jobs_id_and_moment(redis_url: str) -> None:
    """A job that has an ID keeps it, and says when it was asked for; a moment that is to come is now."""
    mine, asked_at = UUID("4d2f1c3e-0000-4000-8000-000000000001"), datetime.now(UTC) - timedelta(days=3)
    wish = Request(organization_id="acme", team_id="t1", requirements="walk", job_id=mine, requested_at=asked_at)
    async with JobRequests.connect(redis_url) as requests:
        jobs = await requests.submit_many([wish, replace(wish, requested_at=datetime.now(UTC) + timedelta(days=3))])
    first, second = await requests_in(redis_url)
    assert jobs == [mine, mine]
    assert (first.id, first.time) == (second.id, asked_at)
    assert second.time <= datetime.now(UTC)


@pytest.mark.parametrize("key", [None, "another key"])
async def test_an_id_that_follows_from_another_key_is_refused(redis_url: str, key: str | None) -> None:
    """The pipeline would refuse it later, where nobody waits for the answer; with its own key it is good."""
    made = job_id_for("acme", "order-42")
    wish = Request(organization_id="acme", team_id="t1", requirements="walk", job_id=made, idempotency_key=key)
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument, match=r"^job_id: must be a UUID of a version below 8"):
            await requests.submit_many([wish])
        assert await requests.submit_many([replace(wish, idempotency_key="order-42")]) == [made]
    assert len(await requests_in(redis_url)) == 1


async def test_many_requests_keep_their_order(redis_url: str) -> None:
    """More requests than fit into one round trip arrive complete and in order."""
    wanted = [Request(organization_id="acme", team_id="t1", requirements=f"wish {n}") for n in range(1_201)]
    async with JobRequests.connect(redis_url) as requests:
        job_ids = await requests.submit_many(wanted)
    events = await requests_in(redis_url)
    assert [event.job_id for event in events] == job_ids
    assert [event.data.requirements for event in events] == [one.requirements for one in wanted]


async def test_nothing_is_sent_when_one_request_is_invalid(redis_url: str) -> None:
    """A value out of its bounds is reported before anything leaves, with the field's name."""
    wanted = [
        Request(organization_id="acme", team_id="t1", requirements="good"),
        Request(organization_id="acme", team_id="", requirements="bad"),
    ]
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument, match=r"^request 2 of 2: team_id: must have at least 1"):
            await requests.submit_many(wanted)
    assert await requests_in(redis_url) == []


async def test_a_request_can_wait_and_be_withdrawn(redis_url: str) -> None:
    """Both are events on the topic of requests, keyed by their job; a repeated cancellation is the same event."""
    run_at = datetime.now(UTC) + timedelta(days=2)
    async with JobRequests.connect(redis_url, source="billing") as requests:
        job_id = await requests.submit(organization_id="acme", team_id="t1", requirements="walk", run_at=run_at)
        await requests.cancel(job_id, organization_id="acme", reason="the offsite is off")
        await requests.cancel(job_id, organization_id="acme")
    asked, *withdrawn = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-requests")]
    assert isinstance(asked, JobRequested)
    assert asked.data.run_at == run_at
    assert [(event.type, event.job_id, event.source) for event in withdrawn] == [
        ("teamfit.job.cancel-requested.v1", job_id, "billing")
    ] * 2
    assert len({event.id for event in withdrawn}) == 1


async def test_a_cancellation_that_was_not_confirmed_is_said_to_be() -> None:
    """The error says what to do, and names the job."""
    job_id = job_id_for("acme", "1")
    async with JobRequests.connect(UNUSED_URL) as requests:
        with pytest.raises(SubmitFailed, match="cancel it again") as caught:
            await requests.cancel(job_id, organization_id="acme")
    assert caught.value.job_ids == [job_id]


async def test_a_broker_that_is_away_is_said_to_be() -> None:
    """The error says what to do, and holds the jobs that the requests would have been."""
    async with JobRequests.connect(UNUSED_URL) as requests:
        with pytest.raises(SubmitFailed, match=r"Connection to broker failed.*same idempotency keys") as caught:
            await requests.submit(organization_id="acme", team_id="t1", requirements="walk", idempotency_key="1")
    assert caught.value.job_ids == [job_id_for("acme", "1")]


async def test_the_transports_settings_in_the_url_are_understood(redis_url: str) -> None:
    """The pipeline's own BROKER_URL works as it is: its prefix and partitions are obeyed, the rest is not ours."""
    url = f"{redis_url}?lease=15s&prefix=eu:&partitions=job-requests:3"
    async with JobRequests.connect(url) as requests:
        await requests.submit_many(
            [Request(organization_id="acme", team_id="t1", requirements="walk") for _ in range(30)]
        )
    shares = [await requests_in(redis_url, f"eu:{{job-requests.{partition}}}") for partition in range(3)]
    assert sum(map(len, shares)) == 30
    assert all(shares)


async def test_a_broker_it_cannot_speak_to_is_refused_with_the_way_out() -> None:
    """Clusters are reached over HTTP."""
    with pytest.raises(ValueError, match="over HTTP instead"):
        async with JobRequests.connect("redis://localhost?cluster=true"):
            pass


def test_a_job_id_follows_from_organization_and_key() -> None:
    """The same everywhere and for ever: a changed formula would make repeats into new jobs."""
    assert job_id_for("acme", "order-42") == UUID("a0e9feed-722d-846d-8bb5-a2cd911b948d")
    assert job_id_for("a", "b:c") != job_id_for("a:b", "c")
    composed, decomposed = "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "u\N{COMBINING DIAERESIS}"
    assert job_id_for("acme", composed) == job_id_for("acme", f" {decomposed}")


async def test_what_the_pipeline_would_refuse_is_not_sent(redis_url: str) -> None:
    """A `run_at` that is too far and a key that no event holds are errors of the caller, who hears of them at once."""
    far = datetime.now(UTC) + timedelta(days=367)
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(RunAtTooFar, match="366 days"):
            await requests.submit(organization_id="acme", team_id="t1", requirements="walk", run_at=far)
        for key in ("", "k" * 256, "a\0b", "\ud800"):
            request = Request(organization_id="acme", team_id="t1", requirements="walk", idempotency_key=key)
            with pytest.raises(InvalidArgument, match=r"^idempotency_key: "):
                await requests.submit_many([request])
    assert not await requests_in(redis_url, "job-requests")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no organization": ({"organization_id": None}, "organization_id: is missing; add it"),
    "an organization's number": ({"organization_id": 7}, "organization_id: must be a string"),
    "an empty team": ({"team_id": ""}, "team_id: must have at least 1 character"),
    "a long team": ({"team_id": "t" * 65}, "team_id: has more than 64 characters; shorten it"),
    "spaces": ({"requirements": "  "}, "requirements: must have at least 1 character"),
    "a long wish": ({"requirements": "w" * 10_001}, "requirements: has more than 10000 characters; shorten it"),
    "NUL": ({"requirements": "a\0b"}, "requirements: holds the character NUL"),
    "half a character": ({"requirements": "a\ud800"}, "requirements: holds "),
    "bytes": ({"requirements": b"\xff"}, "requirements: "),
    "a list": ({"requirements": ["walk"]}, "requirements: must be a string"),
    "a time without a zone": ({"run_at": datetime(2031, 4, 1)}, "run_at: must say its time zone"),  # noqa: DTZ001
    "a number for a time": ({"run_at": 1_900_000_000}, "run_at: must be a time such as"),
    "no time": ({"run_at": "tomorrow"}, "run_at: must be a time such as"),
    "the year 9999": ({"run_at": datetime.max.replace(tzinfo=UTC)}, "run_at: is not between the years"),
    "a key's number": ({"idempotency_key": 42}, "idempotency_key: must be a string"),
    "two at once": ({"team_id": None, "requirements": ""}, "team_id: is missing; add it; requirements: must have"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_argument_is_named_with_its_fix(redis_url: str, name: str) -> None:
    """The client's own error says it in a sentence; it repeats no value, and nothing was sent."""
    changes, says = WRONG[name]
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument) as caught:
            await requests.submit(**{"organization_id": "acme", "team_id": "t1", "requirements": "walk", **changes})
    assert str(caught.value).startswith(says)
    assert "pydantic" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await requests_in(redis_url) == []


@pytest.mark.parametrize(
    ("job_id", "more", "says"),
    [
        ("order-42", {}, "job_id: must be a UUID"),
        (UUID(int=0), {}, "job_id: is a UUID that names nothing"),
        (UUID(int=7), {"reason": "r" * 501}, "reason: has more than 500 characters"),
        (UUID(int=7), {"organization_id": ""}, "organization_id: must have at least 1 character"),
    ],
    ids=str,
)
async def test_a_wrong_cancellation_is_named_too(redis_url: str, job_id: Any, more: dict[str, str], says: str) -> None:
    """As a request is."""
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument) as caught:
            await requests.cancel(job_id, **{"organization_id": "acme", **more})
    assert str(caught.value).startswith(says)
