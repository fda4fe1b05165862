"""A worker's round: what it must never do, each fault on its own."""

import random
import threading
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from oncall import archive, letters, mover
from oncall.letters import Destination, Entry, Letter, compile_rules
from oncall.mover import Order, Ports, Tally, move
from oncall.sqs_wire import Failure, Refused, Sent, Throttled, Unreachable
from tests.unit.replay_world import RUN, World
from tests.unit.sqs_model import REFUSED_BODY, Faults, md5


def _never(_: str) -> None:
    return None


class Calls(Faults):
    """A worker's way to the queues, with a list of what it did and calls to be put in between."""

    def __init__(self, world: World) -> None:
        base = world.faults()
        queues = (base.source, base.destination)
        super().__init__(base.clock, base.rng, base.odds, queues, base.bucket)
        self.done: list[tuple[str, Any]] = []
        self.before: dict[str, Callable[[int], None]] = {}
        """By call: told its number, it may raise."""
        self.failing: dict[str, Callable[[str], Failure | None]] = {}
        self.watch: Callable[[], None] = lambda: None
        self.threads: set[int] = set()
        self._numbers: Counter[str] = Counter()

    def _note(self, name: str, what: Any) -> None:
        self._numbers[name] += 1
        self.threads.add(threading.get_ident())
        self.watch()
        if name in self.before:
            self.before[name](self._numbers[name])
        self.done.append((name, what))

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Letter]:
        self._note("receive", (max_messages, wait_seconds))
        return super().receive(max_messages, visibility_seconds, wait_seconds)

    def delete(self, handles: dict[str, str]) -> set[str]:
        self._note("delete", set(handles))
        failing = self.failing.get("delete", _never)
        failed = {key for key in handles if failing(key)}
        rest = {key: handle for key, handle in handles.items() if key not in failed}
        return failed | (super().delete(rest) if rest else set())

    def hide(self, handles: dict[str, str], seconds: int) -> set[str]:
        self._note("hide", (set(handles), seconds))
        failing = self.failing.get("hide", _never)
        failed = {key for key in handles if failing(key)}
        rest = {key: handle for key, handle in handles.items() if key not in failed}
        return failed | (super().hide(rest, seconds) if rest else set())

    def put(self, key: str, data: bytes) -> None:
        self._note("put", key)
        super().put(key, data)

    def send(self, entries: Sequence[Entry]) -> Sent:
        self._note("send", [entry["Id"] for entry in entries])
        failing = self.failing.get("send", _never)
        failed = {key: why for key in (e["Id"] for e in entries) if (why := failing(key))}
        rest = [entry for entry in entries if entry["Id"] not in failed]
        sent = super().send(rest) if rest else Sent({}, {})
        return Sent(sent.successful, {**sent.failed, **failed})

    def count(self, name: str) -> int:
        return sum(one == name for one, _ in self.done)


def a_world(bodies: int | list[str] = 25, **settings: Any) -> tuple[World, Calls]:
    world = World(random.Random(1), consumes=0, **settings)  # noqa: S311 -- a test's choices
    world.fill([str(n) for n in range(bodies)] if isinstance(bodies, int) else bodies)
    return world, Calls(world)


def run(world: World, calls: Calls, **settings: Any) -> Tally:
    order = replace(world.order(), **settings)
    tally = move(order, world.ports(calls))
    world.tallies.append(tally)
    return tally


def id_of(number: int) -> str:
    return f"dlq-{number + 1:08}"


def once(error: Exception, at: int = 1) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == at:
            raise error

    return before


def always(error: Exception) -> Callable[[int], None]:
    def before(_: int) -> None:
        raise error

    return before


def visible(world: World) -> int:
    return sum(one.visible_at <= world.clock() for one in world.dlq.messages.values())


BUSY = Failure("InternalError", sender_fault=False, message="")
WRONG = Failure("InvalidContents", sender_fault=True, message="")


