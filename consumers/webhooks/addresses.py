"""Addresses that a webhook may go to: those of the open internet, and no other.

A customer names the URL, and the request goes out from inside our network. So a name that leads to an inner address
must lead nowhere. It is the address of each connection that is judged, not the name: what a name resolves to may be
another address a moment later.
"""

import ipaddress
import re
import socket
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from yarl import URL

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
AddrInfo: TypeAlias = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]

LONGEST_URL: Final = 2_048

# Python's own `is_global` is another in each of its versions, so the registries' special blocks stand here.
# Sources: https://www.iana.org/assignments/iana-ipv4-special-registry, and iana-ipv6-special-registry
_INNER_IPV4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # public by its number, and answered by Azure's own host
        ),
    )
)
_OUTER_IPV6: Final = ipaddress.IPv6Network("2000::/3")
# Tunnels (Teredo, 6to4), documentation, and what the IETF keeps for protocols.
_INNER_IPV6: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# These stand for the IPv4 address in their last 32 bits: as the system writes it, and as a NAT64 gateway does.
_MAPPED: Final = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))

_NUMBER: Final = re.compile(r"\d+|0[xX][\da-fA-F]*")
_IPV4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}")
_LABEL: Final = re.compile(r"(?!-)[\w-]{1,63}(?<!-)", re.ASCII)
_LONGEST_HOST: Final = 254  # with a dot at its end
# Source: https://www.iana.org/assignments/special-use-domain-names; and what networks call themselves all the same.
_INNER_NAMES: Final = (".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home.arpa")


class WrongUrl(ValueError):
    """No webhook can go to this URL. The message says why, and the fix."""


class NotPublic(OSError):
    """A connection would have left the open internet."""


def objection(text: str) -> str | None:
    """Return why no webhook may go to an address, or None."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return f"{text} is no address"
    return None if _is_outer(address) else f"{text} is not an address of the open internet"


def _is_outer(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _INNER_IPV4)
    if any(address in network for network in _MAPPED):
        return _is_outer(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _OUTER_IPV6 and not any(address in network for network in _INNER_IPV6)


def public_socket(info: AddrInfo) -> socket.socket:
    """Make the socket of a connection. Raises NotPublic if it would go inside.

    aiohttp asks for it with the very address that it connects to next, whether a name or a number led there.
    """
    family, kind, protocol, _, target = info
    if (why := objection(str(target[0]))) is not None:
        raise NotPublic(f"{why}, so nothing is sent there")
    return any_socket((family, kind, protocol, _, target))


def any_socket(info: AddrInfo) -> socket.socket:
    """Make the socket of a connection to whatever address."""
    family, kind, protocol, *_ = info
    return socket.socket(family, kind, protocol)


def checked_url(text: str, *, allow_http: bool, allow_private: bool) -> str:
    """Return a URL that webhooks can be sent to. Where its name leads is judged at each try.

    Raises:
        WrongUrl: they cannot.
    """
    if len(text) > LONGEST_URL or not text.isprintable() or not text.isascii() or " " in text:
        fix = "escape the others, and write the host's as `xn--…`"
        raise WrongUrl(f"give at most {LONGEST_URL} characters of ASCII without blanks; {fix}")
    try:
        parts, url = urlsplit(text), URL(text)
        host, port = url.raw_host, url.port
        _ = url.host
    except ValueError as error:
        raise WrongUrl(f"cannot be read ({error}); write https://example.com/hooks") from error
    if url.scheme != "https" and not (allow_http and url.scheme == "http"):
        raise WrongUrl("begin it with https://; what is sent by http can be read and changed on its way")
    if not host or port == 0:
        raise WrongUrl("it has no host, or a port that is none; write https://example.com/hooks")
    if parts.username is not None or parts.password is not None or "#" in text:
        raise WrongUrl("leave out user, password and fragment; the signature says who sends")
    if (why := _no_host(host)) is not None or (not allow_private and (why := _inner_objection(host)) is not None):
        raise WrongUrl(f"{why}; give one that can be reached from outside")
    return text


def _no_host(host: str) -> str | None:
    """Return why a host can be none: other programs read one number in many ways, and no name has such labels."""
    if ":" in host:
        return None
    last = host.removesuffix(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last) and not _IPV4.fullmatch(host):
        return f"{host} is no address as it is written: four numbers below 256, without zeros before them"
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        return f"{host:.80} is no name of a host"
    return None


def _inner_objection(host: str) -> str | None:
    """Return why a host is of no use outside, or None. Where a public name leads is not known here."""
    if ":" in host or _IPV4.fullmatch(host):
        return objection(host)
    name = host.lower().removesuffix(".")
    if "." not in name or name.endswith(_INNER_NAMES):
        return f"{host} is a name of this machine or of an inner network"
    return None
