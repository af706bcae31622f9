"""The broker URL: read rightly, or refused in a sentence that names what is wrong, by client and transport alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import faust
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from infra.errors import InvalidSetting
from infra.settings import Settings
from producers.broker import Broker
from producers.client import JobRequests
from producers.redis_requests import RedisRequests
from streams.redis.address import BrokerAddress, advice_on
from streams.redis.errors import InvalidSettings
from streams.redis.server import translate
from streams.redis.settings import RedisSettings
from streams.redis.transport import Transport

CASES = Path(__file__).parent / "broker_urls"


def by_transport(url: str) -> tuple[Any, ...] | str:
    """What an app's transport makes of a URL: where it writes and to whom it talks, or why it does not."""
    try:
        transport: Any = faust.App("app", broker=url).transport
    except InvalidSettings as error:
        return str(error)
    assert isinstance(transport, Transport)
    return (transport.server.address, transport.layout.partitions("job-requests"), transport.settings.prefix)


async def by_client(url: str) -> tuple[Any, ...] | str:
    """The same, of the client."""
    try:
        async with JobRequests.connect(url) as requests:
            outlet = requests._outlet
            assert isinstance(outlet, RedisRequests)
            return (BrokerAddress.parse(url), outlet.partitions, outlet.prefix)
    except InvalidSettings as error:
        return str(error)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.json")), ids=lambda case: str(case.stem))
async def test_known_cases(case: Path) -> None:
    """URLs that people have are read as they mean them, by client and transport alike."""
    document = json.loads(case.read_text())
    url = document["environment"]["BROKER_URL"]
    found = by_transport(url)
    assert found == await by_client(url)
    assert not isinstance(found, str)
    address, partitions, _ = found
    assert isinstance(address, BrokerAddress)
    if "partitions" in document:
        assert partitions == document["partitions"]
    if "sentinel" in document:
        assert (address.settings.sentinel, address.password) == (document["sentinel"], document["password"])


