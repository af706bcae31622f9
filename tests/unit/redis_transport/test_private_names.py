"""The private names of Faust, mode and redis-py that the transport relies on: after an upgrade this says what broke.

The table is complete: another test reads the source, and fails for a name that is used and not listed.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.types import ConsumerMessage
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.lock import Lock
from redis.asyncio.sentinel import Sentinel

from streams.redis import connections, consumer, positions, producer, stream, transport

FOLDER = Path(transport.__file__).parent


@dataclass
class Installed:
    """One object of each kind, as the installed packages make it. No server is asked."""

    app: Any
    topic: Any
    stream: Any
    client: Any

    @property
    def lock(self) -> Any:
        return Lock(self.client, "leader", thread_local=False)

    @property
    def sentinels(self) -> Any:
        return Sentinel([("127.0.0.1", 1)]).master_for("main").connection_pool


@pytest.fixture
async def installed(tmp_path: Path) -> Installed:
    """An app that is not started, and a client that is not connected."""
    app = faust.App("names", broker="redis://127.0.0.1:1/0", datadir=tmp_path, web_enabled=False)
    topic: Any = app.topic("orders")
    return Installed(app, topic, topic.stream(), Redis(port=1))


# File of the transport, the object (as an expression of `Installed`), its name, and what the transport does with it.
READ = [
    ("channels.py", "app.topics", "_tp_index", "knows which channels read a partition"),
    ("channels.py", "topic.queue", "_getters", "counts the agents that wait for an event"),
    ("stream.py", "topic.queue", "_queue", "takes events that are there without a task for each"),
    ("stream.py", "stream", "_active_agens", "has its iterator closed when the stream stops"),
    ("stream.py", "stream", "_channel_stop_iteration", "ends the iteration as Faust does"),
    ("stream.py", "stream", "_on_message_in", "tells the sensors"),
    ("stream.py", "stream", "_on_message_out", "tells the sensors"),
    ("stream.py", "stream", "_on_stream_event_in", "tells the sensors"),
    ("stream.py", "stream", "_on_stream_event_out", "tells the sensors"),
    ("stream.py", "stream", "_processors", "runs what `stream.map` and the like have added"),
    ("stream.py", "stream", "_set_current_event", "has `current_event()` know the event"),
    ("stream.py", "stream", "_skipped_value", "knows an event that a filter has dropped"),
    ("layout.py", "app", "_default_options", "tells whether the app sets `topic_partitions`"),
]
# Without an underscore, and in nobody's documentation.
INNER = [
    ("channels.py", "topic.queue", "force_put_nowait", "hands events over"),
    ("channels.py", "topic", "is_iterator", "knows a topic that nobody iterates over"),
    ("channels.py", "app.flow_control", "acquire", "waits while Faust holds the flow"),
    ("channels.py", "app.producer.buffer", "wait_until_ebb", "waits while too much is to be sent"),
    ("stream.py", "app.flow_control", "is_active", "leaves alone what is queued while the flow is held"),
    ("stream.py", "stream", "join_strategy", "knows a join that waits for its other half"),
    ("stream.py", "stream", "concurrency_index", "tells the agents of a topic apart"),
    ("producer.py", "app", "maybe_start_producer", "answers at once, where Faust asks before each message"),
    ("consumer.py", "app.consumer", "randomly_assigned_topics", "knows the topic that stands for being the leader"),
    ("consumer.py", "app.topics", "acking_topics", "knows which topics are acknowledged"),
    ("server.py", "client.connection_pool", "connection_class", "improves connections"),
    ("server.py", "sentinels", "sentinel_manager", "closes the connections to the Sentinels"),
    ("server.py", "sentinels.sentinel_manager", "sentinels", "closes the connections to the Sentinels"),
    ("outbox.py", "client.connection_pool", "get_connection", "knows whether anything was sent"),
    ("outbox.py", "client.connection_pool", "release", "gives the connection back"),
    ("leader.py", "lock", "local", "knows whether it holds the lock"),
    ("leader.py", "lock.local", "token", "knows whether it holds the lock"),
    ("leader.py", "lock", "register_scripts", "keeps the lock from learning its scripts' digests from the server"),
    ("leader.py", "lock", "do_release", "runs the script itself"),
    ("leader.py", "lock", "do_reacquire", "runs the script itself"),
    ("leader.py", "lock", "LUA_RELEASE_SCRIPT", "is the script"),
    ("leader.py", "lock", "LUA_REACQUIRE_SCRIPT", "is the script"),
]
# Names that classes of ours give a meaning of their own; Faust or redis-py calls, reads or writes them.
OVERRIDDEN = {
    "Consumer": {
        "_acked": "collects acknowledgements where Faust's accelerated iterator writes them",
        "_acked_index": "keeps that iterator from remembering every offset",
        "_drain_messages": "is a fetch loop of its own",
        "_n_acked": "counts acknowledgements, for Faust to report",
        "_new_topicpartition": "names a partition",
        "_unacked_messages": "notes who works on what",
    },
    "PositionlessConsumer": {
        "_commit": "refuses to commit an offset",
        "_getmany": "refuses to be polled",
        "_seek": "seeks nothing",
        "_to_message": "refuses to make messages of what was never polled",
    },
    "Stream": {"_finalized": "keeps processors from being added once it iterates"},
    "_Improvements": {"_error_message": "says which setting to look at when a certificate is not trusted"},
}
CLASSES = [
    *(consumer.Consumer, consumer.Fetcher, positions.PositionlessConsumer),
    *(producer.Producer, stream.Stream, transport.Transport),
    *(connections._Improvements, connections._lenient(Connection)),
]


@pytest.mark.parametrize(("file", "of", "name", "why"), [*READ, *INNER], ids=lambda value: value)
async def test_what_the_transport_reads_is_there(installed: Installed, file: str, of: str, name: str, why: str) -> None:
    """An upgrade that renames one of these is noticed here, and not as an agent that gets no events."""
    found: Any = installed
    for step in of.split("."):
        found = getattr(found, step)
    assert hasattr(found, name), f"{type(found).__qualname__} has no {name} any more; with it {file} {why}"


@pytest.mark.parametrize("ours", CLASSES, ids=lambda ours: ours.__name__)
def test_what_the_transport_overrides_is_there(ours: type) -> None:
    """A name that the base has no longer is called by nobody; one that it newly has would be overridden by accident."""
    listed = OVERRIDDEN.get(ours.__name__, {})
    found = {name for name in _written(ours) if name.startswith("_") and _is_foreign(ours, name)}
    gone = {name: f"{ours.__name__} {listed[name]}" for name in listed.keys() - found}
    assert not gone, "the base has these no longer"
    assert not found - listed.keys(), "the base has these: choose other names, or list what for"


def test_the_table_lists_every_private_name() -> None:
    """Whoever relies on one more finds this table, and with it what an upgrade may break."""
    used = {(path.name, name) for path in FOLDER.glob("*.py") for name in _private(path)}
    assert used == {(file, name) for file, _, name, _ in READ} | {("connections.py", "_error_message")}


def test_the_fields_of_a_message_have_the_order_that_it_is_made_in() -> None:
    """`Channels.deliver` names none of them, as it runs for every event."""
    fields = list(inspect.signature(ConsumerMessage).parameters)
    assert fields == [
        *("topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum"),
        *("serialized_key_size", "serialized_value_size", "tp", "time_in", "time_out", "time_total", "generation_id"),
    ]


def _private(path: Path) -> Iterator[str]:
    """Private names that a module reads of something that it has not made itself."""
    tree = ast.parse(path.read_text())
    inherited = ast.parse((FOLDER / "positions.py").read_text()) if path.name == "consumer.py" else ast.Module([], [])
    own = {*_assigned(tree), *_assigned(inherited)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            of_itself = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not (of_itself and node.attr in own):
                yield node.attr


def _written(ours: type) -> set[str]:
    return set(_assigned(ast.parse(textwrap.dedent(inspect.getsource(ours)))))


def _assigned(tree: ast.Module) -> Iterator[str]:
    """Names that classes define, or set on themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield node.attr


def _is_foreign(ours: type, name: str) -> bool:
    foreign = [base for base in ours.__mro__[1:-1] if not base.__module__.startswith("streams.")]
    special = name.startswith("__")
    return not special and any(name in vars(base) or name in getattr(base, "__annotations__", {}) for base in foreign)