def test_letters_are_archived_then_sent_then_deleted_then_told() -> None:
    world, calls = a_world(5)

    tally = run(world, calls)

    assert [name for name, _ in calls.done if name != "receive"] == ["put", "send", "delete", "put"]
    assert (tally.archived, tally.replayed, tally.left, tally.ended) == (5, 5, {}, "empty")
    assert tally.possible_duplicates == 0
    assert tally.seconds == pytest.approx(world.clock() - 1_800_000_000)
    assert not world.dlq.messages
    assert world.check().replayed == 5


@pytest.mark.parametrize("error", [Refused("AccessDenied", ""), Unreachable(), Throttled()])
def test_nothing_is_touched_that_cannot_be_archived(error: Exception) -> None:
    world, calls = a_world()
    calls.before["put"] = always(error)

    tally = run(world, calls)

    assert (calls.count("send"), calls.count("delete")) == (0, 0)
    assert (tally.archived, tally.ended) == (0, "failed")
    assert type(error).__name__ in tally.trouble
    assert visible(world) == 25


def test_a_chunk_is_never_written_over() -> None:
    world, calls = a_world(5)
    taken = archive.archive_key(RUN, archive.chunk_name("000", 0, 0))
    world.bucket[taken] = b"another worker's of the same name"

    tally = run(world, calls)

    assert tally.replayed == 5
    assert world.bucket.pop(taken) == b"another worker's of the same name"
    assert world.check().balanced


def test_a_chunk_whose_writing_was_not_answered_is_written_once_more() -> None:
    world, calls = a_world(5)

    def lost(number: int) -> None:
        if number == 2:  # the first one has been written
            raise Unreachable

    put = world.bucket.put
    world.bucket.put = lambda key, data: (put(key, data), lost(len(world.bucket) + 1))[0]  # type: ignore[func-returns-value, method-assign]  # a lost reply
    tally = run(world, calls)

    assert tally.replayed == 5
    assert world.check().copies == 5


def test_an_entry_that_fails_by_sqs_s_fault_is_sent_again() -> None:
    world, calls = a_world(10)
    tries: Counter[str] = Counter()

    def failing(key: str) -> Failure | None:
        tries[key] += 1
        return BUSY if key == id_of(3) and tries[key] < 3 else None

    calls.failing["send"] = failing
    tally = run(world, calls)

    assert (tally.replayed, tally.left) == (10, {})
    assert (tries[id_of(3)], tries[id_of(4)]) == (3, 1)


def test_an_entry_that_goes_on_failing_stays() -> None:
    world, calls = a_world(10)
    calls.failing["send"] = lambda key: BUSY if key == id_of(3) else None

    tally = run(world, calls)

    assert (tally.replayed, tally.left) == (9, {"InternalError": 1})
    assert list(world.dlq.messages) == [id_of(3)]
    assert world.check().left == 1


def test_an_entry_that_fails_by_its_own_fault_is_sent_once_and_stays() -> None:
    world, calls = a_world(["1", REFUSED_BODY, "2"])

    tally = run(world, calls)

    assert (tally.replayed, tally.left) == (2, {"InvalidMessageContents": 1})
    assert calls.count("send") == 1
    assert [one.body for one in world.dlq.messages.values()] == [REFUSED_BODY]


def test_throttled_by_kms_is_nobody_s_fault() -> None:
    world, calls = a_world(1)
    throttled = Failure("KMS.ThrottlingException", sender_fault=True, message="")
    calls.failing["send"] = lambda _: throttled if calls.count("send") < 3 else None

    assert run(world, calls).replayed == 1


def test_an_entry_that_the_answer_does_not_mention_is_in_doubt() -> None:
    world, calls = a_world(2)
    send = calls.send

    def silent(entries: Sequence[Entry]) -> Sent:
        sent = send(entries)
        return Sent({}, {}) if calls.count("send") == 1 else sent

    calls.send = silent  # type: ignore[method-assign]
    tally = run(world, calls)

    assert (tally.replayed, tally.possible_duplicates) == (2, 2)


