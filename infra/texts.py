"""Text that Postgres can keep: it takes neither NUL nor half a surrogate pair."""

from typing import Any, Final

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


def _checked(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character NUL, which Postgres cannot keep; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a surrogate pair, which is no character; remove it") from error
    return text


class _Storable:
    """The check, and what a JSON Schema can say of it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return AfterValidator(_checked).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": r"^[^\u0000]*$"}


# For text that somebody sends, as the last part of its annotation: `Annotated[str, StringConstraints(…), STORABLE]`.
STORABLE: Final = _Storable()


def storable(text: str, longest: int) -> str:
    """Return text that a `text` or `json` column takes, cut to a length. What is no text is replaced."""
    return text[:longest].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
