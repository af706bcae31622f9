"""Takes off what models and servers wrap around the JSON that they were asked for.

Packing is a Markdown fence, text or reasoning around the JSON, an object or a list around the activities, JSON as a
string, null for an empty list. It says nothing about the activities, so it costs no second call. The activities
themselves are content: they are found here, and never mended.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from consumers.generation.activities import Activity

_TAGS = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
_TAG: Final = re.compile(
    rf"(?P<opens><(?:{_TAGS})(?:\s[^<>]*)?>|\[THINK\]|◁think▷)|</(?:{_TAGS})\s*>|\[/THINK\]|◁/think▷", re.IGNORECASE
)
# Where a value may begin: an object, a list of objects, or a string that holds one of them.
_START: Final = re.compile(r'\{(?=\s*["\'}])|\[(?=\s*\{)|"(?=(?:\s|\\[nrt]|\\+")*[{\[])')
# An answer that begins like this and cannot be decoded is broken. What is whole inside of it is not the answer.
_BEGINS: Final = re.compile(r'\{\s*["\']activities|\[\s*\{\s*"title"')
_FENCE: Final = re.compile(r"(?:```|~~~)[\w+.-]*")
_IN_FENCE: Final = re.compile(r"(?:```|~~~)[\w+.-]*\s*(.*?)\s*(?:```|~~~)?", re.DOTALL)
# As Markdown quotes a line.
_QUOTED: Final = re.compile(r"^\s*> ?")
# A JSON string as a whole, or what people's programs take for a blank and JSON does not.
_SPACES: Final = re.compile(
    r'("(?:[^"\\]|\\.)*")|[\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f-\u2064\u3000\ufeff]', re.DOTALL
)
_ACTIVITIES: Final = "activities"
_LISTS: Final = ("materials", "steps")
_DEEPEST: Final = 4

# A hostile text costs no more than this. Good ones are found at the first try or a few later.
_MOST_TRIES: Final = 500
_RECURSION_CHARS: Final = 50_000

# A line break in a string is a matter of encoding. What Postgres cannot keep is refused by field, later.
_DECODER: Final = json.JSONDecoder(strict=False)


@dataclass
class Found:
    """An answer gave an object with activities, or a reason why none. What was taken off is noted.

    `instead`: what is said where there are none, without the reasoning.
    """

    value: dict[str, Any] | None = None
    problem: str = "it holds no JSON object with activities"
    instead: str = ""
    kinds: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Value:
    """A JSON value in a text, or one that is broken."""

    start: int
    end: int
    found: Found
    activity: dict[str, Any] | None = None
    broken: bool = False


def unpack(text: str, *, depth: int = 0) -> Found:
    """Return the last answer in a text. What stands in its reasoning counts only when there is nothing else."""
    values = _values(text, depth)
    thought = _reasoning(text, values)
    outside = _without(text, thought)
    if outside.strip("\ufeff \t\r\n"):
        values = [one for one in values if not any(start <= one.start < end for start, end in thought)]
    elif not text.strip():
        return Found(problem="it is empty")
    found, places = _last(values)
    for other in _rewritten(text) if found.value is None and depth < _DEEPEST else ():
        inner = unpack(other, depth=_DEEPEST)
        if inner.value is not None:
            inner.kinds.add("string")
            return inner
    if found.value is None:
        found.instead = "" if any(one.broken for one in values) else outside
        return found
    around = _without(text, [*thought, *places])
    bare = _FENCE.sub("", around)
    found.kinds |= {"reasoning"} if thought or _TAG.search(around) else set()
    found.kinds |= {"fence"} if bare != around else set()
    found.kinds |= {"text"} if _TAG.sub("", bare).strip() else set()
    return found


def _rewritten(text: str) -> Iterator[str]:
    """Yield the text without a way of writing that hides its JSON. Nothing within a string changes its meaning."""
    if escaped := _unescaped(text):
        yield escaped
    if "&quot;" in text or "&#34;" in text:
        yield html.unescape(text)
    lines = text.splitlines()
    if lines and all(line.lstrip().startswith(">") for line in lines if line.strip()):
        yield "\n".join(_QUOTED.sub("", line) for line in lines)
    spaced = _SPACES.sub(lambda found: found[1] or " ", text)
    if spaced != text:
        yield spaced


def _unescaped(text: str) -> str:
    """Return what stands in a text that is the inside of a JSON string, without its quotes."""
    start, end = text.find('{\\"'), text.rfind("}") + 1
    if start < 0 or end <= start:
        return ""
    try:
        value: str = _DECODER.decode(f'"{text[start:end]}"')
    except ValueError:
        return ""
    return value


def _values(text: str, depth: int) -> list[_Value]:
    values: list[_Value] = []
    budget, at = 4 * len(text) + _RECURSION_CHARS, 0
    for _ in range(_MOST_TRIES):
        mark = _START.search(text, at)
        if mark is None or budget < 0:
            break
        at = mark.start() + 1
        try:
            value, end = _DECODER.raw_decode(text, mark.start())
        except (ValueError, RecursionError) as error:
            budget -= _RECURSION_CHARS if isinstance(error, RecursionError) else getattr(error, "pos", len(text)) - at
            if _BEGINS.match(text, mark.start()):
                why = error.msg if isinstance(error, json.JSONDecodeError) else "too deep or too large"
                values.append(_Value(mark.start(), at, Found(problem=f"its JSON is broken: {why}"), broken=True))
            continue
        kinds: set[str] = set()
        wanted = wanted_in(value, kinds, depth)
        if isinstance(value, str) and wanted is None:
            budget -= end - at  # the end of a quotation, taken for a beginning
            continue
        at = end
        activity = _one(value, kinds)
        values.append(_Value(mark.start(), end, Found(wanted, kinds=kinds), activity))
    return values


def _reasoning(text: str, values: Sequence[_Value]) -> list[tuple[int, int]]:
    """Return where reasoning stands. A block that is never closed is none: the answer follows in the same breath."""
    places: list[tuple[int, int]] = []
    opened: int | None = None
    for tag in islice(_TAG.finditer(text), _MOST_TRIES):
        if any(one.start <= tag.start() < one.end for one in values):
            continue
        if tag["opens"]:
            opened = tag.start() if opened is None else opened
        else:
            # Without its opening, which the server took for a part of the prompt, all that came before is reasoning.
            places.append((opened or 0, tag.end()))
            opened = None
    return places


def _without(text: str, places: Sequence[tuple[int, int]]) -> str:
    parts, at = [], 0
    for start, end in sorted(places):
        parts.append(text[at : max(at, start)])
        at = max(at, end)
    return "\n".join([*parts, text[at:]])


def _last(values: Sequence[_Value]) -> tuple[Found, list[tuple[int, int]]]:
    """Return the last answer and where it stands. A list after a broken answer is most likely a part of it."""
    broken = next((one for one in values if one.broken), None)
    whole = [
        one
        for one in values
        if one.found.value is not None and not (broken and one.start > broken.start and "list" in one.found.kinds)
    ]
    last = whole[-1] if whole else broken
    if last is not None:
        return last.found, [(last.start, last.end)]
    single = [(one.activity, (one.start, one.end)) for one in values if one.activity is not None]
    if single:
        kinds = {kind for one in values for kind in one.found.kinds}
        return Found({_ACTIVITIES: [one for one, _ in single]}, kinds={"list", *kinds}), [place for _, place in single]
    return Found(), []


def wanted_in(value: object, kinds: set[str], depth: int = 0) -> dict[str, Any] | None:
    """Return the activities object that a JSON value is or wraps; note the wrapping."""
    if depth > _DEEPEST:
        return None
    match value:
        case str():
            found = unpack(value, depth=depth + 1)
            kinds |= {"string"} | found.kinds if found.value else set()
            return found.value
        case {"activities": (dict() | str()) as inner} if wanted := wanted_in(inner, kinds, depth + 1):
            kinds.add("wrapper")
            return wanted
        case dict() if _ACTIVITIES in value:
            return value
        case dict() if not _is_activity(value):
            return _wrapped(value, kinds, depth)
        case [dict() as only] if not _is_activity(only):
            return wanted_in(only, kinds, depth + 1)
        case list() if any(_one(part, set()) for part in value):
            kinds.add("list")
            return {_ACTIVITIES: value}
    return None


def _wrapped(value: Mapping[str, object], kinds: set[str], depth: int) -> dict[str, Any] | None:
    """Return what exactly one of an object's values holds, or all of them if they are activities."""
    single = [part for part in value.values() if _is_activity(part)]
    if len(single) > 1:
        kinds |= {"wrapper", "list"}
        return {_ACTIVITIES: single}
    answers = []
    for part in value.values():
        # The schema that was sent names `activities` too: a model that repeats it answers nothing.
        if isinstance(part, dict) and isinstance(part.get(_ACTIVITIES), dict):
            continue
        inner: set[str] = set()
        if wanted := wanted_in(part, inner, depth + 1):
            answers.append((wanted, inner))
    if len(answers) != 1:
        return None
    wanted, inner = answers[0]
    kinds |= {"wrapper"} | inner - {"list"}
    return wanted