def test_a_letter_is_not_deleted_when_another_body_is_confirmed() -> None:
    world, calls = a_world(3)
    calls.odds.differs = 1.0

    tally = run(world, calls)

    assert (tally.replayed, tally.left, tally.possible_duplicates) == (0, {"differs": 3}, 3)
    assert (calls.count("delete"), len(world.dlq.messages)) == (0, 3)


@pytest.mark.parametrize("fifo", [False, True])
def test_a_send_without_an_answer_is_made_again_and_counted(fifo: bool) -> None:  # noqa: FBT001 -- pytest's parameter
    world, calls = a_world(5, fifo=fifo)
    send = world.queue.send

    def lost(entries: Sequence[Entry]) -> Sent:
        sent = send(entries)
        if calls.count("send") == 1:
            raise Unreachable
        return sent

    world.queue.send = lost  # type: ignore[method-assign]
    tally = run(world, calls)

    twice = len(world.queue.arrivals) - 5
    assert tally.replayed == 5
    assert (twice == tally.possible_duplicates == 0) if fifo else (twice == 5)
    assert world.check().possible_duplicates == tally.possible_duplicates == twice


def test_a_fifo_queue_that_forgets_is_not_asked_again() -> None:
    world, calls = a_world(1, fifo=True, visibility=10_000)
    send = world.queue.send

    def lost(entries: Sequence[Entry]) -> Sent:
        send(entries)
        world.clock.sleep(250)
        raise Unreachable

    world.queue.send = lost  # type: ignore[method-assign]
    tally = run(world, calls)

    assert calls.count("send") == 1
    assert (tally.left, tally.possible_duplicates) == ({"unreachable": 1}, 1)


def test_a_batch_that_is_refused_is_sent_letter_by_letter() -> None:
    world, calls = a_world(10)
    calls.before["send"] = once(Refused("AWS.SimpleQueueService.BatchRequestTooLong", ""))

    tally = run(world, calls)

    assert (tally.replayed, tally.left, calls.count("send")) == (10, {}, 10)


def test_a_queue_that_refuses_everything_ends_the_round() -> None:
    world, calls = a_world(1000, chunk=300)
    calls.before["send"] = always(Refused("AccessDenied", "no"))

    tally = run(world, calls)

    assert (tally.replayed, tally.ended) == (0, "failed")
    assert tally.trouble == "100 refusals in a row: AccessDenied: no"
    assert tally.left["AccessDenied"] == 100
    assert len(world.dlq.messages) == 1000


def test_a_failed_delete_is_made_again() -> None:
    world, calls = a_world(10)
    calls.failing["delete"] = lambda _: BUSY if calls.count("delete") < 3 else None

    tally = run(world, calls)

    assert (tally.replayed, tally.possible_duplicates) == (10, 0)
    assert not world.dlq.messages


def test_a_letter_that_could_not_be_deleted_is_only_deleted_when_it_comes_again() -> None:
    world, calls = a_world(["1", "refund", "3"], visibility=30)
    calls.failing["delete"] = lambda _: BUSY if world.clock() < 1_800_000_020 else None
    calls.before["receive"] = lambda number: world.clock.sleep(31) if number == 3 else None

    tally = run(world, calls)

    assert (tally.archived, tally.replayed, tally.quarantined) == (3, 2, 1)
    assert (tally.received_again, tally.possible_duplicates) == (3, 0)
    assert len(world.queue.arrivals) == 2
    assert not world.dlq.messages
    assert world.check().possible_duplicates == 2  # the ledger was written before


def test_letters_that_cannot_be_deleted_are_told() -> None:
    world, calls = a_world(10)
    calls.before["delete"] = always(Unreachable())

    tally = run(world, calls)

    assert (tally.replayed, tally.possible_duplicates) == (10, 10)
    assert world.check().possible_duplicates == 10


