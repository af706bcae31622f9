"""This module tracks what agents have started and not acknowledged."""

from __future__ import annotations

from typing import Any

from faust.types import TP, Message

__all__ = ["UnderWay"]


class UnderWay(dict[Message, Any]):
    """The messages under way, and the place of the agent that took each.

    To Faust it is the set of unacknowledged messages.
    """

    def add(self, message: Message) -> None:
        """Faust's own iterators do not say whose they are."""
        self[message] = None

    def discard(self, message: Message) -> None:
        """The message is acknowledged."""
        self.pop(message, None)

    def deliveries(self) -> set[tuple[TP, int]]:
        """The partition and the delivery tag of each."""
        return {(message.tp, message.offset) for message in self}

    def drop(self, place: Any) -> list[Message]:
        """Forget what was taken in a place; returns it."""
        dropped = [message for message, owner in self.items() if owner == place]
        for message in dropped:
            del self[message]
        return dropped
