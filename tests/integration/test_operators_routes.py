"""Every route of operators, made from the API's own document, called by everybody who may or may not."""

from collections.abc import Iterator, Mapping
from uuid import uuid4

import pytest

from infra.api import create_api
from infra.settings import Settings
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool

_PREFIX = "/api/ops/"
# The tokens that may not, by what they are.
STRANGERS: Mapping[str, Mapping[str, str]] = {
    "a customer's": bearer("acme", "jobs"),
    "another organization's": bearer("birch", "jobs"),
    "a viewer's": bearer("ops", "viewer"),
    "a viewer's who is a customer too": bearer("acme", "viewer", "jobs"),
}


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings of an API on the test's own database; nobody is let as far as the broker."""
    return api_settings(database_url=database_url)


def routes_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield method and address of each route of operators; parameters have some value."""
    for path, item in create_api(settings).openapi()["paths"].items():
        if path.startswith(_PREFIX):
            address = path
            while "{" in address:
                begin, _, rest = address.partition("{")
                address = f"{begin}{uuid4()}{rest.partition('}')[2]}"
            for method in item:
                yield method.upper(), address


async def test_only_operators_get_past_the_door(settings: Settings, database: Pool) -> None:
    """No token: 401. Any other than an operator's: 403, and what would have acted stands in the log of actions."""
    routes = [*routes_of(settings)]
    assert len(routes) > 20
    refused = []
    async with serving(settings) as http:
        for method, address in routes:
            for headers in ({}, {"Authorization": "Bearer no.token.atall"}, {"Cookie": "teamfit_console=guessed"}):
                async with http.request(method, address, json={}, headers=headers) as answer:
                    assert answer.status == 401, (method, address)
            for whose, token in STRANGERS.items():
                async with http.request(method, address, json={}, headers=token) as answer:
                    assert answer.status == 403, (method, address, whose)
                    assert (await answer.json())["code"] == "insufficient_scope"
                if method != "GET":
                    refused.append(("request", f"{method} {address}", "api", "refused"))
        logged = await database.fetch("SELECT action, target, face, outcome FROM operator_actions ORDER BY at")
        assert [tuple(one) for one in logged] == refused
        for method, address in routes:
            # What comes of it is told by other tests; a body without fields, and an ID that does not exist, do nothing.
            async with http.request(method, address, json={}, headers=bearer("ops", "operator")) as answer:
                assert answer.status not in {401, 403, 405, 500}, (method, address, await answer.text())
