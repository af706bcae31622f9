"""This module brings the addresses in settings into one form.

It is compared with what comes, and people write a last slash, capitals, a port that everybody knows, or the whole
address of a call.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

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