def _is_activity(value: object) -> bool:
    return isinstance(value, dict) and "title" in value and len(Activity.model_fields.keys() & value.keys()) > 1


def _one(value: object, kinds: set[str]) -> dict[str, Any] | None:
    """Return the activity that a value is, or holds as its only one, or as a text."""
    inner, kind = value, ""
    if isinstance(value, str) and (bare := _bare(value))[:1] == "{":
        try:
            inner, kind = _DECODER.decode(bare), "string"
        except (ValueError, RecursionError):
            return None
    elif isinstance(value, dict) and len(value) == 1:
        [inner] = value.values()
        kind = "wrapper"
    if not isinstance(inner, dict) or not _is_activity(inner):
        return None
    kinds |= {kind} if kind else set()
    return inner


def _bare(text: str) -> str:
    """Return a text without the fence around it."""
    text = text.strip()
    fenced = _IN_FENCE.fullmatch(text)
    return fenced[1] if fenced else text


def unpacked_each(value: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Return the same activities, without what is wrapped around each of them."""
    activities = value[_ACTIVITIES]
    if not isinstance(activities, list):
        return value
    return {_ACTIVITIES: [_one(one, kinds) or one for one in activities]}


def without_null_lists(value: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Return the same activities with an empty list where one is null."""
    activities = value[_ACTIVITIES]
    if not isinstance(activities, list):
        return value
    filled = [
        {**one, **{name: [] for name in _LISTS if name in one and one[name] is None}} if isinstance(one, dict) else one
        for one in activities
    ]
    if filled != activities:
        kinds.add("null")
    return {_ACTIVITIES: filled}
