"""`rediss://`: the embedded Valkey behind an endpoint that speaks TLS, and the machine's `redis-server` by itself."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import faust
import pytest
import trustme

from infra.local.processes import free_port
from producers.client import JobRequests, SubmitFailed
from streams.redis.errors import BrokerUnavailable
from tests.chaos.redis_transport.proxy import proxied
from tests.conformance.brokers import Broker, RedisBroker
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.waiting import wait_for


@dataclass
class Files:
    """Certificates as files, the way settings name them."""

    authority: str
    server: str
    client: str
    stranger: str  # another authority, that signed none of these

    def context(self) -> ssl.SSLContext:
        """What a server needs that asks for a client certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
        context.load_cert_chain(self.server)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An authority, what it has signed, and another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    blobs = {
        "authority": authority.cert_pem,
        "server": authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem,
        "client": authority.issue_cert("worker@example.org").private_key_and_cert_chain_pem,
        "stranger": stranger.cert_pem,
    }
    for name, blob in blobs.items():
        blob.write_to_path(str(folder / f"{name}.pem"))
    return Files(**{name: str(folder / f"{name}.pem") for name in blobs})


@asynccontextmanager
async def own_tls(files: Files, folder: Path) -> AsyncIterator[int]:
    """The port of the machine's `redis-server`, which asks for a client certificate."""
    program, port = shutil.which("redis-server"), free_port()
    if program is None:
        pytest.skip("no redis-server on this machine")
    command = [
        program,
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--save",
        "",
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
    ]
    command += ["--tls-cert-file", files.server, "--tls-key-file", files.server, "--tls-ca-cert-file", files.authority]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)

    async def answers() -> bool:
        if process.returncode is not None:
            pytest.skip(f"{program} is built without TLS")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await wait_for(answers, what=f"{program} to answer")
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def endpoint(kind: str, files: Files, broker: Broker, folder: Path) -> AsyncIterator[int]:
    """The port of a server that speaks TLS and asks for a client certificate."""
    if kind == "redis-server":
        async with own_tls(files, folder) as port:
            yield port
    else:
        assert isinstance(broker, RedisBroker)
        async with proxied(int(broker.address.rsplit(":", 1)[1].split("/")[0]), files.context()) as proxy:
            yield proxy.port


@pytest.fixture(params=["valkey", "redis-server"])
async def tls_bench(
    request: pytest.FixtureRequest, files: Files, broker: Broker, bench: Bench, tmp_path: Path
) -> AsyncIterator[Bench]:
    """A topic of the test's own on such a server; the test says whom it trusts."""
    async with endpoint(request.param, files, broker, tmp_path) as port:
        bench.broker = RedisBroker("tls", f"rediss://127.0.0.1:{port}/0")
        bench.settings.update(timeout="1s")
        yield bench


async def wait_for_problem(app: faust.App, pattern: str) -> None:
    """Wait until readiness says why the worker cannot start."""
    transport = transport_of(app)
    starting = asyncio.create_task(app.start())
    try:
        await wait_for(lambda: any(re.search(pattern, found) for found in transport.health()), what=pattern)
    finally:
        async with asyncio.timeout(10):
            await app.stop()
        starting.cancel()


async def test_a_worker_and_a_producer_speak_tls(tls_bench: Bench, files: Files) -> None:
    """With the authority and a client certificate in the URL, everything works as without TLS."""
    tls_bench.settings.update(ssl_ca_certs=files.authority, ssl_certfile=files.client)
    app = tls_bench.app()
    seen = collect(tls_bench, app)
    async with running(app):
        await tls_bench.send(b"a", b"b")
        await seen.become(2)
        assert transport_of(app).health() == []


async def test_a_server_that_nobody_vouches_for_is_refused(tls_bench: Bench, files: Files) -> None:
    """With the wrong authority nothing is sent; readiness and the producer's error name the setting."""
    tls_bench.settings.update(ssl_ca_certs=files.stranger, ssl_certfile=files.client)
    app = tls_bench.app()
    collect(tls_bench, app)
    async with tls_bench.producing() as topic:
        with pytest.raises(BrokerUnavailable, match=r"certificate.*ssl_ca_certs in the broker URL") as caught:
            await (await topic.send(value=b"secret"))
        assert caught.value.maybe_written is False
    await wait_for_problem(app, "ssl_ca_certs")


async def test_a_client_without_a_certificate_is_refused(tls_bench: Bench, files: Files) -> None:
    """A server that asks for a certificate refuses who has none, and readiness says so."""
    tls_bench.settings.update(ssl_ca_certs=files.authority)
    app = tls_bench.app()
    collect(tls_bench, app)
    await wait_for_problem(app, "ertificate required|ssl_certfile|onnection.*(closed|reset|lost)")


async def test_what_is_not_verified_is_accepted(tls_bench: Bench, files: Files) -> None:
    """`ssl_cert_reqs=none` takes any certificate: for a test server, and nothing else."""
    tls_bench.settings.update(ssl_cert_reqs="none", ssl_check_hostname="false", ssl_certfile=files.client)
    async with tls_bench.producing() as topic:
        await (await topic.send(value=b"whoever you are"))


async def test_upstream_services_use_the_same_url(tls_bench: Bench, files: Files) -> None:
    """The client for upstream services trusts whom the broker URL says, and shows its certificate."""
    tls_bench.settings.update(ssl_ca_certs=files.authority, ssl_certfile=files.client)
    async with JobRequests.connect(tls_bench.broker.url(**tls_bench.settings)) as requests:
        await requests.submit(organization_id="acme", team_id="t1", requirements="walk")
    tls_bench.settings.update(ssl_ca_certs=files.stranger)
    async with JobRequests.connect(tls_bench.broker.url(**tls_bench.settings)) as requests:
        with pytest.raises(SubmitFailed, match="certificate"):
            await requests.submit(organization_id="acme", team_id="t1", requirements="walk")
