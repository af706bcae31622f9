"""An app declares facts about its topics, beside those in the broker URL."""

from __future__ import annotations

import os
from typing import Any

from faust.types import AppT
from faust.types.settings import Settings
from mode.utils.times import want_seconds

from .settings import RedisSettings

__all__ = ["Topics"]

_FAUST_PARTITIONS = 8  # the default of Faust's `topic_partitions`, made for Kafka


class Topics:
    """The topics that an app has declared. Asked each time, since an app may declare more while it runs."""

    def __init__(self, app: AppT, settings: RedisSettings) -> None:
        self._app = app
        self._settings = settings

    def channels(self, topic: str) -> list[Any]:
        """Each declaration of a topic; an app may have several."""
        return [channel for channel in self._app.topics if topic in channel.topics]

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions that a topic itself declares."""
        return next((int(channel.partitions) for channel in self.channels(topic) if channel.partitions), None)

    def default_partitions(self) -> int:
        """Return the number of partitions of a topic that declares none.

        Faust's own default of 8 is made for Kafka: unless the app sets it, a topic has one.
        """
        _, options = self._app._default_options
        explicit = options.get("topic_partitions") is not None or "TOPIC_PARTITIONS" in os.environ
        conf: Settings = self._app.conf
        return int(conf.topic_partitions) if explicit or conf.topic_partitions != _FAUST_PARTITIONS else 1

    def retention_s(self, topic: str) -> float:
        """Return for how many seconds a topic keeps what every group has acknowledged."""
        for channel in self.channels(topic):
            if channel.retention is not None:
                return float(want_seconds(channel.retention))
        return self._settings.retention.total_seconds()

    def groups(self, topic: str) -> set[str]:
        """Return the groups that must see every entry of a topic. They may not have started yet."""
        groups = set(self._settings.groups.get(topic, ()))
        for channel in self.channels(topic):
            declared = (channel.config or {}).get("groups", ())
            groups.update(declared.split() if isinstance(declared, str) else declared)
        return groups
