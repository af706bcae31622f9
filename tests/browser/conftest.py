"""The console in this machine's Chromium, with a whole pipeline behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, async_playwright

from infra.local.stack import API, WEB, WORKERS, Stack
from infra.settings import Settings
from tests.acceptance.running import SharedPipeline
from tests.browser.chromium import chromium_or_why_not
from tests.browser.people import Customer, Visitor

_CHROMIUM, _WHY_NOT = chromium_or_why_not()
_DEADLINE_MS: Final = 20_000


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests, and say why, on a machine without the browser."""
    for item in items:
        if _WHY_NOT and "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=_WHY_NOT))


def _make() -> Stack:
    settings = Settings(_env_file=None, console=True)
    return Stack(settings, llm_latency_s=1.5, durable=False, parts=(*WORKERS, API, WEB))


_PIPELINE = SharedPipeline(Path(__file__).parent, _make)


@pytest.fixture(scope="module")
def stack() -> Stack:
    """The running pipeline with its console and front end; its LLM takes a moment, so that a job is seen under way."""
    return _PIPELINE.get()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stop the pipeline with the last test of this folder."""
    _PIPELINE.stop_before(nextitem)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of the test's own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


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


@pytest.fixture
async def customer(stack: Stack) -> AsyncIterator[Customer]:
    """A customer; the LLM answers everybody again when the test has ended."""
    async with aiohttp.ClientSession() as http:
        customer = Customer(stack, http)
        yield customer
        await customer.have_all_answered()
