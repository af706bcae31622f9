"""Tokens of an identity provider, and of our own keys while they are changed or taken back."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from infra.auth import Caller, InvalidToken, NoSigningKey, issue_token
from infra.errors import InvalidSetting
from infra.identity import Provider, Revoked, Tokens
from infra.key_sets import KeySet
from infra.settings import Settings
from tests.waiting import wait_for

_OF_A_CLIENT = "resource_access.teamfit.example.com.roles"
_NO_TIMES: list[Any] = ["1.5", "", [1], {}, "9" * 5_000]
ISSUER, AUDIENCE = "https://id.example.com/", "teamfit"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OWN, BEFORE = "k" * 32, "b" * 32


def public(key: Any, key_id: str | None, **more: str) -> dict[str, Any]:
    """Return a private key's public half, as a provider publishes it."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    published: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return published | ({} if key_id is None else {"kid": key_id}) | more


def signed(key: Any = RSA_KEY, key_id: str | None = "r", **changes: object) -> str:
    """Return a token of the provider; a claim that is None is left out."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "org": "acme", "scope": "jobs", "iat": now, "exp": now + 60}
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    return jwt.encode(claims, key, algorithm=algorithm, headers=None if key_id is None else {"kid": key_id})


@dataclass
class Publisher:
    """A provider whose answers, and whose clock, the test sets."""

    keys: list[Any] = field(default_factory=lambda: [public(RSA_KEY, "r"), public(EC_KEY, "e")])
    answer: bytes | None = None
    error: Exception | None = None
    fetched: int = 0
    now: float = 1_000.0

    async def fetch(self, _url: str) -> bytes:
        self.fetched += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return json.dumps({"keys": self.keys}).encode() if self.answer is None else self.answer

    def tokens(self, *, organization: str = "org", scope: str = "scope", **more: Any) -> Tokens:
        keys = KeySet("https://id.example.com/keys", fetch=self.fetch, seconds=lambda: self.now)
        return Tokens((OWN,), Provider(ISSUER, AUDIENCE, keys, organization, scope), **more)


@pytest.mark.parametrize(("key", "key_id"), [(RSA_KEY, "r"), (EC_KEY, "e")])
async def test_a_token_of_the_provider_says_who_calls(key: Any, key_id: str) -> None:
    """Both algorithms count; our own tokens go on beside them, and the keys are fetched once."""
    publisher = Publisher()
    tokens = publisher.tokens()
    for _ in range(3):
        assert await tokens.read(signed(key, key_id)) == Caller("ann", "acme", frozenset({"jobs"}))
    assert publisher.fetched == 1
    assert (await tokens.read(issue_token(OWN, organization_id="birch"))).organization_id == "birch"


@pytest.mark.parametrize(
    ("changes", "organization", "scope"),
    [
        ({"https://acme.com/org": "acme"}, "https://acme.com/org", "scope"),
        ({"teamfit": {"org": "acme", "scopes": ["jobs", "operator"]}}, "teamfit.org", "teamfit.scopes"),
        ({"scp": "jobs operator"}, "org", "scp"),
        ({"scp": ["jobs", "operator"]}, "org", "scp"),  # Okta
        ({"roles": ["jobs"], "scp": None, "tid": "acme"}, "tid", "roles"),  # Entra, of a program
        ({"https://acme.com/claims": {"org": "acme"}}, "https://acme.com/claims.org", "scope"),  # Auth0
        ({"resource_access": {"teamfit.example.com": {"roles": ["jobs"]}}}, "org", _OF_A_CLIENT),  # Keycloak
        ({"resource_access": {"teamfit": 7, "teamfit.example.com": {"roles": ["jobs"]}}}, "org", _OF_A_CLIENT),
        ({"app_metadata": {"org": "acme"}, "role": "authenticated"}, "app_metadata.org", "scope"),  # Supabase
        ({"o": {"id": "acme", "rol": "admin"}, "azp": "https://app.example.com"}, "o.id", "scope"),  # Clerk
        ({"scope": f"openid {AUDIENCE}/jobs", "client_id": "x", "token_use": "access"}, "org", "scope"),  # Cognito
        ({"aud": ["account", AUDIENCE], "azp": "web", "realm_access": {"roles": ["x"]}}, "org", "scope"),
        ({"exp": time.time() + 86_400.5, "iat": time.time() - 0.5}, "org", "scope"),
        ({"exp": str(int(time.time()) + 86_400)}, "org", "scope"),
        *(({"exp": 10**digits}, "org", "scope") for digits in (12, 20, 400)),
        ({"exp": 1e308}, "org", "scope"),
    ],
)
async def test_claims_are_read_where_the_settings_say(changes: Any, organization: str, scope: str) -> None:
    """A claim's whole name, a field inside of one, a list or a text of scopes; a second time too, from memory."""
    tokens, token = Publisher().tokens(organization=organization, scope=scope), signed(**changes)
    for _ in range(2):
        caller = await tokens.read(token)
        assert caller.organization_id == "acme"
        assert "jobs" in caller.scopes