@pytest.mark.parametrize(
    "error", [None, Refused("AccessDenied", "no")], ids=["each fails", "refused"]
)
def test_a_round_ends_when_nothing_can_be_deleted(error: Exception | None) -> None:
    world, calls = a_world(2000, chunk=100, visibility=40_000)
    if error:
        calls.before["delete"] = always(error)
    else:
        calls.failing["delete"] = lambda _: BUSY

    tally = run(world, calls, deadline=world.clock() + 10_000)

    assert tally.ended == "failed"
    assert tally.replayed == tally.possible_duplicates == (10 if error else 1000)


def test_letters_are_hidden_for_longer_before_others_may_receive_them() -> None:
    world, calls = a_world(50, visibility=30, chunk=50)
    calls.before["send"] = lambda _: world.clock.sleep(8)
    others: list[int] = []
    calls.watch = lambda: others.append(visible(world))

    tally = run(world, calls)

    assert (tally.replayed, tally.left, tally.received_again) == (50, {}, 0)
    assert set(others[8:]) == {0}
    assert len(world.queue.arrivals) == 50


def test_a_letter_that_cannot_be_hidden_for_longer_is_let_go_until_it_comes_again() -> None:
    world, calls = a_world(30, visibility=30, chunk=30)
    calls.before["send"] = lambda _: world.clock.sleep(12)
    calls.failing["hide"] = lambda key: BUSY if key == id_of(29) else None

    tally = run(world, calls)

    assert (tally.archived, tally.replayed, tally.left) == (31, 30, {"lapsed": 1})
    sends = [keys for name, keys in calls.done if name == "send"]
    assert [id_of(29) in keys for keys in sends] == [False, False, False, True]


def test_nothing_is_touched_after_a_stall_that_was_too_long() -> None:
    world, calls = a_world(30, visibility=30, chunk=30)

    def stall(number: int) -> None:
        if number == 2:
            world.clock.sleep(31)
            move(world.order(), world.ports(world.faults()))  # somebody else takes them

    calls.before["send"] = stall
    tally = run(world, calls)

    assert (tally.replayed, tally.left) == (20, {"lapsed": 10})
    # The call under way was too late, and it is told.
    assert len(world.queue.arrivals) - 30 == tally.possible_duplicates == 10


def test_a_send_is_not_tried_again_when_letters_may_be_elsewhere() -> None:
    world, calls = a_world(5, visibility=30)

    def lost(_: int) -> None:
        world.clock.sleep(31)
        raise Unreachable

    calls.before["send"] = lost
    tally = run(world, calls, deadline=world.clock() + 20)

    assert tally.left == {"unreachable": 5}
    assert calls.count("hide") == 0


def test_letters_that_are_left_come_back_after_the_round() -> None:
    world, calls = a_world(["kept", "1", "damaged"], visibility=30)
    calls.before["receive"] = lambda number: world.clock.sleep(40) if number == 3 else None

    tally = run(world, calls)

    assert (tally.archived, tally.left) == (3, {"kept": 1, "damaged": 1})
    assert visible(world) == 0
    world.clock.sleep(300)
    assert visible(world) == 2


def test_letters_that_are_left_stay_hidden_as_long_as_is_wanted() -> None:
    world, calls = a_world(["kept"])

    run(world, calls, left_until=world.clock() + 5000)

    world.clock.sleep(4900)
    assert visible(world) == 0
    world.clock.sleep(200)
    assert visible(world) == 1


def test_a_queue_is_empty_when_several_long_polls_found_nothing() -> None:
    world, calls = a_world(15)
    receive = world.dlq.receive
    misses = iter([True, True, False, True, True, False, True, False])

    def missing(max_messages: int, visibility_seconds: int, wait_seconds: int) -> list[Letter]:
        if next(misses, False):
            world.clock.sleep(wait_seconds)
            return []
        return receive(max_messages, visibility_seconds, wait_seconds)

    world.dlq.receive = missing  # type: ignore[method-assign]
    tally = run(world, calls)

    assert (tally.replayed, tally.ended) == (15, "empty")
    assert [wait for name, (_, wait) in calls.done[-3:] if name == "receive"] == [2, 2, 2]


