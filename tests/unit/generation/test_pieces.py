"""A stream is the same answer as a whole body, however it is framed and wherever it is cut into chunks."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.generation.activities import Written
from consumers.generation.answer import read
from consumers.generation.body import MOST_BYTES
from consumers.generation.pieces import Pieces
from tests.unit.generation.streams import NOT_TOLD, PIECES, TOLD, USAGE, chunk, event, sent, usual
from tests.unit.generation.test_packing import ACTIVITIES, GOOD

_TITLES = [(number, one["title"]) for number, one in enumerate(ACTIVITIES, 1)]


def taken(stream: bytes, size: int) -> tuple[Pieces, bytes, list[tuple[int, str]]]:
    """Feed a stream in chunks of this size; return what it was, the body that it is, and what was told."""
    told: list[tuple[int, str]] = []
    pieces = Pieces(lambda number, title: told.append((number, title)))
    for at in range(0, len(stream), size):
        if not pieces.add(stream[at : at + size]):
            break
    return pieces, pieces.end(), told


@pytest.mark.parametrize("size", [1, 7, 1000, 1_000_000])
@pytest.mark.parametrize("stream", [*TOLD.values(), *NOT_TOLD.values()], ids=[*TOLD, *NOT_TOLD])
def test_a_stream_is_the_answer_that_its_pieces_make(stream: Callable[[], str], size: int) -> None:
    """Activities, cost and model are those of the whole answer; each activity is told once, in order."""
    pieces, content, told = taken(stream().encode(), size)
    completion = read(content, fallback_model="f")
    assert json.loads(completion.activities.encode()) == ACTIVITIES
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (310, 470)
    assert completion.usage.model == "m"
    assert not completion.usage.maybe_billed
    assert pieces.is_stream
    assert not pieces.is_cut_off
    assert told == (_TITLES if stream in TOLD.values() else [])


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize(
    "body",
    {
        "an object": json.dumps({"choices": [{"message": {"content": GOOD}}], "usage": USAGE}),
        "an object after blank lines": "\n \n" + json.dumps({"choices": [{"message": {"content": GOOD}}]}),
        "an object after comments": ": PROCESSING\n\n" * 9 + json.dumps({"choices": [{"message": {"content": GOOD}}]}),
        "an object a line": "\n".join(json.dumps(piece) for piece in usual()),
        "a list": json.dumps(usual()),
        "a page": "<html><p>busy</p></html>",
        "nothing": "",
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_no_stream_is_left_as_it_came(body: tuple[str, str], size: int) -> None:
    """It is read as if no stream had been asked for."""
    pieces, content, told = taken(body[1].encode(), size)
    assert content == body[1].encode()
    assert not pieces.is_stream
    assert told == []


@pytest.mark.parametrize("kept", [1, 3, len(PIECES) // 2, len(PIECES) - 1])
@pytest.mark.parametrize("stream", TOLD.values(), ids=TOLD)
def test_a_stream_that_is_cut_is_known_as_such(stream: Callable[[], str], kept: int) -> None:
    """It has not ended, and what was told are activities of the answer that it was to be."""
    whole = stream()
    cut = whole[: len(whole) * kept // (len(PIECES) + 4)]
    pieces, _, told = taken(cut.encode(), 64)
    assert pieces.is_cut_off or not pieces.is_stream
    assert told == _TITLES[: len(told)]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=30),
    size=st.integers(1, 50),
    in_ascii=st.booleans(),
)
def test_any_text_comes_through(texts: list[str], size: int, in_ascii: bool) -> None:
    """Characters of several bytes, line breaks, escapes: cut anywhere, nothing is lost or doubled."""
    lines = [f"data: {json.dumps(piece, ensure_ascii=in_ascii)}\n\n" for piece in usual(texts)]
    _, content, _ = taken("".join(lines).encode("utf-8", "replace"), size)
    assert json.loads(content)["choices"][0]["delta"].get("content", "") == "".join(texts)


@pytest.mark.parametrize("title", ["Go 😀🏕 out", "é 😀", "a \u2028 line \x85 here 😀😀"])
@pytest.mark.parametrize("units", [1, 2, 3, 50])
@pytest.mark.parametrize("in_ascii", [True, False])
def test_a_character_may_be_cut_anywhere(title: str, units: int, *, in_ascii: bool) -> None:
    """Between its bytes, within the escapes that JSON writes it as, and as JavaScript does, between its two halves."""
    activities = [{**ACTIVITIES[0], "title": title}, *ACTIVITIES[1:]]
    text = json.dumps({"activities": activities}, ensure_ascii=in_ascii).encode("utf-16-le")
    texts = [text[at : at + 2 * units].decode("utf-16-le", "surrogatepass") for at in range(0, len(text), 2 * units)]
    pieces = [*usual(texts), {**chunk({}), "choices": [], "usage": USAGE}]
    answer, content, told = taken("".join(f"data:{json.dumps(one)}\n\n" for one in pieces).encode(), 61)
    assert json.loads(read(content, fallback_model="f").activities.encode()) == activities
    assert [one for _, one in told] == [one["title"] for one in activities]
    assert answer.says_all


@pytest.mark.parametrize(
    "stream",
    {
        "texts": lambda: sent(*usual(["x" * 100_000] * 60)),
        "one line": lambda: "data: " + "x" * (2 * MOST_BYTES),
        "lines of one event": lambda: "data: {\n" * MOST_BYTES,
        "fields": lambda: sent(*(chunk({}, **{f"f{at}": "x" * 100_000}) for at in range(60))),
    }.values(),
    ids=["texts", "one line", "lines of one event", "fields"],
)
def test_a_stream_holds_no_more_than_a_body(stream: Callable[[], str]) -> None:
    """What is longer is not waited for."""
    text = stream().encode()
    pieces, _, _ = taken(text, 65_536)
    assert pieces.is_too_long


@given(st.text(alphabet='{}[]"\\:,a ', max_size=200), st.integers(1, 9))
def test_no_text_is_taken_for_an_activity(text: str, size: int) -> None:
    """Whatever brackets and quotes a model writes, what is no valid activity is not told, and nothing breaks."""
    written = Written()
    assert [one for at in range(0, len(text), size) for one in written.add("{" + text[at : at + size])] == []


@pytest.mark.parametrize(
    "around", ["{0}", '{{"activities": {0}}}', '{{"result": {{"activities": {0}}}}}', "```json\n{0}\n```"]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_activities_are_found_in_what_is_put_around_them(around: str, indent: int | None) -> None:
    """Titles with quotes, braces and escapes are no obstacle; what is not valid is passed over."""
    odd = [{**ACTIVITIES[0], "title": 'A "quoted" {brace} \\ and a \u2028 line'}, {"title": "half"}, *ACTIVITIES[1:]]
    text = around.format(json.dumps(odd, indent=indent))
    written = Written()
    titles = [one.title for at in range(0, len(text), 5) for one in written.add(text[at : at + 5])]
    assert titles == [odd[0]["title"], *(one["title"] for one in ACTIVITIES[1:])]


def test_an_error_in_the_middle_is_in_the_document() -> None:
    """It is reported as any error under status 200 is."""
    error = {"error": {"message": "overloaded", "code": 503}}
    pieces, content, _ = taken((sent(*usual()[:9], done=False) + event(error, name="error")).encode(), 50)
    assert json.loads(content)["error"] == error["error"]
    assert pieces.says_something
