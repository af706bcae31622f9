"""What servers and managed services answer to a wrong URL is told with what to mend in it."""

import pytest
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from streams.redis.address import advice_on
from streams.redis.server import translate


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
