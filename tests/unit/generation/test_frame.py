"""An event that is taken by its frame alone is one that says the same when all of it is read."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.stream import Frame, texts_of
from tests.unit.generation.streams import chunk, event


def learned(text: str) -> tuple[Frame, bytes, bytes]:
    """Return a frame that has seen an event with this text, and what it cuts off."""
    line = event(chunk({"content": text})).encode().strip()
    frame = Frame()
    frame.learn(line, chunk({}))
    before, after = line.split(orjson.dumps(text), 1)
    return frame, before, after


@given(st.text(alphabet='"\\,:{}[] an\u2603\n', max_size=30), st.booleans())
def test_no_line_is_taken_for_another(middle: str, is_quoted: bool) -> None:
    """Whatever stands where the text is, escapes and whole fields included."""
    frame, before, after = learned("a text")
    between = f'"{middle}"' if is_quoted else middle
    found = frame.text_in(before + between.encode() + after)
    if found is not None and (texts := texts_of([found])) is not None:
        (text,) = texts
        assert orjson.loads((before + between.encode() + after).removeprefix(b"data:")) == chunk({"content": text})


@given(st.lists(st.text(max_size=20), max_size=9))
def test_texts_are_decoded_together(texts: list[str]) -> None:
    """In their order, with what separates them."""
    frame, before, after = learned("x")
    found = [frame.text_in(before + orjson.dumps(text) + after) for text in texts]
    assert texts_of([one for one in found if one is not None]) == texts
    assert None not in found


def test_one_that_is_none_is_told() -> None:
    """A control character, or a byte that is no UTF-8, has every line read by itself."""
    assert texts_of([b'"good"', b'"\x01"']) is None
    assert texts_of([b'"\xff"']) is None


def test_a_stream_whose_events_differ_has_no_frame() -> None:
    """Neither is one learned from an event that says more than its text, or says it twice."""
    for line in (
        b'data: {"choices":[{"delta":{"content":"a"}}],"content":"b"}',
        b'data: {"choices":[{"delta":{"content":"a","content":"b"}}]}',
        b'data: {"content":"a","choices":[{"delta":{"content":"b"}}]}',
        b"data: [DONE]",
        b"",
    ):
        frame = Frame()
        frame.learn(line, {"choices": [{"delta": {}}]})
        assert frame.text_in(line) is None