@pytest.mark.parametrize(
    ("url", "hosts", "login", "database"),
    [
        ("redis://host", [("host", 6379)], (None, None), 0),
        ("redis://host/", [("host", 6379)], (None, None), 0),
        ("redis://:p%40ss%3B%2C%2F@host:7/3", [("host", 7)], (None, "p@ss;,/"), 3),
        ("redis://me:secret@[::1]:7", [("::1", 7)], ("me", "secret"), 0),
        ("redis://one:7;two:8/2?sentinel=m", [("one", 7), ("two", 8)], (None, None), 2),
        ("redis://one,two?sentinel=m", [("one", 26379), ("two", 26379)], (None, None), 0),
        ("redis://:x@one;redis://:x@two?sentinel=m", [("one", 26379), ("two", 26379)], (None, "x"), 0),
        ("rediss://me:x@one:7;two:7?cluster=true", [("one", 7), ("two", 7)], ("me", "x"), 0),
    ],
)
def test_parts_of_a_url(url: str, hosts: list[Any], login: tuple[Any, Any], database: int) -> None:
    """Hosts, user, password and database are what they say, wherever in a list of hosts they stand."""
    address = BrokerAddress.parse(url)
    assert (list(address.hosts), (address.username, address.password), address.database) == (hosts, login, database)
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host", "http:// is not Redis"),
        ("localhost:6379", "must begin with redis://"),
        ("localhost", "must begin with redis://"),
        ("redis://", "it has no host; write redis://HOST:6379"),
        ("redis:///0", "it has no host"),
        ("redis://:6379/0", "it has no host"),
        ("redis://:s3cret@:6379/0", "it has no host"),
        ("rediss://default:s3cret@", "it has no host; write rediss://HOST:6379"),
        ("redis://?sentinel=m", "it has no host; write redis://HOST:26379"),
        ("redis://one;redis://?cluster=true", "it has no host"),
        ("REDIS_URL=redis://:s3cret@one", "begins with a variable's name; keep what is behind that"),
        ("export BROKER_URL=redis://one", "begins with a variable's name"),
        ("BROKER_URL = redis://one", "begins with a variable's name"),
        (
            "redis-cli --tls -u redis://default:s3cret@one.upstash.io:6379",
            "keep the URL behind -u, and write rediss://",
        ),
        ("redis-cli -h one -p 6379 -a s3cret", "is a command of redis-cli's"),
        ("https://eu1-one.upstash.io", "https:// is not Redis; write redis:// (Valkey too), rediss:// with TLS"),
        ("${REDIS_URL}", "holds a placeholder that was not filled in"),
        ("$REDIS_URL", "holds a placeholder"),
        ("redis://${REDIS_HOST}:6379", "holds a placeholder"),
        ("redis://{{ .Values.redis.host }}:6379", "holds a placeholder"),
        ("redis://default:[YOUR-PASSWORD]@one:6379", "holds a placeholder"),
        ("redis://default:<password>@one:6379", "holds a placeholder"),
        (
            "one.redis.cache.windows.net:6380,password=s3cret=,ssl=True,abortConnect=False",
            "is .NET's; write rediss://",
        ),
        ("redis://redis://one:6379", "it has :// twice"),
        ("redis:/one:6379", "it has no host"),
        ("redis-sentinel://one", "?sentinel=<master's name>"),
        ("redis+sentinel://one/mymaster", "?sentinel=<master's name>"),
        ("redis+unix:///run/valkey.sock", "unix://"),
        ("redis://host:port", "a port must be a number"),
        ("redis://host:0", "its port is 0"),
        ("redis://:pa/ss@host", "a port must be a number"),
        ("redis://:pa#ss@host", "it has a '#'"),
        ("redis://a b", "'a b' is not a host"),
        ("redis://host/zero", "the database must be a number"),
        ("redis://host/0/1", "the database must be a number"),
        ("redis://host/1;other/2?sentinel=m", "more than one database: 1, 2"),
        ("redis://one;two", "several hosts need sentinel"),
        ("redis://:a@one;:b@two?sentinel=m", "different users or passwords"),
        ("redis://me@host", "a user without a password"),
        ("redis://:s3,cret@host", "%2C %3B for , ; in it"),
        ("redis://:s3;cret@host", "%2C %3B for , ; in it"),
        ("redis://:pa?s3cret@host", "in a password write %3F for ?"),
        ("redis://:s3[cret@host", "in a password write %5B %5D for [ ]"),
        ("redis://$(REDIS_HOST):6379", "holds a placeholder"),
        ("redis://one?lease=99999999999h", "lease='99999999999h' must be a time of 3650d at most"),
        (f"redis://one?block={'9' * 400}", "must be a time of 3650d at most"),
        (f"redis://one?send_buffer={'9' * 5_000}", "must be a whole number above zero"),
        (f"redis://one?send_buffer_bytes={'9' * 5_000}", "must be a size"),
        ("redis://one?partitions=a:1000000000", "must be <topic>:<number>, with 1000 at most"),
        ("redis://one?socket_timeout=5", "unknown parameter 'socket_timeout'; write timeout="),
        ("redis://one?sentinelMasterId=m", "write sentinel=<master's name>"),
        ("redis://one?service_name=m", "write sentinel=<master's name>"),
        ("rediss://one?insecureSkipVerify=true", "write ssl_cert_reqs=none"),
        ("unix:///a?db=x", "the database must be a number"),
        ("unix:///a?db=1&db=2", "more than one database: 1, 2"),
        ("redis://one;rediss://two?sentinel=m", "more than one scheme: redis, rediss"),
        ("redis://one/1?cluster=true", "no database but 0"),
        ("redis://one?cluster=true&sentinel=m", "cluster and sentinel exclude each other"),
        ("redis://one?sentinel_password=x", "sentinel_password needs sentinel="),
        ("redis://one?sentinel=m&sentinel_username=x", "sentinel_username needs sentinel_password"),
        ("redis://one?sentinel=m&sentinel_password=", "sentinel_password must be some text"),
        ("redis://one?lease=1s&lease=2s", "lease is given twice"),
        ("redis://one?partitions=a:2&partitions=a:3", "partitions is given twice for the topic 'a'"),
        ("redis://one?Lease=1s", "unknown parameter 'Lease'; did you mean lease"),
        ("redis://one?partition=a:2", "unknown parameter 'partition'; did you mean partitions"),
        ("redis://one?db=2", "unknown parameter 'db'; write the database behind the host, as in redis://host/2"),
        ("redis://one?ssl=true", "unknown parameter 'ssl'; write rediss:// for TLS"),
        ("redis://one?unheard=2", "unknown parameter 'unheard'; known are"),
        ("valkey://one", "valkey:// is not Redis; write redis:// (Valkey too)"),
        ("tcp://10.0.0.1:6379", "tcp:// is not Redis"),
        ("'redis://one/0", "it is in quotation marks"),
        ('"redis://:s3cret@one', "it is in quotation marks"),
        ("redis://one;", "it has an empty host"),
        ("redis://one,,two?cluster=true", "it has an empty host"),
        ("redis://one?lease", "lease='' must be a time"),
        ("redis://one?=1", "unknown parameter ''"),
        ("redis://one?prefix=", "prefix='' must be some text"),
        ("unix://host/path", "needs the path of one socket"),
        ("unix:///a;/b", "needs the path of one socket"),
        ("unix:///a?cluster=true", "cluster needs redis://"),
        ("redis://one?ssl_cert_reqs=none", "ssl_cert_reqs needs rediss://"),
    ],
)
async def test_what_cannot_be_meant_is_named(url: str, message: str) -> None:
    """The client, the processes that publish and the transport refuse it at start, in one sentence."""
    for read in (BrokerAddress.parse, lambda text: Broker(Settings(broker_url=text, _env_file=None), name="test")):
        with pytest.raises((InvalidSettings, InvalidSetting)) as caught:
            read(url)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="broker URL"):
        async with JobRequests.connect(url):
            pass