@pytest.mark.parametrize(
    ("organization", "scope", "says"),
    [
        ("org_id", "scope", "^the bearer token's claim `org_id` is missing; it must be printable text$"),
        ("o.id", "scope", "claim `o.id` is missing"),
        ("sub.org", "scope", "claim `sub.org` is missing"),
        ("aud.", "scope", "claim `aud.` is missing"),
        ("org", "roles", "claim `roles` is missing"),
        ("groups", "scope", "^the bearer token's claim `groups` must be printable text$"),
        ("org", "numbers", "claim `numbers` must"),
    ],
)
async def test_a_claim_is_named_as_the_provider_has_it(organization: str, scope: str, says: str) -> None:
    """Whoever reads it looks into the token, where our own names do not stand."""
    with pytest.raises(InvalidToken, match=says):
        await Publisher().tokens(organization=organization, scope=scope).read(signed(groups=["acme"], numbers=[1]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"iss": "https://id.example.com"}, "another issuer"),
        ({"aud": "another"}, "another audience"),
        ({"aud": None}, "lacks the claim `aud`"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks the claim `exp`"),
        ({"sub": None}, "lacks the claim `sub`"),
        ({"iat": 9_999_999_999}, "not one"),
        ({"org": None}, "must be printable text"),
        ({"org": ["acme"]}, "must be printable text"),
        ({"scope": [1]}, "must be printable text"),
        ({"scope": {"jobs": True}}, "must be printable text"),
        ({"aud": {AUDIENCE: 1}}, "another audience"),
        ({"aud": [AUDIENCE, 7]}, "another audience"),
        ({"aud": []}, "lacks the claim `aud`"),
        ({"nbf": 9_999_999_999}, "compare the clocks"),
        ({"exp": -1}, "expired"),
        ({"exp": float("inf")}, "cannot be read"),
        *(({name: odd}, "cannot be read") for name in ("exp", "iat", "nbf") for odd in _NO_TIMES),
        ({"sub": 7}, "`sub` and `jti` must be text"),
        ({"jti": 7}, "`sub` and `jti` must be text"),
        ({"sub": "a\0b"}, "claim `sub` must be printable text"),
        ({"org": "\ud800"}, "claim `org` must be printable text"),
    ],
)
async def test_a_token_for_others_or_of_another_time_is_refused(changes: Any, says: str) -> None:
    """Signed or not: its issuer, audience, times and claims must be right."""
    with pytest.raises(InvalidToken, match=says):
        await Publisher().tokens().read(signed(**changes))


async def test_clocks_may_differ_by_half_a_minute() -> None:
    """A token that has expired 20 seconds ago, or is issued 20 seconds from now, is good."""
    now = int(time.time())
    tokens = Publisher().tokens()
    await tokens.read(signed(exp=now - 20))
    await tokens.read(signed(iat=now + 20, nbf=now + 20))


def _headed(**more: object) -> str:
    """Return a token with more in its header, signed all the same."""
    claims = jwt.decode(signed(), options={"verify_signature": False})
    return jwt.encode(claims, RSA_KEY, algorithm="RS256", headers={"kid": "r", **more})