@pytest.mark.parametrize("error", [Unreachable(), Throttled(), Refused("AccessDenied", "no")])
def test_a_queue_that_cannot_be_read_ends_the_round(error: Exception) -> None:
    world, calls = a_world()
    calls.before["receive"] = always(error)

    tally = run(world, calls)

    assert (tally.ended, tally.archived) == ("failed", 0)
    assert tally.trouble == f"receiving letters failed, {type(error).__name__}: {error}"


def test_a_receive_that_fails_does_not_keep_what_is_in_hand() -> None:
    world, calls = a_world(20)
    calls.before["receive"] = once(Unreachable(), at=2)

    tally = run(world, calls)

    assert (tally.replayed, tally.ended) == (20, "empty")


def test_a_failed_entry_stops_its_group_and_no_other() -> None:
    world, calls = a_world(40, fifo=True)
    calls.failing["send"] = lambda key: BUSY if key == id_of(4) else None
    group = world.dlq.messages[id_of(4)].group
    behind = [one.key for one in world.dlq.messages.values() if one.group == group]
    behind = behind[behind.index(id_of(4)) :]

    tally = run(world, calls)

    assert len(behind) > 3
    assert list(world.dlq.messages) == behind
    assert tally.replayed == 40 - len(behind)
    assert tally.left["InternalError"] == 1
    calls.failing.clear()
    world.clock.sleep(300)
    assert run(world, calls).replayed == len(behind)
    world.check()


def test_a_letter_of_a_rule_stops_its_group_where_it_is_left_and_not_where_it_goes() -> None:
    world = World(random.Random(1), fifo=True)  # noqa: S311 -- a test's choices
    world.fill(["1", "refund", "2", "kept", "3", "stale"], groups=1)

    tally = run(world, Calls(world))

    assert [one.body for one in world.queue.arrivals] == ["1", "2"]
    assert (tally.quarantined, tally.dropped) == (1, 0)
    assert [one.body for one in world.dlq.messages.values()] == ["kept", "3", "stale"]
    assert tally.left == {"kept": 1, "group_stopped": 2}


def test_a_fifo_queue_has_one_thread_and_one_letter_of_a_group_in_a_batch() -> None:
    world, calls = a_world(60, fifo=True, threads=8)

    tally = run(world, calls)

    assert (tally.replayed, len(calls.threads)) == (60, 1)
    groups = {
        key: one.group for key, one in zip(map(id_of, range(60)), world.dlq.arrivals, strict=True)
    }
    for name, keys in calls.done:
        if name == "send":
            assert len({groups[key] for key in keys}) == len(keys)


def test_a_stopped_group_stays_so_in_later_chunks() -> None:
    world, calls = a_world([f"{n} refund" for n in range(30)], fifo=True, chunk=7)
    world.run = "before"
    run(world, calls)
    calls.failing["send"] = lambda key: BUSY if key == behind[0] else None
    group = world.dlq.arrivals[4].group
    behind = [one.key for one in world.dlq.arrivals[4:] if one.group == group]
    source = archive.ArchivedLetters(archive.not_replayed(world.bucket, "before"))

    order = replace(world.order(), run=RUN, rules=compile_rules([]))
    tally = move(order, replace(world.ports(calls), source=source))

    assert tally.left == {"InternalError": 1, "group_stopped": len(behind) - 1}
    assert tally.replayed == 30 - len(behind)


