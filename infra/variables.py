"""Reads settings from environment variables as people and platforms write them.

Values are stripped, of quotation marks around them too, which Docker and Kubernetes hand on: a key that comes from a
file has a line break at its end. A blank variable is one that is not set.
A wrong value fails whoever asks for that setting, in one line, and no other process of the same environment. Kubernetes
sets variables for each Service that may have the names of ours (`TEAMFIT_WORKER_PORT=tcp://10.96.0.12:9100`); those are
passed over.

Addresses are brought into one form, which is compared with what comes: people write a last slash, capitals, a port that
everybody knows, or the whole address of a call.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias, get_args, get_origin
from urllib.parse import urlsplit

import structlog
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BeforeValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.advice import advice_on
from infra.errors import InvalidSetting

log = structlog.get_logger(__name__)

_OF_A_CALL: Final = re.compile(r"(?<![:/])/+((chat/)?completions|responses|embeddings)?/*(?=\?|$)")

_USUAL_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_NO_ORIGIN: Final = "is no origin that a browser sends, such as `https://app.example.com`"


def _base(text: object) -> object:
    return _OF_A_CALL.sub("", text, count=1) if isinstance(text, str) else text


def _prefix(text: object) -> object:
    return text.rstrip("/") if isinstance(text, str) else text


def _origins(text: object) -> object:
    if not isinstance(text, str):
        return text
    return ",".join(_origin(one.strip()) for one in text.split(",") if one.strip())


def _origin(text: str) -> str:
    """Return an origin as browsers send it. Raises ValueError if they send none such."""
    bare = text.removesuffix("/").lower()
    usual = _USUAL_PORTS.get(bare.partition("://")[0])
    if usual is None:
        return bare
    try:
        parts = urlsplit(bare)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError as error:
        raise ValueError(f"{text!r:.60} {_NO_ORIGIN}") from error
    if not host or port == 0 or set(bare) & set("@?#\\%") or parts.path:
        raise ValueError(f"{text!r:.60} {_NO_ORIGIN}")
    return f"{parts.scheme}://{host}" if port in {None, usual} else f"{parts.scheme}://{host}:{port}"


def _host(name: str) -> str:
    """Return a host as browsers write it. Raises ValueError if it can be none."""
    if ":" in name:
        return f"[{IPv6Address(name)}]"
    if name.rpartition(".")[2].isdigit():
        return str(IPv4Address(name))
    return name.encode("idna").decode()


def _bare_list(text: object) -> object:
    return text.strip(" ,") if isinstance(text, str) else text


def _networks(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    read = [part if part == "*" else _network(part) for part in parts]
    return text if read == parts else ",".join(read)


def _network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{text!r:.60} is no address or network, such as 10.0.0.0/8") from error
    return str(network) if "/" in text else text


BaseUrl: TypeAlias = Annotated[str, BeforeValidator(_base)]
Prefix: TypeAlias = Annotated[str, BeforeValidator(_prefix)]
Origins: TypeAlias = Annotated[str, BeforeValidator(_origins)]
Networks: TypeAlias = Annotated[str, AfterValidator(_networks), BeforeValidator(_bare_list)]


PREFIX: Final = "TEAMFIT_"
_FILE: Final = ".env"
_ENCODING: Final = "utf-8-sig"  # UTF-8, whether or not an editor has put a byte order mark first
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
# What other programs call the same choice.
_SYNONYMS = {"warn": "warning"}
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
# The names that Kubernetes makes of a Service: of its address, and of each of its ports.
_OF_A_SERVICE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Stands in a field whose value cannot be used, until somebody asks for it."""

    variable: str
    problem: str


def _printable(secret: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in secret.get_secret_value()):
        raise ValueError("it holds a blank, a line break or a letter that no key has; copy it again, by itself")
    return secret


Key = Annotated[SecretStr, AfterValidator(_printable)]
"""A secret that goes into an HTTP header, where anything else would fail each call and stand in its traceback."""