@pytest.mark.parametrize(
    "more",
    [
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/keys"},
        {"jwk": public(OTHER_RSA_KEY, "r")},
        {"x5c": ["AAAA"]},
        {"typ": "at+jwt"},
        {"cty": "JWT", "zip": "DEF", "nonce": "n"},
    ],
)
async def test_a_header_names_no_key_but_by_its_id(more: dict[str, Any]) -> None:
    """Keys, and addresses of keys, in the token's own header are passed over."""
    await Publisher().tokens().read(_headed(**more))
    head, _, signature = _headed(**more).split(".")
    body = signed(org="evil").split(".")[1]
    with pytest.raises(InvalidToken, match="not one that this API signed"):
        await Publisher().tokens().read(f"{head}.{body}.{signature}")


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (_headed(crit=["exp"], exp=1), "must be a JWT without `crit`"),
        (_headed(crit=[]), "must be a JWT without `crit`"),
        (jwt.encode({}, RSA_KEY, algorithm="PS256", headers={"kid": "r"}), "`alg` is not taken; it must be HS256, or"),
        (jwt.encode({}, RSA_KEY, algorithm="RS512", headers={"kid": "r"}), "`alg` is not taken"),
        (jwt.encode({}, "", algorithm="none"), "`alg` is not taken"),
        (jwt.encode({}, OTHER_RSA_KEY, algorithm="RS256"), "has several keys, and the bearer token lacks `kid`"),
        (signed(RSA_KEY, "../r"), "has no key of the bearer token's `kid`"),
        ("a.b.c", "cannot be read"),
    ],
)
async def test_what_is_wrong_with_a_token_is_said(token: str, says: str) -> None:
    """In one sentence, with the field and the fix."""
    with pytest.raises(InvalidToken, match=says):
        await Publisher().tokens().read(token)


def _confused(key: Any) -> str:
    """Return a token signed by HMAC with the text of a public key, which everybody knows."""
    head, body, _ = signed(key).split(".")
    del head
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"r","typ":"JWT"}').decode()
    text = json.dumps(public(key, "r")).encode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{header}.{body}".encode(), text
    )
    return f"{header}.{body}.{jwt.utils.base64url_encode(signature).decode()}"


@pytest.mark.parametrize(
    "token",
    [
        signed(OTHER_RSA_KEY, "r"),
        signed(EC_KEY, "r"),
        signed(RSA_KEY, "e"),
        signed(RSA_KEY, None),
        _confused(RSA_KEY),
        jwt.encode({"iss": ISSUER, "aud": AUDIENCE}, "", algorithm="none", headers={"kid": "r"}),
        jwt.encode({"iss": ISSUER}, RSA_KEY, algorithm="PS256", headers={"kid": "r"}),
        signed()[:-8],
        "a.b.c",
    ],
)
async def test_a_signature_that_is_not_the_keys_is_refused(token: str) -> None:
    """Another key, the other algorithm, none, a public key taken for a secret, and what is no token."""
    with pytest.raises(InvalidToken) as caught:
        await Publisher().tokens().read(token)
    assert caught.value.code == "token_invalid"


_ODD: list[Any] = [None, True, 0, -1, 1e308, 2**70, "", "x", "\x00", "none", [], [1], {}, {"a": 1}, "1" * 400]


@pytest.mark.parametrize("field", [*public(RSA_KEY, "r"), *public(EC_KEY, "e"), "use", "alg", "key_ops", "x5c", "k"])
async def test_one_odd_key_takes_none_of_the_others_with_it(field: str) -> None:
    """Whatever stands in its fields; a provider's set may hold keys of kinds that no library of ours knows."""
    strange = [{**public(key, "odd"), field: value} for key in (RSA_KEY, EC_KEY) for value in _ODD]
    publisher = Publisher(keys=[*strange, public(RSA_KEY, "r")])
    await publisher.tokens().read(signed())


@pytest.mark.parametrize(
    ("says", "serves"),
    [
        ({"use": None}, True),
        ({"key_ops": ["verify"]}, True),
        ({"key_ops": ["sign", "verify"]}, True),
        ({"key_ops": None}, True),
        ({"use": "enc"}, False),
        ({"use": ["sig"]}, False),
        ({"key_ops": ["encrypt"]}, False),
        ({"key_ops": []}, False),
        ({"key_ops": "verify"}, False),
        ({"key_ops": {"verify": 1}}, False),
        ({"alg": "RS512"}, False),
        ({"alg": "PS256"}, False),
    ],
)
async def test_a_key_serves_for_what_it_says_alone(says: Any, serves: bool) -> None:
    """RFC 7517, section 4.2 to 4.4: one that is to encrypt, or of another algorithm, checks no signature of a token."""
    tokens = Publisher(keys=[{**public(RSA_KEY, "r"), "alg": "RS256"} | says, public(EC_KEY, "e")]).tokens()
    if serves:
        await tokens.read(signed(RSA_KEY, "r"))
        return
    with pytest.raises(InvalidToken, match="no key"):
        await tokens.read(signed(RSA_KEY, "r"))


