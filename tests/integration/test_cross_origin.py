"""Pages of other origins call the API, as browsers do it for them."""

from itertools import product
from uuid import uuid4

import pytest

from infra.errors import InvalidSetting
from infra.settings import Settings
from tests.api_server import api_settings, bearer, serving

PAGE = "https://app.example.com"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}


@pytest.mark.parametrize("prefix", ["", "/teamfit"])
async def test_a_page_of_a_named_origin_may_ask_and_read(database_url: str, prefix: str) -> None:
    """The browser asks first, by OPTIONS and without a token; answers, errors too, may be read with their ETag."""
    changes = {"cors_origins": f"http://localhost:5173, {PAGE}", "root_path": prefix}
    async with serving(api_settings(database_url=database_url).model_copy(update=changes)) as http:
        address = f"{prefix}/api/activities/generate-custom"
        async with http.options(address, headers={"Origin": PAGE, **ASKS}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        for headers, status in [({}, 401), (bearer(), 404)]:
            async with http.get(f"{prefix}/api/jobs/{uuid4()}", headers={"Origin": PAGE, **headers}) as answer:
                assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
                assert {"ETag", "Last-Event-ID"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
                assert "Origin" in answer.headers["Vary"]
                assert "Access-Control-Allow-Credentials" not in answer.headers


WANTED = (
    *("authorization", "Authorization,Content-Type,IDEMPOTENCY-KEY", "if-none-match, prefer", "last-event-id"),
    *("baggage,traceparent,tracestate", "cache-control,x-requested-with", "", ",", "accept , content-type,", None),
)


async def test_what_a_page_asks_for_is_allowed(database_url: str) -> None:
    """Each method that a route takes, with what libraries send unasked; also where the API is inside, the page not."""
    settings = api_settings(database_url=database_url).model_copy(update={"cors_origins": PAGE})
    async with serving(settings) as http:
        for method, wanted in product(("GET", "POST", "HEAD", "DELETE"), WANTED):
            asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Private-Network": "true"}
            asks |= {} if wanted is None else {"Access-Control-Request-Headers": wanted}
            async with http.options("/api/jobs", headers={"Origin": PAGE, **asks}) as answer:
                assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (200, PAGE), wanted
                assert method in answer.headers["Access-Control-Allow-Methods"]
                assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
                assert {"Origin", "Access-Control-Request-Headers"} <= set(answer.headers["Vary"].split(", "))


UNWANTED = {
    "Origin": ("null", f"{PAGE}/", f"{PAGE}:443", PAGE.upper(), f"{PAGE}.evil.com", "", "*", f"x{PAGE}", "\xe9"),
    "Access-Control-Request-Method": ("PUT", "patch", "x", ""),
    "Access-Control-Request-Headers": ("cookie", "x-a,", "*", "\xe9"),
}


async def test_a_page_reads_why_it_may_not(database_url: str) -> None:
    """A problem document, as elsewhere, that names the header and the fix, and repeats nothing."""
    settings = api_settings(database_url=database_url).model_copy(update={"cors_origins": PAGE})
    async with serving(settings) as http:
        for name, odd in ((name, odd) for name, values in UNWANTED.items() for odd in values):
            async with http.options("/api/jobs", headers={"Origin": PAGE, **ASKS, name: odd}) as answer:
                body = await answer.json(content_type="application/problem+json")
                assert (answer.status, body["code"]) == (400, "bad_request"), odd
                assert body["detail"].startswith(f"{name}: ")
                assert (answer.headers.get("Access-Control-Allow-Origin") == PAGE) is (name != "Origin")


@pytest.mark.parametrize("origins", [None, "https://other.example.com"])
async def test_other_pages_may_not(database_url: str, origins: str | None) -> None:
    """Without the setting, or its origin in it, no header lets a page read anything."""
    settings = api_settings(database_url=database_url).model_copy(update={"cors_origins": origins})
    async with serving(settings) as http:
        for method, asks in [("OPTIONS", ASKS), ("GET", {})]:
            async with http.request(method, f"/api/jobs/{uuid4()}", headers={"Origin": PAGE, **asks}) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_console_is_for_its_own_pages_alone(database_url: str) -> None:
    """Whatever origins are named: nothing but the API's routes is open to them."""
    changes = {"cors_origins": "*", "console": True}
    async with serving(api_settings(database_url=database_url).model_copy(update=changes)) as http:
        for address, is_open in [("/console/sign-in", False), ("/readyz", False), (f"/api/jobs/{uuid4()}", True)]:
            async with http.get(address, headers={"Origin": PAGE}) as answer:
                assert ("Access-Control-Allow-Origin" in answer.headers) is is_open, address


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "app.example.com",
            f"{PAGE}/a",
            f"{PAGE};http://localhost",
            "null",
            "https://*.a.com",
            f"{PAGE}, *",
            "https://",
        ),
        *(
            "https://user@a.com",
            "https://a.com:99999",
            "https://a.com:0",
            "https://a.com:x",
            "https://[::1",
            "https://:80",
        ),
        *(
            "https://a..com",
            "https://a.com?x",
            "https://a.com#x",
            "https://a.com\\b",
            "https://127.1",
            "file://",
            "x://y",
            "https://a.com%20",
        ),
    ],
)
def test_what_is_no_origin_is_refused(wrong: str) -> None:
    """It would match nothing, and nobody would know why."""
    with pytest.raises(InvalidSetting, match="TEAMFIT_CORS_ORIGINS"):
        _ = Settings(cors_origins=wrong, _env_file=None).cors_origins
