"""The console in this machine's Chromium, with a whole pipeline behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from infra.auth import issue_token, signing_key
from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.running import running
from tests.browser.chromium import chromium_or_why_not

_CHROMIUM, _WHY_NOT = chromium_or_why_not()
_DEADLINE_MS: Final = 20_000


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests, and say why, on a machine without the browser."""
    for item in items:
        if _WHY_NOT and "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=_WHY_NOT))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running pipeline with its console; its LLM takes a moment, so that a job is seen under way."""
    settings = Settings(_env_file=None, console=True)
    with running(Stack(settings, llm_latency_s=1.5, durable=False)) as stack:
        yield stack


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of the test's own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True)
class Visitor:
    """Somebody at a browser of their own, signed in or not."""

    page: Page
    stack: Stack

    @property
    def console(self) -> str:
        """The console's address."""
        return f"{self.stack.api_url}/console"

    def token(self, *scopes: str) -> str:
        """Return a token with scopes."""
        return issue_token(signing_key(self.stack.settings), organization_id=BIRCH.id, subject="ann", scopes=scopes)

    async def open(self, path: str) -> None:
        """Open a page of the console."""
        await self.page.goto(self.console + path)

    async def sign_in(self, *scopes: str) -> None:
        """Sign in as people do."""
        await self.open("/sign-in")
        await self.page.get_by_label("Bearer token").fill(self.token(*scopes))
        await self.page.get_by_role("button", name="Sign in").click()

    async def complaints(self) -> list[str]:
        """Return what axe finds wrong with the page that is open."""
        found = await Axe().run(self.page)
        return [
            f"{one['id']}: {one['help']} ({', '.join(node['html'][:120] for node in one['nodes'][:3])})"
            for one in found.response["violations"]
        ]


Newcomer = Callable[..., Awaitable[Visitor]]


@pytest.fixture
def newcomer(browser: Browser, stack: Stack) -> Newcomer:
    """Open a browser window with cookies of its own; its errors fail the test that looks at them."""

    async def come(*, scheme: Literal["light", "dark"] = "light", javascript: bool = True) -> Visitor:
        context = await browser.new_context(
            color_scheme=scheme, java_script_enabled=javascript, viewport={"width": 1280, "height": 900}
        )
        context.set_default_timeout(_DEADLINE_MS)
        return Visitor(await context.new_page(), stack)

    return come


@pytest.fixture
async def operator(newcomer: Newcomer) -> Visitor:
    """An operator who is signed in."""
    visitor = await newcomer()
    await visitor.sign_in("operator")
    return visitor


@dataclass(frozen=True)
class Customer:
    """Birch, which asks for jobs over HTTP, and what its jobs meet at the LLM."""

    stack: Stack
    http: aiohttp.ClientSession

    async def ask(self, requirements: str = "An hour outdoors for 9 people") -> str:
        """Ask for a job; return its ID."""
        headers = {"Authorization": f"Bearer {self.stack.token(BIRCH.id)}"}
        body = {"organization_id": BIRCH.id, "team_id": BIRCH.team.id, "requirements": requirements}
        url = f"{self.stack.api_url}/api/activities/generate-custom"
        async with self.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["job_id"])

    async def have(self, mode: str, requirements: str) -> None:
        """Have the LLM's answer to calls whose prompt has this text be `refusal`, `slow`, or another way to fail."""
        async with self.http.put(self._control, json={"mode": mode, "containing": requirements}) as answer:
            assert answer.ok

    async def have_all_answered(self) -> None:
        """Have the LLM answer everybody again."""
        async with self.http.delete(self._control) as answer:
            assert answer.ok

    @property
    def _control(self) -> str:
        return str(self.stack.settings.openai_base_url).removesuffix("/v1") + "/control"


@pytest.fixture
async def customer(stack: Stack) -> AsyncIterator[Customer]:
    """A customer; the LLM answers everybody again when the test has ended."""
    async with aiohttp.ClientSession() as http:
        customer = Customer(stack, http)
        yield customer
        await customer.have_all_answered()