def test_a_letter_that_is_lost_hold_of_stops_its_group() -> None:
    world = World(random.Random(1), fifo=True, visibility=30, consumes=0)  # noqa: S311 -- a test's choices
    world.fill([str(n) for n in range(5)], groups=1)
    calls = Calls(world)
    calls.before["send"] = lambda _: world.clock.sleep(12)
    calls.failing["hide"] = lambda key: BUSY if key == id_of(2) else None

    tally = run(world, calls)

    assert [one.body for one in world.queue.arrivals] == ["0", "1"]
    assert tally.left == {"lapsed": 1, "group_stopped": 2}


def test_a_chunk_of_a_fifo_queue_ends_with_a_short_receive() -> None:
    world = World(random.Random(1), fifo=True, consumes=0)  # noqa: S311 -- a test's choices
    world.fill([str(n) for n in range(15)], groups=1000)
    calls = Calls(world)

    run(world, calls)

    assert [name for name, _ in calls.done[:3]] == ["receive", "receive", "put"]


def test_of_a_letter_that_comes_twice_the_later_handle_counts() -> None:
    world, calls = a_world(1)
    receive = world.dlq.receive

    def twice(max_messages: int, visibility_seconds: int, wait_seconds: int) -> list[Letter]:
        found = receive(max_messages, visibility_seconds, wait_seconds)
        for message in world.dlq.messages.values():
            message.visible_at = 0 if calls.count("receive") == 1 else message.visible_at
        return found

    world.dlq.receive = twice  # type: ignore[method-assign]
    tally = run(world, calls)

    assert (tally.archived, tally.received_again, tally.replayed) == (1, 1, 1)
    assert not world.dlq.messages


def test_a_quarantined_letter_that_was_not_deleted_is_in_the_archive_once() -> None:
    world, calls = a_world(["refund"])
    calls.failing["delete"] = lambda _: BUSY
    for _ in range(2):
        assert run(world, calls).quarantined == 1
        world.clock.sleep(300)

    assert world.check().quarantined == 1
    assert len(list(archive.not_replayed(world.bucket, RUN))) == 1


@pytest.mark.parametrize("why", ["stopped", "deadline"])
def test_what_is_in_hand_is_visible_again_when_the_round_ends(why: str) -> None:
    world, calls = a_world(50, chunk=50)
    ports = world.ports(calls)
    if why == "stopped":
        ports = replace(ports, stop=lambda: calls.count("send") == 2)
    else:
        calls.before["send"] = lambda number: world.clock.sleep(60 if number == 2 else 0)

    tally = move(replace(world.order(), deadline=world.clock() + 60), ports)

    assert (tally.ended, tally.replayed, tally.left) == (why, 20, {why: 30})
    assert visible(world) == 30
    world.tallies.append(tally)
    assert world.check().left == 30


def test_what_is_gathered_is_visible_again_when_somebody_says_stop() -> None:
    world, calls = a_world(50, chunk=50)

    ports = replace(world.ports(calls), stop=lambda: calls.count("receive") == 3)
    tally = move(world.order(), ports)

    assert (tally, visible(world)) == (Tally(ended="stopped", seconds=tally.seconds), 50)
    assert calls.count("put") == 0


def test_no_more_letters_are_touched_than_were_ordered() -> None:
    world, calls = a_world(50)

    tally = run(world, calls, most=13)

    assert (tally.archived, tally.ended) == (13, "limit")
    assert visible(world) == 37


def test_letters_that_are_left_do_not_count_as_touched() -> None:
    world, calls = a_world(["kept"] * 30 + ["1"] * 20, fifo=True)

    tally = run(world, calls, most=13)

    assert (tally.replayed, tally.ended) == (0, "empty")

    world, calls = a_world(["kept"] * 30 + ["1"] * 20)

    tally = run(world, calls, most=13)

    assert (tally.replayed, tally.ended) == (13, "limit")


def test_letters_are_received_at_the_rate_and_sent_at_once() -> None:
    world, calls = a_world(100)
    began = world.clock()

    run(world, calls, rate=20.0, most=100)

    assert 4.5 <= world.clock() - began <= 6.5
    times = [one.sent_at - began for one in world.queue.arrivals]
    assert all(sum(t <= moment < t + 1 for moment in times) <= 62 for t in times)


