"""People of the browser tests: a visitor of the console, and a customer who gives it something to show."""

from dataclasses import dataclass
from typing import Any

import aiohttp
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from infra.auth import issue_token, signing_key
from infra.local.organizations import BIRCH, Organization
from infra.local.stack import Stack


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


@dataclass(frozen=True)
class Customer:
    """An organization that asks for jobs over HTTP, and what its jobs meet at the LLM."""

    stack: Stack
    http: aiohttp.ClientSession
    organization: Organization = BIRCH

    async def ask(self, requirements: str = "An hour outdoors for 9 people") -> str:
        """Ask for a job; return its ID."""
        headers = {"Authorization": f"Bearer {self.stack.token(self.organization.id)}"}
        body = {
            "organization_id": self.organization.id,
            "team_id": self.organization.team.id,
            "requirements": requirements,
        }
        url = f"{self.stack.api_url}/api/activities/generate-custom"
        async with self.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["job_id"])

    async def job(self, job: str) -> dict[str, Any]:
        """Read a job as its customer does."""
        headers = {"Authorization": f"Bearer {self.stack.token(self.organization.id)}"}
        async with self.http.get(f"{self.stack.api_url}/api/jobs/{job}", headers=headers) as answer:
            document: dict[str, Any] = await answer.json()
            return document

    async def have(self, mode: str, requirements: str, latency_s: float | None = None) -> None:
        """Have the LLM's answer to calls whose prompt has this text be `refusal`, `slow`, or another way to fail."""
        order = {"mode": mode, "containing": requirements, "latency": latency_s}
        async with self.http.put(self._control, json=order) as answer:
            assert answer.ok

    async def have_all_answered(self) -> None:
        """Have the LLM answer everybody again."""
        async with self.http.delete(self._control) as answer:
            assert answer.ok

    @property
    def _control(self) -> str:
        return str(self.stack.settings.openai_base_url).removesuffix("/v1") + "/control"
