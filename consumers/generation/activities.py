"""The LLM must answer with three activities, and a JSON Schema asks for them.

They are found in the text while it is still being written, too. What is found so is only told, never saved: the whole
answer is read again when it is there. So answers are looked at that are JSON from their first character on; one that
begins with reasoning or prose is told as a whole alone.
"""

import re
from typing import Annotated, Any, Final, Self, TypeAlias

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

ACTIVITIES_PER_JOB: Final = 3


def _text(max_length: int) -> StringConstraints:
    # Postgres cannot keep NUL in a text; models do write it now and then, as \u0000.
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length, pattern=r"^[^\x00]*$")


_Line: TypeAlias = Annotated[str, _text(300)]
_Paragraph: TypeAlias = Annotated[str, _text(4_000)]


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")  # noqa: TRY004 - pydantic takes no TypeError
    return value


_Whole: TypeAlias = Annotated[int, BeforeValidator(_not_bool)]
_People: TypeAlias = Annotated[_Whole, Field(ge=1, le=10_000)]


class _Answered(BaseModel):
    # What a model adds unasked is dropped: to refuse it would mean to pay for another answer that is no better.
    model_config = ConfigDict(frozen=True, extra="ignore")


class GroupSize(_Answered):
    """An activity suits this many people, both ends included."""

    min: _People = Field(description="Smallest number of participants, at least 1.")
    max: _People = Field(description="Largest number of participants, not below min.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max < self.min:
            raise ValueError("max is below min")
        return self


class Activity(_Answered):
    """One team-building activity."""

    title: _Line = Field(description="A short name.")
    description: _Paragraph = Field(description="What happens and why it suits this team, in a few sentences.")
    duration_minutes: Annotated[_Whole, Field(ge=1, le=7 * 24 * 60)] = Field(description="Whole duration, in minutes.")
    group_size: GroupSize
    materials: list[_Line] = Field(max_length=50, description="What has to be at hand; may be empty.")
    steps: list[_Paragraph] = Field(min_length=1, max_length=50, description="What to do, in order.")
    objective: _Paragraph = Field(description="What the team gains from it.")


class Activities(_Answered):
    """The whole answer."""

    activities: list[Activity] = Field(
        min_length=ACTIVITIES_PER_JOB, max_length=ACTIVITIES_PER_JOB, description="Exactly three activities."
    )

    def encode(self) -> str:
        """Return the activities as a JSON array."""
        return orjson.dumps(self.model_dump()["activities"]).decode()


# Most bounds stay in our validation: strict mode refuses some of these keywords, and compatible servers refuse more.
# https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_NOT_SENT = frozenset(
    {"title", "default", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum"}
)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its bounds left out, every property required and no other allowed."""
    strict: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in {"properties", "$defs"}:
            strict[keyword] = {name: _strict(part) for name, part in value.items()}
        elif keyword == "items":
            strict[keyword] = _strict(value)
        elif keyword not in _NOT_SENT:
            strict[keyword] = value
    if "properties" in strict:
        strict |= {"required": list(strict["properties"]), "additionalProperties": False}
    return strict


def _asked_for() -> dict[str, Any]:
    """Return the schema that is sent, with the one bound that a customer's wish may contradict ("give us five")."""
    schema = _strict(Activities.model_json_schema())
    # Strict mode takes these two keywords for lists; an endpoint that does not is asked in another form.
    schema["properties"]["activities"] |= {"minItems": ACTIVITIES_PER_JOB, "maxItems": ACTIVITIES_PER_JOB}
    return schema


# Built once: it costs more than reading an answer.
SCHEMA: Final = _asked_for()
UNBOUNDED_SCHEMA: Final = _strict(Activities.model_json_schema())


_BEGINS: Final = re.compile(r"\s*(?:(?:```|~~~)[\w+.-]*\s*)?[\[{]")
_NEXT: Final = re.compile(r'["{}]')
_IN_STRING: Final = re.compile(r'["\\]')
# The first characters tell whether it is JSON.
_HEAD_CHARS: Final = 64
# Three activities have a few thousand.
_MOST_CHARS: Final = 256 * 1024
# In objects around them, or one by one.
_DEEPEST: Final = 4


class Written:
    """The text of one answer so far. Each piece is looked at once."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._open: list[int] = []
        self._in_string = False
        self._found = 0
        self._is_json: bool | None = None

    def add(self, piece: str) -> list[Activity]:
        """Add what was written next; return the activities that it has completed."""
        if self._is_json is False or self._found == ACTIVITIES_PER_JOB:
            return []
        self._text += piece
        if len(self._text) > _MOST_CHARS or not self._begins():
            return []
        found = [activity for start, end in self._objects() if (activity := _activity(self._text[start:end]))]
        new = found[: ACTIVITIES_PER_JOB - self._found]
        self._found += len(new)
        return new

    def _begins(self) -> bool:
        if self._is_json is None:
            if _BEGINS.match(self._text):
                self._is_json = True
            elif len(self._text) > _HEAD_CHARS:
                self._is_json = False
        return bool(self._is_json)

    def _objects(self) -> list[tuple[int, int]]:
        """Return where each object begins and ends that has ended since."""
        ended: list[tuple[int, int]] = []
        while mark := (_IN_STRING if self._in_string else _NEXT).search(self._text, self._at):
            match mark[0]:
                case "\\":
                    if mark.end() == len(self._text):
                        self._at = mark.start()  # what is escaped comes with the next piece
                        return ended
                    self._at = mark.end() + 1
                    continue
                case '"':
                    self._in_string = not self._in_string
                case "{":
                    self._open.append(mark.start())
                case _ if self._open:
                    start = self._open.pop()
                    if len(self._open) < _DEEPEST:
                        ended.append((start, mark.end()))
            self._at = mark.end()
        self._at = len(self._text)
        return ended


def _activity(text: str) -> Activity | None:
    try:
        return Activity.model_validate_json(text)
    except ValidationError:
        return None