class Variables(BaseSettings):
    """Settings come from the environment and from a `.env` file. The file is in the working directory.

    Asking for one whose value cannot be used raises InvalidSetting, which names the variable, the problem and the fix.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_FILE,
        env_file_encoding=_ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        allow_inf_nan=False,
        frozen=True,
        populate_by_name=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, given: Mapping[str, object]) -> dict[str, object]:
        """Strip every value, and leave out the blank ones and those that are Kubernetes'."""
        # Our own keys may hold anything, and others sign with the same bytes.
        whole = {name for name, field in cls.model_fields.items() if field.annotation == SecretStr | None}
        read = {
            name: (_stripped if name in whole else _unquoted)(value) if isinstance(value, str) else value
            for name, value in given.items()
        }
        links = {name for name in cls.model_fields if cls._is_number(name)}
        return {
            name: value
            for name, value in read.items()
            if value != "" and not (isinstance(value, str) and name in links and _SERVICE_LINK.fullmatch(value))
        }

    @field_validator("*", mode="wrap")
    @classmethod
    def _kept_for_who_asks(cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        name = str(info.field_name)
        field = cls.model_fields[name]
        try:
            return handler(_as_listed(value, field.annotation))
        except ValidationError as error:
            secret = SecretStr.__name__ in repr(field.annotation)
            shown = "" if secret or not isinstance(value, str) else f"is {value!r:.60}, which "
            first = error.errors(include_url=False, include_input=False)[0]
            why = " ".join(advice_on(first).split())
            if first["type"] != "value_error":
                why = f"it {why}"
            if first["type"] == "string_pattern_mismatch":
                # Its description has an example; a pattern is for programs.
                why = f"it is not of the form: {str(field.description).rstrip('.')}"
            if name.endswith("_s") and first["type"] == "float_parsing":
                why = "it is no number of seconds, such as 15"
            default = "" if field.default is None else f" for {field.default}"
            fix = "" if secret else f"; mend it, or unset it{default}"
            return _Wrong(cls.variable(name), f"{shown}cannot be used: {why[0].lower()}{why[1:]}{fix}")

    if not TYPE_CHECKING:  # a type checker would take every name for a field

        def __getattribute__(self, name: str) -> object:
            """Return a setting. Raises InvalidSetting when its value cannot be used."""
            value = super().__getattribute__(name)
            if isinstance(value, _Wrong):
                raise InvalidSetting(value.variable, value.problem)
            return value

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the environment variable of a field. A variable's own name is returned as it is."""
        if name not in cls.model_fields:
            return name
        alias = cls.model_fields[name].validation_alias
        return alias if isinstance(alias, str) else f"{PREFIX}{name}".upper()

    def require(self, *names: str) -> None:
        """Read settings that are used later, so that a wrong one ends the start.

        Raises:
            InvalidSetting: the value of one cannot be used.
        """
        for name in names:
            getattr(self, name)

    @classmethod
    def _is_number(cls, name: str) -> bool:
        annotation = cls.model_fields[name].annotation
        return bool({int, float} & {annotation, *get_args(annotation)})

    @classmethod
    def read(cls) -> Self:
        """Read the environment; say in the log which variables are passed over or probably misspelt.

        Raises:
            InvalidSetting: the `.env` file cannot be read.
        """
        try:
            found = cls()
            in_file = dotenv_values(_FILE, encoding=_ENCODING)
            cls._refuse_unread()
        except (OSError, UnicodeError) as error:
            raise InvalidSetting(_FILE, f"in the working directory cannot be read as UTF-8 text: {error}") from error
        cls._warn({**in_file, **os.environ})
        return found

    @classmethod
    def _refuse_unread(cls) -> None:
        """Refuse a line of the file that names one of our variables and sets none; its default would take its place."""
        if not Path(_FILE).is_file():
            return
        with Path(_FILE).open(encoding=_ENCODING) as lines:
            for line in parse_stream(lines):
                is_read = not line.error and (line.key is None or line.key.isidentifier())
                words = re.findall(r"\w+", "" if is_read else line.original.string.upper())
                for name in map(cls.variable, cls.model_fields):
                    if name in words:
                        what = f"that is not NAME=value, so that {name} would not be read; write {name}=…"
                        raise InvalidSetting(_FILE, f"in the working directory has a line {line.original.line} {what}")

    @classmethod
    def _warn(cls, variables: Mapping[str, str | None]) -> None:
        fields = {cls.variable(name): name for name in cls.model_fields}
        for name, value in variables.items():
            upper = name.upper()
            link = _SERVICE_LINK.fullmatch(_stripped(value or ""))
            if upper in fields:
                if link and cls._is_number(fields[upper]):
                    log.warning("setting.ignored", variable=name, why="Kubernetes set it for a Service of that name")
            elif upper.startswith(PREFIX) and not link and not _OF_A_SERVICE.fullmatch(upper):
                log.warning("setting.unknown", variable=name, meant=_meant(upper, fields))


def _stripped(value: str) -> str:
    return value.strip().strip(_INVISIBLE).strip()


def _unquoted(value: str) -> str:
    stripped = _stripped(value)
    found = _QUOTED.fullmatch(stripped)
    return _stripped(found[1] if found[1] is not None else found[2]) if found else stripped


def _as_listed(value: object, annotation: object) -> object:
    """Return one of the values that a setting may have, which may be written in capitals or with hyphens."""
    if not isinstance(value, str) or get_origin(annotation) is not Literal:
        return value
    word = value.lower().replace("-", "_")
    word = _SYNONYMS.get(word, word)
    return word if word in get_args(annotation) else value


def _meant(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
