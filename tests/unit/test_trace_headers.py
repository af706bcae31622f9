"""The caller's W3C trace context: what is handed on of it, and what is dropped."""

from typing import Any, Final

import pytest
from pydantic import TypeAdapter

from streams.delivery.traces import TraceParent, TraceState, trace_id_of

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN: Final = "00f067aa0ba902b7"
PARENT: Final = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (PARENT, PARENT),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-ff"),
        (f"01-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-03-what-the-future-will-be-like", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-", PARENT),
        (f"fe-{TRACE}-{SPAN}-fe", f"00-{TRACE}-{SPAN}-00"),
        *(
            (odd, None)
            for odd in (
                *(f"cc-{TRACE}-{SPAN}-01.what", f"cc-{TRACE}-{SPAN}-0", f"cc-{TRACE}-{SPAN}-01-{'x' * 9_000}"),
                *(f"ff-{TRACE}-{SPAN}-01", f"{PARENT}-", f"{PARENT}-more", f"{PARENT}.", f" {PARENT}", f"{PARENT}\n"),
                *(
                    PARENT.upper(),
                    PARENT.replace("-", "_"),
                    PARENT[3:],
                    PARENT[:-1],
                    f"0{PARENT}",
                    f"{PARENT},{PARENT}",
                ),
                *(
                    f"00-{'0' * 32}-{SPAN}-01",
                    f"00-{TRACE}-{'0' * 16}-01",
                    f"00-{TRACE}-{SPAN}-1",
                    f"00-{TRACE}-{SPAN}-0x",
                ),
                *(
                    f"00-{TRACE[:-1]}-{SPAN}-01",
                    f"00-{TRACE}0-{SPAN}-01",
                    f"0x-{TRACE}-{SPAN}-01",
                    f"00-{TRACE}-{SPAN}-",
                ),
                *("", "nonsense", "00", "\uff10" + PARENT[1:], 7, None, [PARENT], b"00"),
            )
        ),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_a_parent_is_handed_on_in_our_version(given: Any, kept: str | None) -> None:
    """Versions to come are read as far as ours goes; what is malformed is no trace."""
    assert TypeAdapter(TraceParent).validate_python(given) == kept
    assert trace_id_of(given) == (TRACE if kept else None)


@pytest.mark.parametrize(
    "state",
    [
        *("a=1", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "a=1, b=2", "a=1\t,\tb=2", "a=1,,b=2", ",a=1,", "a= 1"),
        *("0a=1", "tenant@system=1", "a/b*c-d_e=~!", f"{'a' * 256}={'1' * 255}", "a=" + "1" * 256),
        *(",".join(f"k{number}=1" for number in range(count)) for count in (2, 32)),
    ],
)
def test_a_state_is_handed_on_as_it_is(state: str) -> None:
    """A list of members, with blanks around them."""
    assert TypeAdapter(TraceState).validate_python(state) == state


@pytest.mark.parametrize(
    "state",
    [
        *("", " ", ",", "a", "=1", "a=", "a=b=c", "A=1", "a b=1", "a=1;b=2", "a=1,b", "a=1,a=2", "\xe9=1", "a=\xe9"),
        *("a=1\nb=2", "a=\x00", "-a=1", f"{'a' * 257}=1", "a=" + "1" * 257, "a=" + "1" * 600, 7, None, ["a=1"]),
        ",".join(f"k{number}=1" for number in range(33)),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_a_state_that_is_malformed_is_dropped(state: Any) -> None:
    """All of it, as the standard has it: nobody knows what the rest is worth."""
    assert TypeAdapter(TraceState).validate_python(state) is None
