"""What a customer does on the example of a front end, in a real browser, from another origin than the API's."""

import re
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from infra.auth import issue_token, signing_key
from tests.browser.conftest import Newcomer
from tests.browser.people import Customer, Visitor

_SCRIPT = "<img src=x onerror=\"document.title='taken'\">"
_END_MS = 60_000
_DOCS = Path(__file__).parents[2] / "docs" / "front-ends.md"


@pytest_asyncio.fixture(loop_scope="module")
async def guest(newcomer: Newcomer) -> Visitor:
    """Somebody who has opened the page and picked the team that the tests' customer speaks for."""
    visitor = await newcomer()
    await visitor.page.goto(visitor.stack.web_url)
    await visitor.page.get_by_label("Team", exact=True).select_option("birch-design")
    return visitor


async def _ask(page: Page, wish: str) -> None:
    await page.get_by_label("Wish", exact=True).fill(wish)
    await page.get_by_role("button", name="Ask for three activities").click()


async def test_the_activities_come_while_they_are_written(guest: Visitor, customer: Customer) -> None:
    """A title stands there before the job has ended; then three activities, and the list has the job."""
    page, wish = guest.page, f"Paper boats {uuid4().hex[:8]}"
    await customer.have("ok", wish, latency_s=12)
    await page.evaluate("""new MutationObserver(() => {
        const status = document.querySelector("#status").textContent;
        if (document.querySelector("#activities .coming")) window.statusAtFirstTitle ??= status;
    }).observe(document.querySelector("#job"), {childList: true, subtree: true, characterData: true})""")
    await _ask(page, wish)
    await expect(page.locator("#status")).to_have_text("completed", timeout=_END_MS)
    await expect(page.locator("#activities li:not(.coming)")).to_have_count(3)
    assert await page.evaluate("window.statusAtFirstTitle") == "progressed"
    await expect(page.locator("#jobs tr").first).to_contain_text("completed")
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


async def test_a_wish_is_withdrawn(guest: Visitor, customer: Customer) -> None:
    """The button cancels the job that is under way, and the page says how it ended."""
    wish = f"Slow boats {uuid4().hex[:8]}"
    await customer.have("slow", wish)
    await _ask(guest.page, wish)
    await guest.page.get_by_role("button", name="Cancel").click()
    await expect(guest.page.locator("#status")).to_contain_text("cancelled: withdrawn on the page", timeout=_END_MS)
    await expect(guest.page.locator("#jobs tr").first).to_contain_text("cancelled")


async def test_a_token_that_has_expired_is_replaced(guest: Visitor) -> None:
    """The client asks its page for another one, and its caller notices nothing."""
    result = await guest.page.evaluate(
        """async (old) => {
        const { Teamfit } = await import("/static/teamfit.js");
        const { api } = await (await fetch("/my/session")).json();
        const fresh = async () => (await (await fetch("/my/teamfit-token", {
            method: "POST", body: JSON.stringify({ organization_id: "birch" }),
        })).json()).token;
        const tokens = [async () => old, fresh];
        return Array.isArray(await new Teamfit(api, () => tokens.shift()()).list());
    }""",
        _expired(guest),
    )
    assert result


def _expired(guest: Visitor) -> str:
    key = signing_key(guest.stack.settings)
    return issue_token(key, organization_id="birch", lifetime=-timedelta(minutes=5))


async def test_a_refusal_is_said(guest: Visitor) -> None:
    """A team whose quota is used up reads why, and may ask again."""
    await guest.page.get_by_label("Team", exact=True).select_option("cedar-sales")
    await _ask(guest.page, "Anything")
    await expect(guest.page.get_by_role("alert")).to_contain_text("quota")
    await expect(guest.page.get_by_role("button", name="Ask for three activities")).to_be_enabled()


async def test_the_snippet_of_the_docs_follows_a_job(guest: Visitor, customer: Customer) -> None:
    """On a page below the API's own origin, as it stands there: to the end, which closes the stream."""
    page = guest.page
    (snippet,) = re.findall(r"^```js\n(.*?)^```", _DOCS.read_text(), re.MULTILINE | re.DOTALL)
    await page.goto(f"{guest.stack.api_url}/healthz")
    job = await customer.ask()
    await page.evaluate(
        f"""([token, job]) => {{
        const Stream = window.EventSource;
        window.streams = [];
        window.EventSource = function (url) {{ const one = new Stream(url); window.streams.push(one); return one; }};
        window.told = [];
        {snippet}
        return follow(job, (kind, event) => window.told.push([kind, event.subject]));
        }}""",
        [guest.stack.token(customer.organization.id), job],
    )
    await page.wait_for_function("window.told.some(([kind]) => kind === 'completed')", timeout=_END_MS)
    told = await page.evaluate("window.told")
    assert [told[0], told[-1]] == [["started", job], ["completed", job]]
    assert await page.evaluate("window.streams.map((one) => one.readyState)") == [2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_from_elsewhere_and_nothing_to_complain_of(newcomer: Newcomer, scheme: str) -> None:
    """Requests go to the page's server and the API alone; the browser and axe find no fault; texts are texts."""
    visitor = await newcomer(scheme=scheme)
    page = visitor.page
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(visitor.stack.web_url)
    await _ask(page, f"Paper boats {_SCRIPT}")
    await expect(page.locator("#status")).to_have_text("completed", timeout=_END_MS)
    assert await visitor.complaints() == []
    await expect(page).to_have_title("Activities for a team")
    ours = (visitor.stack.web_url, visitor.stack.api_url)
    assert [url for url in asked if not url.startswith(ours)] == []
    assert any("/events?ticket=" in url for url in asked)
    assert said == []


async def test_another_sites_name_for_this_machine_gets_no_token(customer: Customer) -> None:
    """A page that has its own name lead here reads nothing, and the demo organizations are all there is."""
    url = f"{customer.stack.web_url}/my/teamfit-token"
    cases = [("birch", {"Host": "evil.example"}, 421), ("other", {}, 403), (7, {}, 400), ("birch", {}, 200)]
    for organization, headers, status in cases:
        async with customer.http.post(url, json={"organization_id": organization}, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            assert "default-src 'none'" in answer.headers.get("Content-Security-Policy", "") or status == 421
