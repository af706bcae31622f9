"""Headers that come in several lines are one list, or one value, or refused: the same wherever they are read."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError

from infra.api.repeated import LISTS, SINGLE, JoinedLists, each_once


async def after(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers that the app behind is told."""
    told: list[tuple[bytes, bytes]] = []

    async def app(scope: MutableMapping[str, Any], *_: object) -> None:
        told.extend(scope["headers"])

    await JoinedLists(app)({"type": "http", "headers": list(headers)}, None, None)  # type: ignore[arg-type] # unused
    return told


@pytest.mark.parametrize("name", sorted(LISTS))
async def test_the_lines_of_a_list_are_one(name: bytes) -> None:
    """In their order, whatever stands between them, which stays as it is."""
    one, other, two = (name, b"a;q=1"), (b"host", b"api"), (name, b'"b, c", d')
    assert await after(one, other, two) == [(name, b'a;q=1, "b, c", d'), other]
    assert await after(one, other) == [one, other]


@pytest.mark.parametrize(
    "name",
    [*(name.lower().encode() for name in SINGLE), b"authorization", b"traceparent", b"cookie", b"host", b"x-others"],
)
async def test_other_lines_stay_apart(name: bytes) -> None:
    """What means one thing would mean another, joined: whoever reads it decides."""
    given = [(name, b"a"), (b"accept", b"x"), (name, b"b")]
    assert sorted(await after(*given)) == sorted(given)


@pytest.mark.parametrize("name", SINGLE)
async def test_what_means_one_thing_is_not_given_as_two(name: str) -> None:
    """It is refused by its name; the same value twice says the same."""
    line = name.lower().encode()

    def request(*values: bytes) -> Request:
        return Request({"type": "http", "query_string": b"", "headers": [(line, value) for value in values]})

    for values in ((), (b"1",), (b"1", b"1")):
        await each_once(request(*values))
    with pytest.raises(RequestValidationError) as refused:
        await each_once(request(b"1", b"2"))
    assert [one["loc"] for one in refused.value.errors()] == [("header", name)]
