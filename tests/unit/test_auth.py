"""Bearer tokens."""

from datetime import timedelta

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.auth import Caller, InvalidToken, NoSigningKey, caller_of, issue_token, read_token, signing_key
from infra.settings import Settings

KEY = "k" * 32


def test_a_token_says_who_calls() -> None:
    """What goes into a token comes out."""
    token = issue_token(KEY, organization_id="acme", subject="ann", scopes=["jobs", "operator"])
    assert caller_of(read_token(KEY, token)) == Caller("ann", "acme", frozenset({"jobs", "operator"}))


def test_an_expired_token_has_its_own_code() -> None:
    """A client can tell that it needs a new token, rather than another one."""
    token = issue_token(KEY, organization_id="acme", lifetime=timedelta(minutes=-5))
    with pytest.raises(InvalidToken, match="expired") as caught:
        read_token(KEY, token)
    assert caught.value.code == "token_expired"


def test_a_token_of_another_key_is_invalid() -> None:
    """Only this API's key signs."""
    with pytest.raises(InvalidToken, match="not one that this API signed"):
        read_token(KEY, issue_token("x" * 32, organization_id="acme"))


def test_an_unsigned_token_is_invalid() -> None:
    """A token cannot choose to go unsigned."""
    claims = {"sub": "a", "org": "acme", "scope": "jobs", "iat": 0, "exp": 9_999_999_999}
    with pytest.raises(InvalidToken):
        read_token(KEY, jwt.encode(claims, "", algorithm="none"))


@pytest.mark.parametrize("claim", ["sub", "org", "scope", "exp", "iat"])
def test_each_claim_is_needed(claim: str) -> None:
    """A token that lacks a claim is refused with the claim's name."""
    claims: dict[str, object] = {"sub": "a", "org": "acme", "scope": "jobs", "iat": 0, "exp": 9_999_999_999}
    del claims[claim]
    with pytest.raises(InvalidToken, match=claim):
        read_token(KEY, jwt.encode(claims, KEY, algorithm="HS256"))


@pytest.mark.parametrize("wrong", [{"org": 7}, {"org": ""}, {"scope": ["jobs"]}])
def test_claims_must_be_text(wrong: dict[str, object]) -> None:
    """A signed token with odd claims is refused, not guessed at."""
    claims = {"sub": "a", "org": "acme", "scope": "jobs", "iat": 0, "exp": 9_999_999_999, **wrong}
    with pytest.raises(InvalidToken):
        caller_of(read_token(KEY, jwt.encode(claims, KEY, algorithm="HS256")))


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever is sent as a token, the answer is that it is invalid."""
    with pytest.raises(InvalidToken):
        read_token(KEY, text)


@pytest.mark.parametrize("key", [None, "", "short"])
def test_a_missing_or_short_key_says_how_to_make_one(key: str | None) -> None:
    """Nobody signs with a key that can be guessed; the message holds the next step."""
    with pytest.raises(NoSigningKey, match="openssl rand -hex 32"):
        signing_key(Settings(signing_key=key, _env_file=None))  # type: ignore[arg-type]
