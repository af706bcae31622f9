"""The LLM must answer with three activities, and a JSON Schema asks for them."""

from typing import Annotated, Any, Final, Self, TypeAlias

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

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
