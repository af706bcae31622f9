"""A token that was just checked is believed without another look at its signature, and no longer than it may be."""

from infra.identity import CheckedTokens

CLAIMS = {"sub": "web", "org": "acme", "scope": "jobs", "exp": 10_000}


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 5_000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_token_is_known_for_a_minute() -> None:
    """Then it is checked again, since its key may have been withdrawn."""
    now = Now()
    checked = CheckedTokens(now=now)
    assert checked.claims_of("a.b.c") is None
    checked.keep("a.b.c", CLAIMS)
    assert checked.claims_of("a.b.c") == CLAIMS
    assert checked.claims_of("a.b.d") is None
    now.seconds += 59
    assert checked.claims_of("a.b.c") == CLAIMS
    now.seconds += 1
    assert checked.claims_of("a.b.c") is None


def test_a_token_is_not_known_past_its_end() -> None:
    """Even where it was checked a second before."""
    now = Now()
    checked = CheckedTokens(now=now)
    now.seconds = 9_999.0
    checked.keep("a.b.c", CLAIMS)
    now.seconds = 10_000.0
    assert checked.claims_of("a.b.c") is None


def test_a_clock_that_is_set_back_keeps_nothing_for_longer() -> None:
    """A minute is a minute whatever the clock says."""
    now = Now()
    checked = CheckedTokens(now=now)
    checked.keep("a.b.c", CLAIMS)
    now.seconds -= 3_600
    assert checked.claims_of("a.b.c") is None


def test_so_many_are_known_and_no_more() -> None:
    """The oldest is forgotten first."""
    checked = CheckedTokens(now=Now())
    for number in range(10_001):
        checked.keep(f"token-{number}", CLAIMS)
    assert checked.claims_of("token-0") is None
    assert checked.claims_of("token-1") == CLAIMS
    assert checked.claims_of("token-10000") == CLAIMS
