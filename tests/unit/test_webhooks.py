"""What a webhook's signature, addresses and retries are, without a server."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from consumers.webhooks.addresses import NotPublic, WrongUrl, checked_url, objection, public_socket
from consumers.webhooks.messages import JOB_TYPES, endpoint_of, for_endpoint, make_secret, message_of, signed_headers
from consumers.webhooks.retries import DELAYS, MOST_ATTEMPTS, Answer, next_try
from tests.facts import ENDS, JOB, completed

NOW = datetime(2031, 4, 1, 12, tzinfo=UTC)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_the_library_verifies_what_is_signed(body: str) -> None:
    """With each of two secrets while they change, and with no other; a changed body is refused."""
    new, old, other = make_secret(), make_secret(), make_secret()
    headers = dict(signed_headers([new, old], "id-1", datetime.now(UTC), body))
    for secret in (new, old):
        Webhook(secret).verify(body, headers, json_parse=False)
    for secret, changed in ((other, body), (new, body + " ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(changed, headers, json_parse=False)


INNER = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104 - refused
    *("169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    *("198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *("2001:0:7f00:1::", "100::1", "3fff::1", "5f00::1", "::ffff:0:127.0.0.1"),
)
OUTER = ("8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


@pytest.mark.parametrize("address", INNER)
def test_no_connection_is_made_inside(address: str) -> None:
    """Whatever form an inner address has, the socket for it is refused."""
    with pytest.raises(NotPublic, match="open internet"):
        public_socket((2, 1, 6, "", (address, 443)))


@pytest.mark.parametrize("address", OUTER)
def test_the_open_internet_is_reached(address: str) -> None:
    """Public addresses of both versions, those behind a gateway too."""
    assert objection(address) is None


WRONG_URLS = (
    *(
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "example.com",
        "",
        "https://",
    ),
    *(
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://:@example.com/",
        "https://example.com/#x",
    ),
    *(
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://[::1",
        "https://exam ple.com/",
        "https://a\r\nb/",
    ),
    *("https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest/meta-data"),
    *("https://localhost/", "https://LOCALHOST./", "https://ex\u00e4mple.com/", "https://example.com/" + "a" * 3_000),
    "gopher://127.0.0.1:6379/_FLUSHALL",
    # One number in many ways, which programs read differently; the system's resolver reads most as 127.0.0.1.
    *(
        f"https://{host}/"
        for host in ("2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "0", "0x0", "1.2.3")
    ),
    *(f"https://{host}/" for host in ("1.2.3.4.5", "256.1.1.1", "08.8.8.8", "example.0x7f", "127%2e0.0.1", "8.8.8.8.")),
    *(f"https://[{host}]/" for host in ("0:0:0:0:0:ffff:127.0.0.1", "::ffff:7f00:1", "fe80::1%25eth0", "::", "")),
    # Names that mean something inside alone, with any dots and capitals.
    *(f"https://{host}/" for host in ("foo.localhost", "localhost.localdomain", "ip6-localhost", "redis", "REDIS.")),
    *(f"https://{host}/" for host in ("metadata.google.internal", "x.svc.cluster.local", "Printer.LOCAL.", "nas.lan")),
    # No names of hosts.
    *(f"https://{host}/" for host in ("a..b", "-a.com", "a-.com", ".a.com", "a.com..", "*.a.com", "{host}", "a!b.com")),
    *(f"https://{host}/" for host in (f"{'a' * 64}.com", ".".join("a" * 130), "a.com%00", "xn--", "xn--a", "[a.com]")),
    *(f"https://example.com{port}/" for port in (":65536", ":443:80", ":x", ":-1", "\\@127.0.0.1", "\\.evil")),
    *("https:example.com", "https:/example.com", "https:///example.com", "https://?x", "wss://example.com/"),
    *(
        "https://example.com%2f@x/",
        "https://@example.com/",
        "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "https://example.com/\x7f",
    ),
)
RIGHT_URLS = (
    *("https://example.com", "HTTPS://EXAMPLE.COM/", "https://example.com./hooks", "https://xn--bcher-kva.example/"),
    *("https://example.com:8443/a?b=c&d", "https://exa_mple.com/", "https://8.8.8.8/", "https://[2606:4700::1111]/"),
    *("https://example.com/%zz", "https://example.com/a/../b", "https://a.b.c.d.e.example/", "https://1.example/"),
)


@pytest.mark.parametrize("url", WRONG_URLS, ids=repr)
def test_a_wrong_url_is_refused_when_it_is_given(url: str) -> None:
    """With the reason, before anything is sent there."""
    with pytest.raises(WrongUrl):
        checked_url(url, allow_http=False, allow_private=False)


@pytest.mark.parametrize("url", RIGHT_URLS)
def test_a_url_of_the_open_internet_is_taken(url: str) -> None:
    """As it is written."""
    assert checked_url(url, allow_http=False, allow_private=False) == url


def test_settings_lift_the_checks() -> None:
    """Each its own."""
    assert checked_url("http://example.com/", allow_http=True, allow_private=False)
    for inner in ("127.0.0.1:9", "localhost", "redis:8080", "hooks.internal", "[::1]"):
        assert checked_url(f"https://{inner}/", allow_http=False, allow_private=True)
    with pytest.raises(WrongUrl, match="four numbers below 256"):
        checked_url("https://127.1/", allow_http=False, allow_private=True)
    with pytest.raises(WrongUrl):
        checked_url("http://127.0.0.1/", allow_http=True, allow_private=False)


def test_retries_last_three_days() -> None:
    """Each wait is longer than the one before, and after the last try there is none."""
    waits = [next_try(Answer(500), tries, NOW) for tries in range(1, MOST_ATTEMPTS)]
    assert all(
        wait is not None and 0.9 * delay <= wait <= 1.1 * delay for wait, delay in zip(waits, DELAYS, strict=True)
    )
    assert all(shorter < longer for shorter, longer in pairwise(DELAYS))
    assert timedelta(days=3) < sum(DELAYS, timedelta()) < timedelta(days=4)
    assert next_try(Answer(500), MOST_ATTEMPTS, NOW) is None


DATES = (
    *("Tuesday, 01-Apr-31 13:00:00 GMT", "Tue Apr  1 13:00:00 2031", "01 Apr 2031 13:00:00 GMT"),
    *("Tue, 01 Apr 2031 15:00:00 +0200", "Tue, 01 Apr 2031 13:00:00", "tue, 01 apr 2031 13:00:00 gmt"),
)
NO_TIMES = (
    *("PT1H", "60s", "+60", "NaN", "inf", "0", "-0", "2031-04-01T13:00:00Z", "Tue, 32 Apr 2031 13:00:00 GMT"),
    *("Tue, 01 Apr 99999 13:00:00 GMT", "Tue, 01 Apr 2031 25:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "- Apr"),
)


@pytest.mark.parametrize(
    ("retry_after", "at_least", "at_most"),
    [
        ("3600", 3_600, 3_600),
        ("Tue, 01 Apr 2031 13:00:00 GMT", 3_600, 3_600),
        ("3600.5", 3_600, 3_600),
        (" 3600 ", 3_600, 3_600),
        *((date, 3_600, 3_600) for date in DATES),
        ("1", 4.5, 5.5),
        ("999999999999999999999", 86_400, 86_400),
        ("Wed, 01 Apr 2099 13:00:00 GMT", 86_400, 86_400),
        *(
            (odd, 4.5, 5.5)
            for odd in ("", "soon", "-5", "1e9", "١٢", "Tue, 01 Apr 1970 13:00:00 GMT", "0x10", "\x00", *NO_TIMES)
        ),
    ],
)
def test_a_receiver_says_when_it_is_asked_again(retry_after: str, at_least: float, at_most: float) -> None:
    """In seconds or as a date, up to a day; what cannot be read changes nothing."""
    wait = next_try(Answer(503, "busy", retry_after), 1, NOW)
    assert wait is not None
    assert at_least <= wait.total_seconds() <= at_most


def test_each_end_of_a_run_has_its_message() -> None:
    """Its ID is the fact's, and its body says whose job it is and how it ended."""
    messages = [message_of(end()) for end in ENDS]  # type: ignore[arg-type]  # ends are terminal facts
    assert sorted(one.type for one in messages) == sorted(JOB_TYPES)
    assert all('"job_id"' in one.body and '"organization_id":"acme"' in one.body for one in messages)
    assert len({one.event_id for one in messages}) == len(messages)


def test_an_event_may_be_for_one_endpoint() -> None:
    """What names none, or nonsense, is for all."""
    event = completed().encode()
    assert endpoint_of(for_endpoint(event, JOB)) == JOB
    for odd in (
        event,
        None,
        b"",
        b"[]",
        b"null",
        b"7",
        b"\xff",
        b'{"webhookendpoint": 7}',
        b'{"webhookendpoint": "x"}',
    ):
        assert endpoint_of(odd) is None
