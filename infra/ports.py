"""A port is checked before its server starts, so one line says whose it is."""

import errno
import socket

from infra.errors import TeamfitError

_HERE = "127.0.0.1"


class PortTaken(TeamfitError):
    """Another program listens on the port, or its address cannot be used."""

    def __init__(self, port: int, setting: str, host: str = _HERE, error: Exception | None = None) -> None:
        """Name the port and the setting that changes it, and why it cannot be had although it is free."""
        self.port = port
        self.setting = setting
        if error is None or getattr(error, "errno", None) == errno.EADDRINUSE:
            what = f"port {port} on {host} is taken: end what listens there, or set {setting} to another port"
        else:
            what = f"port {port} on {host!r:.80} cannot be listened on ({error}): check {setting} and its host"
        super().__init__(what)


def require_free(port: int, setting: str, *, host: str = _HERE) -> None:
    """Raise PortTaken if the port is in use, or its address is not this machine's."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a port with only closing connections of a former server on it is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise PortTaken(port, setting, host, error) from error
