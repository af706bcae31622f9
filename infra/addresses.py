"""This module brings the addresses in settings into one form.

It is compared with what comes, and people write a last slash, capitals, a port that everybody knows, or the whole
address of a call.
"""

import re
from ipaddress import ip_network
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator

_OF_A_CALL: Final = re.compile(r"(?<![:/])/+(chat/completions)?/*(?=\?|$)")


def _base(text: object) -> object:
    return _OF_A_CALL.sub("", text, count=1) if isinstance(text, str) else text


def _prefix(text: object) -> object:
    return text.rstrip("/") if isinstance(text, str) else text


def _origins(text: object) -> object:
    if not isinstance(text, str):
        return text
    return ",".join(_origin(one.strip()) for one in text.split(",") if one.strip())


def _origin(text: str) -> str:
    """Return an origin as browsers send it."""
    bare = text.removesuffix("/").lower()
    scheme, _, host = bare.partition("://")
    port = {"https": ":443", "http": ":80"}.get(scheme, "")
    return f"{scheme}://{host.removesuffix(port)}" if port else bare


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
