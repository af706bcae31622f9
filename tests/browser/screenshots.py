"""Pictures of each page of the console, light and dark, of a pipeline that has something to show."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import aiohttp
from playwright.async_api import Browser, Page, async_playwright, expect

from infra.local.organizations import ACME
from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.running import running
from tests.browser.chromium import chromium_or_why_not
from tests.browser.people import Customer, Visitor
from tests.waiting import wait_for

_FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
_WISHES: Final = (
    "An hour outdoors for 9 people, nothing athletic",
    "Half the team is new: help them learn whom to ask for what",
    "Something with paper and scissors for a rainy day",
    "A remote session of 45 minutes for designers",
    "A quiet afternoon; two of us use wheelchairs",
    "Cooking for twelve, without an oven",
)


def main() -> int:
    """Make the pictures; return 1 where there is no browser."""
    chromium, why_not = chromium_or_why_not()
    if chromium is None:
        sys.stderr.write(f"{why_not}\n")
        return 1
    settings = Settings(console=True)
    with running(Stack(settings, llm_latency_s=1.0, durable=False)) as stack:
        asyncio.run(_make(stack, chromium))
    return 0


async def _make(stack: Stack, chromium: str) -> None:
    async with async_playwright() as playwright, aiohttp.ClientSession() as http:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        operator = await _signed_in(browser, stack, "light")
        pages = await _arranged(operator, Customer(stack, http, organization=ACME))
        _FOLDER.mkdir(exist_ok=True)
        for scheme in ("light", "dark"):
            visitor = await _signed_in(browser, stack, scheme)
            for name, path in pages.items():
                await visitor.open(path)
                await _settled(visitor.page)
                # A traceback has paths of the machine that makes the picture.
                await visitor.page.evaluate("document.querySelectorAll('.traceback').forEach((one) => one.remove())")
                await visitor.page.screenshot(path=_FOLDER / f"console-{name}-{scheme}.png")
        await browser.close()


async def _signed_in(browser: Browser, stack: Stack, scheme: str) -> Visitor:
    size = {"width": 1280, "height": 800}
    context = await browser.new_context(color_scheme=scheme, viewport=size)  # type: ignore[arg-type] # a literal
    visitor = Visitor(await context.new_page(), stack)
    await visitor.sign_in("operator")
    return visitor


async def _arranged(operator: Visitor, customer: Customer) -> dict[str, str]:
    """Have jobs of all kinds, failed events and a plan; return the pages to show."""
    done = [await customer.ask(wish) for wish in _WISHES]
    await customer.have("refusal", "ferrets")
    failed = [await customer.ask(f"An hour with {number} ferrets") for number in (2, 3, 4)]
    await wait_for(lambda: _shows(operator, "/failed", failed), deadline_s=60, what="failed events")
    await wait_for(lambda: _shows(operator, "/jobs?status=completed", done), deadline_s=60, what="completed jobs")
    await operator.open("/failed")
    event = str(await operator.page.locator("tr[data-row] a").first.get_attribute("href")).partition("/console")[2]
    await operator.page.get_by_role("button", name="Plan the replay").click()
    await operator.page.wait_for_url("**/replay/*")
    plan = operator.page.url.partition("/console")[2]
    await operator.open("/failed")
    await operator.page.get_by_role("button", name="Discard the open ones that match").click()
    await operator.page.wait_for_url("**/discards/*")
    discard = operator.page.url.partition("/console")[2]
    await operator.open("/webhooks")
    await operator.page.get_by_label("Organization").last.fill(ACME.id)
    await operator.page.get_by_label("URL").fill("https://acme.example/hooks")
    await operator.page.get_by_role("button", name="Add").click()
    await operator.page.get_by_role("link", name="To the endpoint").click()
    endpoint = operator.page.url.partition("/console")[2]
    await operator.page.get_by_role("button", name="Send").last.click()
    await _priced(operator)
    await customer.have("slow", "hurry")
    for number in range(3):
        await customer.ask(f"No hurry, {number + 4} people")
    await _counted(operator.page, operator)
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job": f"/jobs/{done[0]}",
        "events": f"/jobs/{done[0]}/events",
        "failed": "/failed",
        "failed-event": event,
        "plans": "/replay",
        "plan": plan,
        "organizations": "/organizations",
        "organization": f"/organization?id={ACME.id}",
        "plan-shares": "/organizations/plans",
        "llm": "/llm",
        "streams": "/streams",
        "workers": "/workers",
        "actions": "/actions",
        "schedule": "/schedule",
        "failed-groups": "/failed/groups",
        "discard": discard,
        "cancellations": "/cancels",
        "webhooks": "/webhooks",
        "webhook": endpoint,
        "entries": "/streams/entries?topic=job-events",
        "operating": "/operating",
    }


async def _priced(operator: Visitor) -> None:
    """Give the model a price, and a plan a share."""
    page = operator.page
    await operator.open("/llm")
    await page.get_by_label("Model, as its answers name it").fill(str(operator.stack.settings.model))
    await page.get_by_label("A million tokens in").fill("0.15")
    await page.get_by_label("A million tokens out").fill("0.60")
    await page.get_by_role("button", name="Set …").click()
    await page.get_by_role("button", name="Set the price").click()
    await operator.open("/organizations/plans")
    await page.get_by_label("Plan, as subscriptions name it").fill("team")
    await page.get_by_label("Weight of each").fill("2")
    await page.get_by_label("Budget of a month").fill("50.00")
    await page.get_by_role("button", name="Set …").click()
    await page.get_by_role("button", name="Do it").click()


async def _counted(page: Page, operator: Visitor) -> None:
    """Have the jobs counted by time, and wait until the charts have them."""
    await operator.open("/schedule")
    await page.locator("select[name=task]").select_option("counts.again")
    await page.get_by_role("button", name="Run").click()
    await operator.open("/")
    await page.locator("svg.bars rect").first.wait_for(timeout=90_000)


async def _shows(operator: Visitor, path: str, jobs: list[str]) -> bool:
    await operator.open(path)
    return set(jobs) <= set(await operator.page.locator("a.id").all_inner_texts())


async def _settled(page: Page) -> None:
    """Wait until the page is live, if it is of that kind: it is what people see."""
    if await page.locator("#state").count():
        await expect(page.locator("#state")).to_have_text("live", timeout=30_000)


if __name__ == "__main__":
    sys.exit(main())
