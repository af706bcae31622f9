"""Delivery tags."""

import pytest

from streams.redis.delivery_tags import DeliveryTags


@pytest.fixture
def tags() -> DeliveryTags:
    """Tags of a partition, none given out yet."""
    return DeliveryTags(lambda: None)


def test_tags_grow_whatever_the_entries_age(tags: DeliveryTags) -> None:
    """A reclaimed entry is older than what was read, and still gets a higher tag: Faust drops what goes down."""
    assert [tags.deliver(entry_id) for entry_id in (b"9-0", b"3-0", b"5-0")] == [1, 2, 3]


def test_an_entry_that_is_held_is_not_delivered_twice(tags: DeliveryTags) -> None:
    """A second delivery of a held entry is refused, until the acknowledgement is confirmed."""
    tag = tags.deliver(b"1-0")
    assert tag is not None
    assert tags.deliver(b"1-0") is None
    tags.append(tag)
    assert tags.deliver(b"1-0") is None
    tags.settle(tags.take_acknowledged(10))
    assert tags.deliver(b"1-0") == 2


def test_acknowledging_twice_counts_once(tags: DeliveryTags) -> None:
    """A repeated acknowledgement, and one of an unknown tag, change nothing."""
    tag = tags.deliver(b"1-0")
    assert tag is not None
    tags.append(tag)
    tags.append(tag)
    tags.append(99)
    assert tags.take_acknowledged(10) == [b"1-0"]


def test_what_could_not_be_sent_stays_due(tags: DeliveryTags) -> None:
    """Acknowledgements that the server did not confirm are due again, and their entries stay held."""
    for number in range(3):
        tags.append(tags.deliver(b"%d-0" % number) or 0)
    taken = tags.take_acknowledged(2)
    tags.put_back(taken)
    assert tags.take_acknowledged(10) == [b"0-0", b"1-0", b"2-0"]
    assert len(tags) == 3


def test_lost_entries_are_not_acknowledged(tags: DeliveryTags) -> None:
    """What another consumer owns now is dropped, and acknowledging it later has no effect."""
    first, second = tags.deliver(b"1-0"), tags.deliver(b"2-0")
    assert first is not None
    assert second is not None
    tags.append(first)
    assert tags.lose([b"1-0", b"2-0"]) == 1, "one of them was still being worked on"
    tags.append(second)
    assert tags.take_acknowledged(10) == []
    assert tags.held() == []


def test_after_closing_nothing_is_acknowledged(tags: DeliveryTags) -> None:
    """Faust acknowledges in a `finally` what it cancels; after the drain that means nothing."""
    tag = tags.deliver(b"1-0")
    tags.close()
    assert tag is not None
    tags.append(tag)
    assert tags.acknowledged == 0
    assert tags.unacknowledged() == [b"1-0"]