def test_a_slow_rate_takes_a_letter_at_a_time() -> None:
    world, calls = a_world(10)

    run(world, calls, rate=0.5, most=6)

    taken = [most for name, (most, *_) in calls.done if name == "receive"]
    assert set(taken) == {1}
    sent = [one.sent_at for one in world.queue.arrivals]
    assert 8 <= sent[-1] - sent[0] <= 12


def test_a_letter_in_hand_does_not_wait_for_the_next_one_s_turn() -> None:
    world, calls = a_world(10)

    run(world, calls, rate=0.2, most=2)

    assert [name for name, _ in calls.done] == ["receive", "put", "send", "delete", "put"] * 2


def test_letters_wait_for_their_turn_in_the_queue_and_not_in_hand() -> None:
    world, calls = a_world(40, chunk=40)
    longest = 0.0
    since: dict[str, float] = {}

    def look() -> None:
        nonlocal longest
        for one in world.dlq.messages.values():
            if one.visible_at > world.clock():
                since.setdefault(one.key, world.clock())
                longest = max(longest, world.clock() - since[one.key])

    calls.watch = look
    run(world, calls, rate=2.0, most=40)

    assert longest < 3


def test_batches_keep_to_a_mebibyte() -> None:
    world, calls = a_world([f"{n}" + "x" * 300_000 for n in range(10)])

    tally = run(world, calls)

    assert (tally.replayed, tally.left) == (10, {})
    assert [len(keys) for name, keys in calls.done if name == "send"] == [3, 3, 3, 1]


def test_a_chunk_ends_at_its_size() -> None:
    world, calls = a_world([f"{n}" + "x" * 100_000 for n in range(40)], chunk=40)

    run(world, calls, chunk_bytes=1_500_000)

    assert calls.count("put") == 4


def test_an_error_that_is_none_of_sqs_s_is_raised_and_loses_nothing() -> None:
    world, calls = a_world(20)
    calls.before["send"] = once(ValueError("no credentials"), at=2)

    with pytest.raises(ValueError, match="no credentials"):
        run(world, calls)

    world.kills = 1
    world.clock.sleep(130)
    run(world, Calls(world))
    assert world.check().unknown == 10
    assert len(world.queue.arrivals) == 20


def test_the_archive_is_replayed_like_a_queue() -> None:
    world, calls = a_world([f"{n} refund" for n in range(20)] + ["1", "kept"])
    run(world, calls)
    assert len(world.queue.arrivals) == 1

    again = "a-later-run"
    order = replace(world.order(), run=again, rules=compile_rules([]), most=15)
    for _ in range(2):
        source = archive.ArchivedLetters(
            archive.not_replayed(world.bucket, RUN), archive.replayed_ids(world.bucket, again)
        )
        move(order, replace(world.ports(calls), source=source))
        order = replace(order, worker="again")

    assert sorted(one.body for one in world.queue.arrivals[1:]) == sorted(
        f"{n} refund" for n in range(20)
    )
    balance = archive.reconcile(world.bucket, again)
    assert (balance.balanced, balance.replayed) == (True, 20)


def test_tallies_add_up() -> None:
    one = Tally(3, 1, 1, 0, {"kept": 1}, 1, 2, 1, "limit", "", 4.0)
    other = Tally(5, 2, 0, 1, {"kept": 1, "lapsed": 1}, 0, 0, 1, "failed", "why", 2.0)

    assert one + other == Tally(8, 3, 1, 1, {"kept": 2, "lapsed": 1}, 1, 2, 2, "failed", "why", 6.0)
    assert (one + Tally()).ended == "limit"