async def test_keys_of_two_kinds_may_share_an_id() -> None:
    """RFC 7517, section 4.5: the token's algorithm says which is meant, in whatever order they stand."""
    both = [public(RSA_KEY, "same"), public(EC_KEY, "same")]
    for keys in (both, both[::-1]):
        tokens = Publisher(keys=keys).tokens()
        for key in (RSA_KEY, EC_KEY):
            await tokens.read(signed(key, "same"))


async def test_keys_of_one_kind_may_share_an_id_by_mistake() -> None:
    """A provider that gave a new key the old one's name: tokens of both are good, a third's is not."""
    both = [public(RSA_KEY, "same"), public(OTHER_RSA_KEY, "same")]
    for keys in (both, both[::-1]):
        tokens = Publisher(keys=keys).tokens()
        for key in (RSA_KEY, OTHER_RSA_KEY):
            await tokens.read(signed(key, "same"))
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(InvalidToken, match="not one that this API signed"):
            await tokens.read(signed(stranger, "same"))


async def test_a_byte_order_mark_takes_no_key_away() -> None:
    """Some servers of files put one first."""
    answer = b"\xef\xbb\xbf" + json.dumps({"keys": [public(RSA_KEY, "r")]}).encode()
    await Publisher(answer=answer).tokens().read(signed())


async def test_a_key_without_an_id_serves_when_it_is_the_only_one() -> None:
    """Some providers have one key and do not name it."""
    publisher = Publisher(keys=[public(RSA_KEY, None)])
    await publisher.tokens().read(signed(RSA_KEY, None))


async def test_new_keys_need_no_restart_and_old_ones_end() -> None:
    """An unknown ID has the set fetched; a key that was withdrawn is refused once the set is older than an hour."""
    publisher = Publisher(keys=[public(RSA_KEY, "r")])
    tokens = publisher.tokens()
    await tokens.read(signed())
    publisher.keys, publisher.now = [public(OTHER_RSA_KEY, "new")], publisher.now + 31
    await tokens.read(signed(OTHER_RSA_KEY, "new"))
    publisher.keys, publisher.now = [public(RSA_KEY, "r")], publisher.now + 3_601
    await tokens.read(signed(OTHER_RSA_KEY, "new"))  # has the set fetched, and does not wait for it

    async def withdrawn() -> bool:
        try:
            await tokens.read(signed(OTHER_RSA_KEY, "new"))
        except InvalidToken as error:
            return "no key" in str(error)
        return False

    await wait_for(withdrawn, what="the key to be refused")


