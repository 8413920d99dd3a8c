"""A feed: in order, never waiting, and failing rather than leaving a gap."""

from __future__ import annotations

import threading

import pytest

from devicehost_server.model.errors import Draining, WatchTooSlow
from devicehost_server.services.feed import Feed

WAIT_S = 30.0


def test_what_was_pushed_comes_out_in_order_in_one_batch() -> None:
    feed: Feed[int] = Feed()
    for number in range(5):
        feed.push(number)
    assert next(feed.batches()) == [0, 1, 2, 3, 4]


def test_a_batch_has_only_what_came_since_the_last() -> None:
    feed: Feed[int] = Feed()
    batches = feed.batches()
    for number in range(3):
        feed.push(number)
        assert next(batches) == [number]


def test_a_watcher_waits_for_what_is_not_there_yet() -> None:
    feed: Feed[int] = Feed()
    found: list[int] = []

    def watch() -> None:
        for batch in feed.batches():
            found.extend(batch)

    watching = threading.Thread(target=watch)
    watching.start()
    for number in range(1000):
        feed.push(number)
    feed.push(-1)
    while not found or found[-1] != -1:
        assert watching.is_alive()
    feed.close()
    watching.join(WAIT_S)
    assert not watching.is_alive()
    assert found == [*range(1000), -1]


def test_many_push_and_nothing_is_lost() -> None:
    feed: Feed[tuple[int, int]] = Feed(backlog_max=100_000)

    def push(n: int) -> None:
        for i in range(2000):
            feed.push((n, i))

    threads = [threading.Thread(target=push, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch = next(feed.batches())
    assert len(batch) == 8000
    for n in range(4):
        assert [i for m, i in batch if m == n] == list(range(2000))


def test_a_close_ends_it_and_drops_what_nobody_will_take() -> None:
    feed: Feed[int] = Feed()
    feed.push(1)
    feed.close()
    assert list(feed.batches()) == []


def test_a_failure_comes_after_what_was_pushed_before() -> None:
    feed: Feed[int] = Feed()
    feed.push(1)
    feed.fail(Draining("the server stops"))
    batches = feed.batches()
    assert next(batches) == [1]
    with pytest.raises(Draining):
        next(batches)


def test_one_item_too_many_is_a_failure_after_all_that_fitted() -> None:
    feed: Feed[int] = Feed(backlog_max=3)
    for number in range(4):
        feed.push(number)
    batches = feed.batches()
    assert next(batches) == [0, 1, 2]
    with pytest.raises(WatchTooSlow) as caught:
        next(batches)
    assert caught.value.metadata == {"backlog": "3"}


def test_nothing_follows_a_gap() -> None:
    feed: Feed[int] = Feed(backlog_max=2)
    for number in range(3):
        feed.push(number)  # the last is dropped
    batches = feed.batches()
    assert next(batches) == [0, 1]
    feed.push(3)
    with pytest.raises(WatchTooSlow):
        next(batches)


def test_the_first_failure_is_the_one_that_is_told() -> None:
    feed: Feed[int] = Feed(backlog_max=1)
    feed.push(1)
    feed.push(2)
    feed.fail(Draining("the server stops"))
    batches = feed.batches()
    assert next(batches) == [1]
    with pytest.raises(WatchTooSlow):
        next(batches)