def test_a_socket_has_databases_too() -> None:
    """Its path leaves no place for the number, so it is redis-py's parameter."""
    address = BrokerAddress.parse("unix:///run/valkey.sock?db=2&lease=10s")
    assert (address.socket, address.database) == ("/run/valkey.sock", 2)


_TOPICS = st.sampled_from(["job-requests", "job-events", "other"])
_GOOD = {
    "lease": st.sampled_from(["15s", "250ms", "7"]),
    "max_deliveries": st.integers(2, 9).map(str),
    "prefix": st.sampled_from(["eu:", "ä ö", "a+b", "a&b=c"]),
    "partitions": st.builds(lambda topic, count: f"{topic}:{count}", _TOPICS, st.integers(1, 8)),
    "groups": st.builds(lambda topic: f"{topic}:quota:projection", _TOPICS),
    "sentinel": st.just("mymaster"),
    "sentinel_password": st.sampled_from(["x", "päss wörd", "a+b%"]),
    "cluster": st.sampled_from(["false", "no"]),
    "drain": st.just("0s"),
    "send_buffer_bytes": st.just("16m"),
}
_BAD = st.sampled_from(["", " ", "soon", "-1", "a:b", ":", "0", "\N{NULL}", "1e9", "ja"])
_NAMES = st.sampled_from([*_GOOD, "leese", "Lease", "partition", "db", "", "ssl_cert_reqs", "password", "préfix"])
_PAIRS = st.lists(
    st.one_of(
        st.sampled_from(list(_GOOD)).flatmap(lambda name: st.tuples(st.just(name), _GOOD[name])),
        st.tuples(_NAMES, _BAD),
    ),
    max_size=5,
)


@given(_PAIRS)
@example([("partitions", "job-requests:4"), ("partitions", "job-events:4")])
@example([("lease", "1s"), ("lease", "1s")])
async def test_client_and_transport_read_every_query_alike(pairs: list[tuple[str, str]]) -> None:
    """Each parameter is obeyed, or the refusal names one that is given; both sides write to the same streams."""
    url = "redis://:s3cret@host?" + "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    found = by_transport(url)
    assert found == await by_client(url)
    if isinstance(found, str):
        assert "s3cret" not in found
        assert any(name in found or repr(name) in found for name, _ in pairs)
        return
    _, partitions, prefix = found
    given_ = dict(pairs)
    counts = dict(value.rsplit(":", 1) for name, value in pairs if name == "partitions")
    assert partitions == int(counts.get("job-requests", 1))
    assert prefix == given_.get("prefix", "")
    assert len(pairs) == len(
        {(name, value.split(":")[0] if name in {"partitions", "groups"} else "") for name, value in pairs}
    )
    assert set(given_) <= set(RedisSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        # Redis, before version 6 and since.
        ("ERR Client sent AUTH, but no password is set", "remove what stands before the @"),
        ("AUTH <password> called without any password configured for the default user.", "remove what stands before"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "check user and password"),
        ("invalid password", "check the password"),
        ("NOAUTH Authentication required.", "it wants a password"),
        ("ERR DB index is out of range", "write /0"),
        ("ERR invalid DB index", "write /0"),
        ("ERR This instance has cluster support disabled", "remove cluster=true"),
        ("MOVED 3999 127.0.0.1:6381", "add cluster=true"),
        # Upstash
        ("WRONGPASS invalid or missing auth token", "check user and password"),
        ("ERR Only 0th database is supported! Selected DB: 1", "write /0"),
        ("ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.", "the service's plan is used up"),
        ("ERR max requests limit exceeded. Limit: 500000, Usage: 500001.", "the service's plan is used up"),
        # The network and TLS
        ("Error -3 connecting to h:6379. Temporary failure in name resolution.", "this machine's DNS"),
        ("Error -2 connecting to h:6379. Name or service not known.", "there is no such host"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "it speaks no TLS"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "add ssl_certfile="),
    ],
)
def test_what_a_server_says_is_told_with_the_part_to_mend(said: str, advice: str) -> None:
    """In the words of the URL, at the end of what the server says, in one line."""
    assert advice in advice_on(said)
    for error in (RedisConnectionError(said), AuthenticationError(said), ResponseError(said)):
        told = str(translate(error, sent=False))
        assert "\n" not in told
        assert said.partition(" ")[2] in told


@pytest.mark.parametrize("said", ["", "ERR unknown command 'XADD'", "OOM command not allowed", "NOPERM no permissions"])
def test_what_is_not_the_urls_fault_has_no_advice_on_it(said: str) -> None:
    """Its own words are enough."""
    assert advice_on(said) == ""
