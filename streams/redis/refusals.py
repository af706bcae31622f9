"""The app fails at start if it needs what Redis Streams cannot carry. The error says what to use instead."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from faust.types import AppT
from faust.types.enums import ProcessingGuarantee

from .errors import UnsupportedFeature

__all__ = ["refuse_threaded_producer", "refuse_topics", "refuse_unsupported"]


def refuse_threaded_producer(app: AppT) -> None:
    """Fail if the producer is to have a thread of its own.

    Raises:
        UnsupportedFeature: it is.
    """
    if app.conf.producer_threaded:
        raise UnsupportedFeature("producer_threaded exists for Kafka only: this producer is asynchronous already")


def refuse_unsupported(app: AppT) -> None:
    """Fail if the app asks for what only Kafka can do.

    Raises:
        UnsupportedFeature: it does; the message names the feature and what to use instead.
    """
    conf = app.conf
    tables = sorted(app.tables)
    if tables:
        raise UnsupportedFeature(
            f"tables ({', '.join(tables)}) need a changelog topic that is read from the start, which trimmed"
            " streams do not keep: store the state in a database, or use kafka://"
        )
    if str(conf.processing_guarantee) == str(ProcessingGuarantee.EXACTLY_ONCE):
        raise UnsupportedFeature(
            "processing_guarantee='exactly_once' needs Kafka's transactions: use the default, and make handlers"
            " idempotent"
        )
    if conf.stream_publish_on_commit:
        raise UnsupportedFeature(
            "stream_publish_on_commit needs offsets that are committed in order: send, await it, then acknowledge"
        )
    if conf.consumer_auto_offset_reset != "earliest":
        raise UnsupportedFeature(
            f"consumer_auto_offset_reset={conf.consumer_auto_offset_reset!r} would skip what was written before a"
            " group existed, and again after a flush: groups begin at the beginning here; leave it out"
        )


def refuse_topics(app: AppT, unread: AbstractSet[str]) -> None:
    """Fail if a declared topic of the app's agents cannot be a stream.

    Args:
        app: whose topics.
        unread: topics that stand for something else, such as being the leader.

    Raises:
        UnsupportedFeature: one is; the message names it.
    """
    for channel in app.topics:
        if channel.pattern or not unread >= set(channel.topics):
            _refuse_topic(channel)


def _refuse_topic(channel: Any) -> None:
    name = ", ".join(channel.topics)
    if channel.pattern:
        raise UnsupportedFeature(
            f"topic pattern {channel.pattern.pattern!r}: streams are read by name; name the topics"
        )
    if channel.compacting:
        raise UnsupportedFeature(
            f"topic {name}: compacting keeps the last event of each key for ever, but streams are trimmed:"
            " store the state in a database, or use kafka://"
        )
    if not channel.acks:
        raise UnsupportedFeature(
            f"topic {name}: with acks=False no entry would ever be acknowledged, and its worker would hold"
            " each one: leave it out"
        )
