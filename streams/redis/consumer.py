"""The consumer implements Faust's reading side with streams, groups and leases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from time import monotonic
from typing import Any, cast
from uuid import uuid4

from faust.transport import base
from faust.types import TP, Message
from faust.types.transports import TPorTopicSet, TransportT

from .acknowledge import Acknowledger, UnderWay
from .channels import Channels
from .delivery_tags import DeliveryTags, NeverAcknowledged
from .fetch import Worker
from .groups import Trimmer
from .health import Health
from .layout import Layout, Topics
from .leader import Leader
from .lease import HandBacks, Lease, hand_back
from .partition import Partition
from .positions import PositionlessConsumer
from .readers import Readers
from .refusals import refuse_topics, refuse_unsupported
from .server import Client, Server, close, run_script
from .trial import Trial

__all__ = ["Consumer", "Fetcher"]


class Fetcher(base.Fetcher):
    """Faust's fetcher, which ends the reads that wait on the server before it is cancelled."""

    async def on_stop(self) -> None:
        """Stop reading: nothing more is fetched once this returns."""
        await cast("Consumer", self.app.consumer).stop_reading()
        await super().on_stop()


class Consumer(PositionlessConsumer):
    """Reads topics as a member of the app's consumer group."""

    consumer_stopped_errors = ()

    def __init__(
        self,
        transport: TransportT,
        *args: Any,
        server: Server,
        layout: Layout,
        topics: Topics,
        health: Health,
        **kwargs: Any,
    ) -> None:
        super().__init__(transport, *args, **kwargs)
        self.settings = server.settings
        self.health = health
        self.group: str = self.app.conf.id
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.client: Client = server.open()
        self.reading = False
        self._layout = layout
        self._topics = topics
        self._assigned: set[TP] = set()
        self._topics_changed = asyncio.Event()
        self._leader_topics: set[str] = set()
        # Faust's accelerated iterator writes into these directly; see `DeliveryTags.append`.
        self._tags: dict[TP, DeliveryTags] = {}
        self._acked = cast("Any", self._tags)
        self._acked_index = cast("Any", _Always(NeverAcknowledged()))
        self.under_way = UnderWay()
        self._unacked_messages = cast("Any", self.under_way)
        self.acking_topics: set[str] = self.app.topics.acking_topics
        self._make_loops(server)
        self._readers = Readers(self._worker(), server, layout, self.client)

    def _make_loops(self, server: Server) -> None:
        settings, client, health = self.settings, self.client, self.health
        lease_s = settings.lease.total_seconds()
        self.acknowledger = Acknowledger(client, self._all_partitions, settings.ack_linger.total_seconds(), health)
        self.lease = Lease(client, self._all_partitions, lease_s, health)
        trim_s = settings.trim_interval.total_seconds()
        self.trimmer = Trimmer(client, self._all_partitions, self._topics.retention_s, trim_s, health, self._groups)
        own = f"{settings.prefix}{self.group}"
        waiting = server.open(block=settings.lease)
        self.hand_backs = HandBacks(client, waiting, f"{own}:handed-back", settings.lease, health)
        ttl_s = settings.leader_ttl.total_seconds()
        self.leader = Leader(client, f"{own}:leader", ttl_s, health, self._needs_leader)
        self.trial = Trial(lease_s, self.leader.ask, self._nothing_under_way)

    def _worker(self) -> Worker:
        return Worker(
            settings=self.settings,
            health=self.health,
            channels=Channels(self.app),
            trial=self.trial,
            most_queued=min(self.settings.prefetch, self.app.conf.stream_buffer_maxsize),
            groups=self._groups,
            linger_s=self._topics.linger_s,
            renewals_fail=lambda: self.lease.is_failing,
            hears_of_hand_backs=lambda: self.hand_backs.heard,
        )

    # Starting

    async def on_start(self) -> None:
        """Start the background loops."""
        refuse_unsupported(self.app)
        for loop in (self.lease.run(), self.acknowledger.run(), self.trimmer.run()):
            self.add_future(loop)
        if not self.app.client_only:  # a client would lead, and has nothing to do as the leader
            self.add_future(self.leader.run())
            self.add_future(self.hand_backs.run(self._look_now))

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Read these topics from now on.

        Faust waits for this to return before it finishes an assignment, so the assignment itself happens in a
        background task: within this call it would wait for itself.
        """
        wanted = set(topics)
        self._layout.forget()
        self._leader_topics = wanted & self.randomly_assigned_topics
        self.leader.wake()
        refuse_topics(self.app, self._leader_topics)
        tps = {
            TP(topic, partition)
            for topic in wanted - self._leader_topics
            for partition in range(self._layout.partitions(topic))
        }
        self.add_future(self._assign(tps))

    async def _assign(self, tps: set[TP]) -> None:
        for tp in tps - set(self._partitions):
            self._partitions[tp] = self._new_partition(tp)
        if not self.app.client_only:
            await self._rebalance(tps)
        self._assigned = tps
        self._topics_changed.set()

    async def _rebalance(self, tps: set[TP]) -> None:
        if self._assigned:
            # Topics were added while the worker runs. Faust empties every agent's queue when it resumes, so what has
            # not been started must be fetched again.
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self._hand_back(self.under_way.deliveries())
        self.app.on_rebalance_start()
        self._assigned = tps
        await self.on_partitions_assigned(tps, self.app.consumer_generation_id)

    def _needs_leader(self) -> bool:
        """Whether the group needs one: for timers that one worker runs, or to try an entry alone."""
        return bool(self._leader_topics) or self.trial.is_open

    async def _look_now(self) -> None:
        self.leader.wake()
        await self._readers.look_now()

    def _nothing_under_way(self) -> bool:
        return not self.under_way and not any(len(partition.tags) for partition in self._all_partitions())

    def _new_partition(self, tp: TP) -> Partition:
        tags = DeliveryTags(self.acknowledger.notify)
        self._tags[tp] = tags
        stream = self._layout.stream(tp.topic, tp.partition)
        return Partition(tp, stream, self.group, self.name, tags)

    def _groups(self, topic: str) -> set[str]:
        """The groups that must see every entry of a topic: this app's, and those that the topic declares."""
        return {self.group, *self._topics.groups(topic)}

    # Reading

    async def _drain_messages(self, fetcher: Any) -> None:
        self.reading = True
        while self.reading and not fetcher.should_stop:
            self._topics_changed.clear()
            self._readers.start(self._partitions[tp] for tp in sorted(self._assigned))
            await self._topics_changed.wait()

    async def stop_reading(self) -> None:
        """Fetch nothing more; returns when no read is under way."""
        self.reading = False
        self._topics_changed.set()
        await self._readers.stop()

    # Acknowledging

    def ack(self, message: Message) -> bool:
        """Mark a message as done; it is sent to the server in a batch."""
        if message.acked:
            return False
        message.acked = True
        self.under_way.discard(message)
        if message.topic not in self.acking_topics:
            return False
        self._tags[message.tp].append(message.offset)
        self._n_acked += 1
        return True

    def abandon(self, place: Any) -> None:
        """Hold no longer what an agent took in this place and did not acknowledge.

        An agent that stops with an error does not acknowledge what it was working on if it acknowledges by hand, and
        Faust starts another in its place. Renewed for ever, those entries would never come back.
        """
        for message in self.under_way.drop(place):
            tags = self._tags[message.tp]
            entry_id = tags.entry_id(message.offset)
            if entry_id is not None:
                tags.lose([entry_id])
                self.log.warning("event.abandoned topic=%s: it is delivered again after a lease", message.topic)

    def give_back(self, message: Message) -> None:
        """Let another worker take what an agent took and has not done. It counts for nothing; this returns at once."""
        self.under_way.discard(message)
        self.hand_backs.give(self._partitions[message.tp], message.offset)

    async def commit(self, topics: TPorTopicSet | None = None, start_new_transaction: bool = True) -> bool:
        """Send what is acknowledged, now."""
        state = self.app.sensors.on_commit_initiated(self)
        try:
            await self.acknowledger.flush()
        except Exception as error:  # noqa: BLE001 - Faust calls this in a loop of its own, which must not end
            self.log.warning("commit.failed error=%r; what is acknowledged stays due", error)
            return False
        self.app.sensors.on_commit_completed(self, state)
        return True

    # Stopping

    async def wait_empty(self) -> None:
        """Let agents finish started work within the drain time; hand back everything else."""
        await self._hand_back(self.under_way.deliveries())
        deadline = monotonic() + self.settings.drain.total_seconds()
        while self.under_way and monotonic() < deadline:  # noqa: ASYNC110 - no event is set
            await asyncio.sleep(0.01)
        await self.commit()
        self._close_tags()

    def _close_tags(self) -> None:
        for partition in self._partitions.values():
            partition.tags.close()

    async def on_stop(self) -> None:
        """Hand back what agents did not finish, and leave the group."""
        self._close_tags()
        self.hand_backs.stop()
        await self.stop_reading()
        # Whatever the server answers, or if it does not, must not hold up the stop: the leases run out without us.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self.settings.timeout.total_seconds()):
                await self._leave()

    async def _leave(self) -> None:
        await self.commit()
        await self._hand_back(set())
        if await self.leader.resign():
            await self.hand_backs.tell()
        for partition in self._all_partitions():
            if self.app.client_only:
                # Only replies to this process were written here; no other process will ever read the stream.
                await self.client.execute_command("DEL", partition.stream)
            else:
                await run_script(self.client, "remove_consumers", partition.stream, self.group, self.name, 0)

    async def on_shutdown(self) -> None:
        """Close the connections, when nothing uses them any more."""
        await self.hand_backs.close()
        await close(self.client)

    async def _hand_back(self, started: set[tuple[TP, int]]) -> None:
        """Hand back everything but these deliveries."""
        lease_s = self.settings.lease.total_seconds()
        handed = 0
        for partition in self._all_partitions():
            keep = {partition.tags.entry_id(tag) for tp, tag in started if tp == partition.tp}
            given = [entry_id for entry_id in partition.tags.unacknowledged() if entry_id not in keep]
            handed += await hand_back(self.client, partition, lease_s, given)
        if handed:
            await self.hand_backs.tell()

    def entry_of(self, message: Message) -> str | None:
        """Return the entry of a message. It is the same at each delivery, in any worker, unlike its offset.

        None when another consumer has taken the entry over already.
        """
        entry_id = self._tags[message.tp].entry_id(message.offset)
        return None if entry_id is None else f"{message.topic}/{message.partition}/{entry_id.decode()}"

    def assignment(self) -> set[TP]:
        """The partitions that are read; the leader partition too while this worker is the leader."""
        if self.leader.is_leader:
            return self._assigned | {TP(topic, 0) for topic in self._leader_topics}
        return set(self._assigned)

    def _all_partitions(self) -> list[Partition]:
        return list(self._partitions.values())

    def topic_partitions(self, topic: str) -> int | None:
        """Return the number of a topic's partitions."""
        return self._layout.partitions(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Return the partition of a key."""
        if partition is not None:
            return partition
        return self._layout.partition_for(topic, key)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Streams need not be created; remembers how many partitions there are."""
        self._layout.declare(topic, partitions)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


class _Always(dict[Any, Any]):
    """A mapping that holds one value under every key."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, _key: Any) -> Any:
        return self._value
