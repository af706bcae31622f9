"""A dialect is the form in which an endpoint is asked for JSON.

Forms stand strongest first; a refused part leaves a rest.

json_schema ──▶ json_schema_unbounded ──▶ json_object_with_schema ──▶ json_object_schema_in_prompt ──▶ prompt

Beside the form, `max_completion_tokens` becomes `max_tokens` and then nothing, and the system message a part of the
user's. Each step only takes something away, so learning ends.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from consumers.generation.activities import SCHEMA, UNBOUNDED_SCHEMA
from infra.settings import CompletionFormat

Form: TypeAlias = Literal[
    "json_schema",
    "json_schema_unbounded",
    "json_object_with_schema",
    "json_object_schema_in_prompt",
    "json_object",
    "prompt",
]
AnswerLimit: TypeAlias = Literal["max_completion_tokens", "max_tokens", "none"]

# The forms that each setting allows, strongest first.
_FORMS: Final[dict[CompletionFormat, tuple[Form, ...]]] = {
    "auto": (
        "json_schema",
        "json_schema_unbounded",
        "json_object_with_schema",
        "json_object_schema_in_prompt",
        "prompt",
    ),
    "json_schema": ("json_schema", "json_schema_unbounded"),
    "json_object_with_schema": ("json_object_with_schema", "json_object_schema_in_prompt"),
    "json_object": ("json_object",),
    "prompt": ("prompt",),
}
_LIMITS: Final[tuple[AnswerLimit, ...]] = get_args(AnswerLimit)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One endpoint and model take this form of request.

    Attributes:
        form: how the answer's form is asked for.
        answer_limit: the parameter that bounds the answer.
        takes_system: whether our instructions stand in a message of their own.
        is_learned: whether the form was chosen by `auto`, and not by the operator.
    """

    form: Form
    answer_limit: AnswerLimit = "max_completion_tokens"
    takes_system: bool = True
    is_learned: bool = True

    def request(self, *, max_tokens: int) -> dict[str, Any]:
        """Return the fields of the request that this dialect asks for, beside model and messages."""
        fields: dict[str, Any] = {}
        if self.answer_limit != "none":
            fields[self.answer_limit] = max_tokens
        match self.form:
            case "json_schema" | "json_schema_unbounded":
                schema = SCHEMA if self.form == "json_schema" else UNBOUNDED_SCHEMA
                named = {"name": "activities", "strict": True, "schema": schema}
                fields["response_format"] = {"type": "json_schema", "json_schema": named}
            case "json_object_with_schema":
                fields["response_format"] = {"type": "json_object", "schema": SCHEMA}
            case "json_object_schema_in_prompt" | "json_object":
                fields["response_format"] = {"type": "json_object"}
            case "prompt":
                pass
        return fields


def forms_of(setting: CompletionFormat) -> tuple[Form, ...]:
    """Return the forms that a setting allows."""
    return _FORMS[setting]


def strongest(setting: CompletionFormat) -> Dialect:
    """Return what is tried first."""
    return Dialect(_FORMS[setting][0], is_learned=setting == "auto")


def without(dialect: Dialect, refused: frozenset[str], setting: CompletionFormat) -> Dialect | None:
    """Return the form without the named parts, or None if no part can go."""
    left = dialect
    if dialect.answer_limit in refused:
        left = replace(left, answer_limit=_LIMITS[_LIMITS.index(dialect.answer_limit) + 1])
    if "system" in refused:
        left = replace(left, takes_system=False)
    if "response_format" in refused:
        forms = _FORMS[setting]
        rest = forms[forms.index(dialect.form) + 1 :]
        if dialect.form == "json_schema" and "bounds" not in refused:
            rest = tuple(form for form in rest if form != "json_schema_unbounded")
        left = replace(left, form=rest[0]) if rest else left
    return left if left != dialect else None


def weaker(dialect: Dialect, setting: CompletionFormat) -> Dialect | None:
    """Return the next form after a refusal that names nothing. The parameter that most take goes first, then forms."""
    if dialect.answer_limit == "max_completion_tokens":
        return replace(dialect, answer_limit="max_tokens")
    forms = _FORMS[setting]
    rest = forms[forms.index(dialect.form) + 1 :]
    return replace(dialect, form=rest[0]) if rest else None