class Fast:
    """A source and a sink that cost next to nothing, for threads and for figures."""

    def __init__(self, number: int, body: str = "x" * 600) -> None:
        self.left = number
        self.lock = threading.Lock()
        self.sent: deque[str] = deque(maxlen=100_000)
        self.deleted = 0
        self.wrong: list[str] = []
        self.bytes = 0
        self.body, self.digest = body, md5(body)

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Letter]:
        assert visibility_seconds >= 30
        assert wait_seconds <= 20
        with self.lock:
            count = min(max_messages, self.left)
            first, self.left = self.left, self.left - count
        return [
            {
                "MessageId": f"5fea7756-0ea4-451a-a703-{first - n:012}",
                "ReceiptHandle": "handle" * 50,
                "MD5OfBody": self.digest,
                "Body": self.body,
                "Attributes": {
                    "SentTimestamp": "1800000000000",
                    "ApproximateReceiveCount": "4",
                    "ApproximateFirstReceiveTimestamp": "1800000000000",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "DeadLetterQueueSourceArn": "arn:aws:sqs:eu-west-1:123456789012:orders",
                },
                "MessageAttributes": {
                    "tenant": {"DataType": "String", "StringValue": "acme"},
                    "tries": {"DataType": "Number", "StringValue": "3"},
                },
            }
            for n in range(count)
        ]

    def send(self, entries: Sequence[Entry]) -> Sent:
        self.sent.extend(entry["Id"] for entry in entries)
        return Sent({entry["Id"]: ("new", self.digest) for entry in entries}, {})

    def delete(self, handles: dict[str, str]) -> set[str]:
        with self.lock:
            self.deleted += len(handles)
        return set()

    def hide(self, handles: dict[str, str], seconds: int) -> set[str]:  # noqa: ARG002 -- the port's
        return set()

    def put(self, key: str, data: bytes) -> None:  # noqa: ARG002 -- the port's
        with self.lock:
            self.bytes += len(data)

    def ports(self) -> Ports:
        return Ports(self, self, self, lambda: False, time.time, time.sleep)


def an_order(**settings: Any) -> Order:
    return replace(
        Order(
            run=RUN,
            worker="1",
            deadline=time.time() + 600,
            most=10_000_000,
            destination=Destination(fifo=False, max_message_bytes=letters.BATCH_BYTES),
            rules=compile_rules([]),
            max_replays=3,
            fifo_source=False,
        ),
        **settings,
    )


def test_threads_share_the_work_and_do_nothing_twice() -> None:
    world, _ = a_world(0)
    fast = Fast(20_000)
    ports = replace(fast.ports(), archive=world.bucket)

    tally = move(an_order(threads=8, chunk_letters=100, most=19_990), ports)

    assert (tally.archived, tally.replayed, tally.ended) == (19_990, 19_990, "limit")
    assert (len(set(fast.sent)), len(fast.sent), fast.deleted) == (19_990,) * 3
    balance = archive.reconcile(world.bucket, RUN)
    assert (balance.balanced, balance.replayed, balance.copies) == (True, 19_990, 0)


def test_threads_end_when_one_of_them_breaks() -> None:
    class Broken(Fast):
        def send(self, entries: Sequence[Entry]) -> Sent:
            if len(self.sent) >= 1000:
                raise ValueError("broken")
            return super().send(entries)

    fast = Broken(100_000)

    with pytest.raises(ValueError, match="broken"):
        move(an_order(threads=4, chunk_letters=100), fast.ports())

    assert fast.left > 90_000


def test_threads_keep_to_the_rate_together() -> None:
    fast = Fast(10_000)
    began = time.monotonic()

    move(an_order(threads=4, rate=1000.0, most=500), fast.ports())

    assert 0.4 < time.monotonic() - began < 2


def peak(number: int) -> int:
    fast = Fast(number)
    fast.sent = deque(maxlen=10)
    tracemalloc.start()
    try:
        assert move(an_order(chunk_letters=200), fast.ports()).replayed == number
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_letters() -> None:
    assert peak(10_000) < 1.2 * peak(2_000)


def test_the_longest_wait_of_a_call_is_short() -> None:
    assert sum(mover._PAUSES) < 5
