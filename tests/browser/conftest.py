"""The console in this machine's Chromium, with a whole pipeline behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Literal

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from infra.local.stack import API, WEB, WORKERS, Stack
from infra.settings import Settings
from tests.acceptance.running import SharedPipeline
from tests.browser.chromium import chromium_or_why_not
from tests.browser.people import Customer, Visitor

_CHROMIUM, _WHY_NOT = chromium_or_why_not()
# Playwright's own 5 s are short for a page that six processes build while other tests run.
_DEADLINE_MS: Final = 20_000
expect.set_options(timeout=_DEADLINE_MS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests, and say why, on a machine without the browser. Those of a file share its event loop."""
    for item in items:
        if "tests/browser" not in str(item.path):
            continue
        if _WHY_NOT:
            item.add_marker(pytest.mark.skip(reason=_WHY_NOT))
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests of a file; each opens windows of its own, whose cookies and pages end with it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


Newcomer = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(loop_scope="module")
async def newcomer(browser: Browser, stack: Stack) -> AsyncIterator[Newcomer]:
    """Open a browser window with cookies of its own; its errors fail the test that looks at them."""
    async with AsyncExitStack() as opened:

        async def come(*, scheme: Literal["light", "dark"] = "light", javascript: bool = True) -> Visitor:
            context = await browser.new_context(
                color_scheme=scheme, java_script_enabled=javascript, viewport={"width": 1280, "height": 900}
            )
            opened.push_async_callback(context.close)
            context.set_default_timeout(_DEADLINE_MS)
            return Visitor(await context.new_page(), stack)

        yield come


@pytest_asyncio.fixture(loop_scope="module")
async def operator(newcomer: Newcomer) -> Visitor:
    """An operator who is signed in."""
    visitor = await newcomer()
    await visitor.sign_in("operator")
    return visitor


@pytest_asyncio.fixture(loop_scope="module")
async def customer(stack: Stack) -> AsyncIterator[Customer]:
    """A customer; the LLM answers everybody again when the test has ended."""
    async with aiohttp.ClientSession() as http:
        customer = Customer(stack, http)
        yield customer
        await customer.have_all_answered()
