"""A file lists the LLM endpoints, and rules say whose jobs may go to which."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

import orjson
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from consumers.generation.dialect import Form, forms_of
from infra.errors import InvalidSetting
from infra.settings import CompletionFormat, Settings
from infra.variables import Key

VARIABLE: Final = "TEAMFIT_LLM_ENDPOINTS"
_LARGEST: Final = 1_000_000
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Region = Annotated[str, Field(min_length=1, max_length=63)]
_PerMinute = Annotated[int, Field(ge=1, le=10**12)]
_Price = Annotated[int, Field(ge=0, le=10**12)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EndpointSpec(_Part):
    """One endpoint, as the file has it.

    Prices are micro-units of the currency for a million tokens. With a weight of 0 it
    is asked only while the others are away or have no room.
    """

    name: _Name
    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    key: Key | None = None
    key_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    model: str = Field(min_length=1, max_length=200)
    form: CompletionFormat = "auto"
    requests_per_minute: _PerMinute | None = None
    tokens_per_minute: _PerMinute | None = None
    input_price: _Price | None = None
    output_price: _Price | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    weight: float = Field(default=1.0, ge=0, le=1_000)
    context_tokens: int | None = Field(default=None, ge=256, le=10**9)
    region: _Region | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.key is not None and self.key_variable is not None:
            raise ValueError("it has `key` and `key_variable`; keep one of the two")
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("it has one of `input_price` and `output_price`; give both, or none")
        if self.input_price is not None and self.currency is None:
            raise ValueError("it has prices and no `currency`; add one, such as USD")
        return self


class Rule(_Part):
    """A rule says where some jobs may go.

    Without `organizations` it is for those that no other rule names.
    """

    organizations: frozenset[str] | None = None
    regions: frozenset[_Region] | None = None
    forms: frozenset[Form] | None = None
    dearest_input_price: _Price | None = None
    dearest_output_price: _Price | None = None

    def allows(self, spec: EndpointSpec, forms: Sequence[Form]) -> bool:
        """Return whether an endpoint that is asked in one of these forms may be taken. What is unknown may not."""
        return (
            (self.regions is None or spec.region in self.regions)
            and (self.forms is None or bool(self.forms.intersection(forms)))
            and _within(spec.input_price, self.dearest_input_price)
            and _within(spec.output_price, self.dearest_output_price)
        )


class Endpoints(_Part):
    """The whole file."""

    endpoint: tuple[EndpointSpec, ...] = Field(min_length=1, max_length=100)
    rule: tuple[Rule, ...] = ()

    def rule_of(self, organization_id: str) -> Rule:
        """Return the rule for an organization's jobs."""
        named = (one for one in self.rule if one.organizations and organization_id in one.organizations)
        general = (one for one in self.rule if one.organizations is None)
        return next(named, None) or next(general, None) or Rule()


def endpoints_of(settings: Settings) -> Endpoints | None:
    """Return what the file says, or None where none is named.

    Then there is the one endpoint of `OPENAI_*`.

    Raises:
        InvalidSetting: it cannot be read or used. The message names the file, the key and the fix.
    """
    if settings.llm_endpoints is None:
        return None
    path = Path(settings.llm_endpoints)
    document = _read(path)
    try:
        found = Endpoints.model_validate(document)
    except ValidationError as error:
        raise InvalidSetting(VARIABLE, f"names {path}, in which {_explained(error, document)}") from None
    _check(path, found)
    return found.model_copy(update={"endpoint": tuple(_with_key(path, spec) for spec in found.endpoint)})


def settings_of(settings: Settings, spec: EndpointSpec) -> Settings:
    """Return the settings as they would be if this endpoint were the only one."""
    return settings.model_copy(
        update={
            "openai_base_url": spec.base_url,
            "openai_api_key": spec.key,
            "model": spec.model,
            "completion_format": spec.form,
            "llm_requests_per_minute": spec.requests_per_minute,
            "llm_tokens_per_minute": spec.tokens_per_minute,
        }
    )


def _within(price: int | None, dearest: int | None) -> bool:
    return dearest is None or (price is not None and price <= dearest)


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        problem = f"names {path}, which cannot be read: {error.strerror}; mend the path, or unset it"
        raise InvalidSetting(VARIABLE, problem) from None
    if len(text) > _LARGEST:
        raise InvalidSetting(VARIABLE, f"names {path}, which is larger than 1 MB; leave out what is no endpoint")
    try:
        return orjson.loads(text) if text.lstrip().startswith(b"{") else tomllib.loads(text.decode())
    except ValueError as error:
        raise InvalidSetting(VARIABLE, f"names {path}, which is neither TOML nor JSON: {error}; mend it") from None


def _explained(error: ValidationError, document: object) -> str:
    """Say what is wrong with the first wrong key. Values are not repeated: one may be a key of an account."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = [str(part) for part in first["loc"]]
    if place[1:]:
        place[:2] = [_entry(document, *first["loc"][:2])]
    key = ".".join(place) or "the document"
    fix = {
        "missing": "is missing; add it",
        "extra_forbidden": "is unknown; leave it out, or mend its name (docs/llm.md has them all)",
    }.get(first["type"])
    cause = first["msg"].removeprefix("Value error, ")
    return f"{key} {fix}" if fix else f"{key} cannot be used: {cause[0].lower()}{cause[1:]}; mend it"


def _entry(document: object, table: str | int, place: str | int) -> str:
    try:
        name: Any = document[table][place].get("name")  # type: ignore[index]
    except (TypeError, KeyError, IndexError, AttributeError):
        name = None
    number = place + 1 if isinstance(place, int) else place
    return f"{table} {number}" + (f" ({name:.60})" if isinstance(name, str) else "")


def _check(path: Path, found: Endpoints) -> None:
    names = [spec.name for spec in found.endpoint]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidSetting(VARIABLE, f"names {path}, in which two endpoints have the `name` {twice}; rename one")
    seen: set[str | None] = set()
    for number, rule in enumerate(found.rule, 1):
        for whose in rule.organizations or {None}:
            if whose in seen:
                who = "every other organization" if whose is None else whose
                problem = f"names {path}, in which two rules are for {who}; leave one out"
                raise InvalidSetting(VARIABLE, problem)
            seen.add(whose)
        if not any(rule.allows(spec, forms_of(spec.form)) for spec in found.endpoint):
            problem = f"names {path}, in which rule {number} allows none of the endpoints; allow one, or add one"
            raise InvalidSetting(VARIABLE, problem)


def _with_key(path: Path, spec: EndpointSpec) -> EndpointSpec:
    name = spec.key_variable
    if name is None:
        return spec
    key = _variable(name)
    if not key:
        problem = f"names {path}, in which {spec.name}'s `key_variable` is {name}, which is not set; set it"
        raise InvalidSetting(VARIABLE, problem)
    if not all("!" <= character <= "~" for character in key):
        problem = f"names {path}, in which {spec.name}'s `key_variable` is {name}, which holds no key; copy it again"
        raise InvalidSetting(VARIABLE, problem)
    return spec.model_copy(update={"key": SecretStr(key)})


def _variable(name: str) -> str:
    in_file: Mapping[str, str | None] = dotenv_values(".env", encoding="utf-8-sig")
    return (os.environ.get(name) or in_file.get(name) or "").strip()
