"""Internal headers that a stage may believe: sealed by whoever of ours wrote them.

`for-group` and `attempt` decide who handles an entry and how often it is tried, so a stranger who may write to a topic
must not set them. Their seal is an HMAC over them and the entry, with a key that lies in Postgres: every process of the
pipeline has it without a setting, and a writer who only reaches the broker does not. An entry whose seal is missing or
wrong is taken as if it had no internal headers. A sealed entry that is copied is that entry for that group again.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiosql
import structlog

from infra import telemetry
from infra.postgres import Database
from streams.delivery.deliveries import ATTEMPT, DEAD_LETTERS, FOR_GROUP, SEAL, Delivery, Record
from streams.delivery.interfaces import Publisher
from streams.redis.dead_letter import DEAD_LETTER_HEADERS

log = structlog.get_logger(__name__)

_SEALED: Final = (FOR_GROUP, ATTEMPT)
_INTERNAL: Final = frozenset({*_SEALED, SEAL, *DEAD_LETTER_HEADERS})

_queries = aiosql.from_path(Path(__file__).with_name("seal.sql"), "asyncpg")


@dataclass
class Seal:
    """Seals records and checks deliveries, with the key that all processes share."""

    database: Database
    _key: bytes | None = field(default=None, init=False, repr=False)

    async def sealed(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records, those with internal headers sealed.

        Raises:
            DependencyDown: Postgres is away, and the key is not known yet.
        """
        if not any(name in record.headers for record in records for name in _SEALED):
            return records
        key = await self._read_key()
        return [_with_seal(record, key) for record in records]

    async def opened(self, delivery: Delivery) -> Delivery:
        """Return the delivery with our own internal headers, and without all others.

        A dead letter's headers say where it came from and are checked by whoever reads it.

        Raises:
            DependencyDown: Postgres is away, and the key is not known yet.
        """
        if delivery.topic == DEAD_LETTERS or not _INTERNAL.intersection(delivery.headers):
            return delivery
        mark = delivery.headers.get(SEAL)
        if mark is not None and hmac.compare_digest(mark, _mark(delivery, await self._read_key())):
            return replace(delivery, headers=_without(delivery, {SEAL, *DEAD_LETTER_HEADERS}))
        telemetry.FORGED_HEADERS.labels(delivery.topic).inc()
        log.warning("entry.forged", topic=delivery.topic, entry=delivery.entry)
        return replace(delivery, headers=_without(delivery, _INTERNAL))

    async def _read_key(self) -> bytes:
        if self._key is None:
            async with self.database.transaction() as connection:
                self._key = await _queries.seal_key(connection)
        return self._key


@dataclass(frozen=True, slots=True)
class SealedPublisher:
    """Publishes records with their internal headers sealed. Implements `Publisher`."""

    publisher: Publisher
    seal: Seal

    async def publish(self, records: Sequence[Record]) -> None:
        """Seal the records, then publish them.

        Raises:
            DependencyDown: Postgres or the broker is away.
        """
        await self.publisher.publish(await self.seal.sealed(records))


def _with_seal(record: Record, key: bytes) -> Record:
    if record.topic == DEAD_LETTERS or not any(name in record.headers for name in _SEALED):
        return record
    return replace(record, headers={**record.headers, SEAL: _mark(record, key)})


def _mark(entry: Record | Delivery, key: bytes) -> bytes:
    digest = hmac.new(key, digestmod=hashlib.sha256)
    headers = (entry.headers.get(name) for name in _SEALED)
    for part in (entry.topic.encode(), *headers, entry.key, entry.value):
        # A missing part differs from an empty one, and no two lists of parts read the same.
        digest.update(b"-" if part is None else len(part).to_bytes(8, "big") + part)
    return digest.hexdigest().encode()


def _without(delivery: Delivery, names: frozenset[str] | set[str]) -> dict[str, bytes]:
    return {name: value for name, value in delivery.headers.items() if name not in names}
