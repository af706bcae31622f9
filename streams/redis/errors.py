"""The transport raises these errors between Faust and the server.

TransportError
├── InvalidSettings     the broker URL has an unknown or malformed parameter; raised at start
├── UnsupportedFeature  a Faust feature that Redis Streams cannot carry; raised at start
├── NotAllSent          some records of `send_many` were not written; `answers` says which
├── BrokerUnavailable   the server is away or not ready; `maybe_written` says whether a write may have happened
├── WritesRefused       the server answers and takes no entries now; `code` says why
└── EntryRefused        the server refused this entry (too large, no permission, out of memory): not written
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faust.types import RecordMetadata

__all__ = [
    "BrokerUnavailable",
    "EntryRefused",
    "InvalidSettings",
    "NotAllSent",
    "TransportError",
    "UnsupportedFeature",
    "WritesRefused",
]


class TransportError(Exception):
    """Root of every error that this transport raises itself."""


class InvalidSettings(TransportError, ValueError):
    """The broker URL has a parameter that is unknown or malformed; the message names it."""


class UnsupportedFeature(TransportError):
    """The app uses a Faust feature that needs Kafka. The message says what to use instead."""


class BrokerUnavailable(TransportError, ConnectionError):
    """The server is away, still loading, or turned into a replica.

    Attributes:
        maybe_written: False when nothing can have been recorded (the connection was refused, or the server answered
            that it does not take writes now): the caller may say so to its own caller. True when the entry was sent
            and the answer is missing: it may be in the stream, and repeating the send may write it twice.
    """

    def __init__(self, message: str, *, maybe_written: bool) -> None:
        super().__init__(message)
        self.maybe_written = maybe_written


class NotAllSent(TransportError):
    """Some records were not written, or it is unknown; those without an exception were.

    Attributes:
        answers: for each record, in order, where it was written or why not.
    """

    def __init__(self, message: str, answers: list[RecordMetadata | BaseException]) -> None:
        super().__init__(message)
        self.answers = answers


class WritesRefused(TransportError):
    """The server answers but takes no entries now. It is full, read-only, or short of replicas or disk.

    Attributes:
        code: the server's word for it, such as `OOM` or `NOREPLICAS`, or redis-py's.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"the server takes no writes: {code}")
        self.code = code


class EntryRefused(TransportError):
    """The server answered that it will not take this entry. It was not written; repeating it will not help."""
