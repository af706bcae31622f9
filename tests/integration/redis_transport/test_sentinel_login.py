"""Logging in to Sentinels and to the master that they name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.errors import DependencyDown
from infra.settings import Settings
from producers.broker import Broker
from producers.client import JobRequests, SubmitFailed
from streams.delivery.deliveries import Record
from tests.conformance.brokers import RedisBroker, sentinel
from tests.conformance.harness import Bench, collect, running, transport_of

PASSWORDS = {
    "the same for both": ("s3cret", "s3cret", ":s3cret@", ""),
    "one for each": ("s3cret", "wa+ch?er", ":s3cret@", "&sentinel_password=wa%2Bch%3Fer"),
    "one for each, and the default user named": (
        "s3cret", "watcher", "default:s3cret@", "&sentinel_username=default&sentinel_password=watcher",
    ),
    "none for the Sentinels": ("s3cret", "", ":s3cret@", ""),
    "none for the Sentinels, and a user named": ("s3cret", "", "default:s3cret@", ""),
    "none at all": ("", "", "", ""),
}  # fmt: skip


@pytest.fixture(params=PASSWORDS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a master under a Sentinel, with the passwords that they ask for."""
    password, sentinel_password, login, query = PASSWORDS[request.param]
    with sentinel(password=password, sentinel_password=sentinel_password) as server:
        yield f"redis://{login}127.0.0.1:{server.sentinel_port}/0?sentinel=main{query}"


async def test_everybody_logs_in(url: str, bench: Bench) -> None:
    """A worker, the API's broker with its probe, the client and the gauges reach the master with one URL."""
    bench.broker = RedisBroker("sentinel", url)
    bench.settings = {}
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await bench.send(b"a")
        await seen.become(1)
        assert transport_of(app).health() == []
        (backlog,) = await transport_of(app).backlogs({bench.topic_name: ()})
        assert backlog.length == 1
    broker = Broker(Settings(broker_url=url, _env_file=None), name="test")
    await broker.probe()
    await broker.publish([Record("job-requests", b"key", b"event", {})])
    await broker.close()
    async with JobRequests.connect(url) as requests:
        await requests.submit(organization_id="acme", team_id="t1", requirements="walk")


async def test_a_wrong_login_is_said_without_the_password(bench: Bench) -> None:
    """The error is the Sentinel's own, and no password stands in it."""
    with sentinel(password="s3cret", sentinel_password="watcher") as server:
        for query in ("", "&sentinel_password=wrong-one"):
            url = f"redis://:s3cret@127.0.0.1:{server.sentinel_port}/0?sentinel=main{query}"
            broker = Broker(Settings(broker_url=url, _env_file=None), name="test")
            with pytest.raises(DependencyDown, match="No master found for 'main'") as caught:
                await broker.probe()
            await broker.close()
            async with JobRequests.connect(url) as requests:
                with pytest.raises(SubmitFailed) as failed:
                    await requests.submit(organization_id="acme", team_id="t1", requirements="walk")
            for error in (caught, failed):
                assert "s3cret" not in str(error.value)
                assert "wrong-one" not in str(error.value)