async def test_a_thousand_unknown_keys_cause_one_fetch_in_half_a_minute() -> None:
    """Whoever makes IDs up cannot have the provider asked more often, and good tokens go on."""
    publisher = Publisher()
    tokens = publisher.tokens()
    await tokens.read(signed())
    for expected in (2, 3):
        publisher.now += 30
        made_up = [tokens.read(signed(OTHER_RSA_KEY, f"made up {number}")) for number in range(1_000)]
        outcomes = await asyncio.gather(*made_up, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {InvalidToken}
        assert publisher.fetched == expected
        await tokens.read(signed())


BAD_ANSWERS: Mapping[str, dict[str, Any]] = {
    "away": {"error": OSError("away")},
    "late": {"error": TimeoutError()},
    "no JSON": {"answer": b"<html>"},
    "no set": {"answer": b"[]"},
    "no list": {"answer": b'{"keys": {}}'},
    "the description": {"answer": b'{"issuer": "x", "jwks_uri": "https://id.example.com/keys"}'},
    "no keys": {"keys": []},
    "none of use": {"keys": [7, {}, {"kty": "RSA"}, {"kid": 7, "kty": "oct", "k": "AAAA"}]},
    "none that a library can read": {"keys": [{"kty": "oct"}, {**public(RSA_KEY, "r"), "alg": "none"}]},
    "for encryption": {"keys": [public(RSA_KEY, "r", use="enc")]},
    "another algorithm": {"keys": [public(RSA_KEY, "r", alg="RS512")]},
    "too short": {"keys": [public(rsa.generate_private_key(public_exponent=65537, key_size=1024), "r")]},  # noqa: S505
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_set_that_cannot_be_used_leaves_the_last_good_one(bad: Any) -> None:
    """Its keys go on; without any, tokens are neither accepted nor refused, until the provider is asked again."""
    publisher = Publisher()
    tokens = publisher.tokens()
    await tokens.read(signed())
    for name, value in bad.items():
        setattr(publisher, name, value)
    publisher.now += 31
    with pytest.raises(InvalidToken, match="no key"):
        await tokens.read(signed(OTHER_RSA_KEY, "unknown"))
    await tokens.read(signed())

    never = Publisher(**bad)
    tokens = never.tokens()
    for _ in range(2):
        with pytest.raises(InvalidToken) as caught:
            await tokens.read(signed())
        assert caught.value.code == "identity_unavailable"
    assert never.fetched == 1
    never.keys, never.answer, never.error, never.now = Publisher().keys, None, None, never.now + 30
    await tokens.read(signed())


async def test_a_key_can_be_changed_without_an_outage() -> None:
    """Tokens of the key before are good; a key that is too short is refused, by its name."""
    settings = Settings(signing_key=OWN, signing_key_before=BEFORE, _env_file=None)  # type: ignore[arg-type]
    tokens = Tokens.of(settings)
    for key in (OWN, BEFORE):
        assert (await tokens.read(issue_token(key, organization_id="acme"))).organization_id == "acme"
    with pytest.raises(InvalidToken, match="lacks the claim `sub`"):
        await tokens.read(jwt.encode({"org": "acme"}, OWN, algorithm="HS256"))
    with pytest.raises(InvalidToken, match="not one that this API signed"):
        await tokens.read(issue_token("x" * 32, organization_id="acme"))
    with pytest.raises(NoSigningKey, match=r"^TEAMFIT_SIGNING_KEY_BEFORE has 5 bytes"):
        Tokens.of(Settings(signing_key=OWN, signing_key_before="short", _env_file=None))  # type: ignore[arg-type]


async def test_a_token_can_be_taken_back(tmp_path: Path) -> None:
    """Whoever signed it; the list is read again when it has changed, and holds while its file is away."""
    listed, now = tmp_path / "revoked", [0.0]
    listed.write_bytes(b"\xef\xbb\xbfanother\r\n")
    assert "another" in Revoked(listed)
    tokens = Publisher().tokens(revoked=Revoked(listed, seconds=lambda: now[0]))
    own = issue_token(OWN, organization_id="acme")
    theirs = signed(jti="t-1")
    for token in (own, theirs):
        await tokens.read(token)
    token_id = jwt.decode(own, options={"verify_signature": False})["jti"]
    listed.write_text(f"\n  {token_id} \r\nt-1\n")
    for step in range(2):
        now[0] += 5
        for token in (own, theirs):
            with pytest.raises(InvalidToken, match="revoked"):
                await tokens.read(token)
        if step == 0:
            listed.unlink()
    await tokens.read(issue_token(OWN, organization_id="acme"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"oidc_issuer": ISSUER}, "^TEAMFIT_OIDC_AUDIENCE is not set"),
        ({"oidc_issuer": ISSUER, "oidc_audience": "a"}, "^TEAMFIT_OIDC_JWKS_URL is not set"),
        ({"oidc_jwks_url": "https://id.example.com/keys"}, "^TEAMFIT_OIDC_ISSUER is not set"),
        (
            {"oidc_issuer": ISSUER, "oidc_audience": "a", "oidc_jwks_url": "http://id.example.com/keys"},
            "^TEAMFIT_OIDC_JWKS_URL must begin with https",
        ),
        *(
            (
                {"oidc_issuer": ISSUER, "oidc_audience": "a", "oidc_jwks_url": f"https://{odd}"},
                "^TEAMFIT_OIDC_JWKS_URL (has no host|cannot be read)",
            )
            for odd in ("", "/keys", "?x", "[::1", "id.example.com:x/keys", "id.example.com:70000/", "id example/")
        ),
        ({"revoked_tokens": "/nowhere/revoked"}, "^TEAMFIT_REVOKED_TOKENS names a file that cannot be read"),
    ],
)
def test_what_is_set_in_part_is_refused_at_start(given: dict[str, str], says: str) -> None:
    """The message names the variable and the fix."""
    with pytest.raises(InvalidSetting, match=says):
        Tokens.of(Settings(signing_key=OWN, _env_file=None, **given))  # type: ignore[arg-type]
