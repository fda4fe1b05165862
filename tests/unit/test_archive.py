"""The archive: what goes in comes out, and every letter is accounted for or named."""

import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest

from oncall import archive
from oncall.archive import ArchivedLetters, Line, not_replayed, reconcile
from oncall.letters import Fate, Letter

RUN = "orders-dlq-2027"
REPLAY, QUARANTINE = Fate("replay", ""), Fate("quarantine", "poison")


class Shelf(dict[str, bytes]):
    """A bucket."""

    def keys(self, prefix: str = "") -> Iterable[str]:  # type: ignore[override]  # S3's, not dict's
        return sorted(key for key in self if key.startswith(prefix))

    def get(self, key: str) -> bytes:  # type: ignore[override]  # as above
        return self[key]

    def chunk(
        self, name: str, *ids: str, fate: Fate = REPLAY, told: Iterable[Line] | None = ()
    ) -> None:
        """Archive letters; ``told=None`` is a worker that died before its ledger."""
        self[archive.archive_key(RUN, name)] = archive.pack_letters((letter(i), fate) for i in ids)
        if told is not None:
            self[archive.ledger_key(RUN, name)] = archive.pack_ledger(told)


def letter(key: str) -> Letter:
    return {"MessageId": key, "Body": f"of {key}", "MD5OfBody": "", "Attributes": {}}


def replayed(*ids: str, doubt: str = "") -> list[Line]:
    return [Line(one, "replayed", new=f"new-{one}", doubt=doubt) for one in ids]


def quarantined(*ids: str, doubt: str = "") -> list[Line]:
    return [Line(one, "quarantined", "poison", doubt=doubt) for one in ids]


def left(*ids: str, doubt: str = "") -> list[Line]:
    return [Line(one, "left", "too_large", doubt=doubt) for one in ids]


def test_letters_come_out_as_they_went_in() -> None:
    whole = {
        **letter("a"),
        "Body": "ü\n\ud800\u2028",
        "MessageAttributes": {"n": {"DataType": "x"}},
    }
    chunk = archive.pack_letters([(whole, QUARANTINE), (letter("b"), REPLAY)])

    assert list(archive.read_letters(chunk)) == [
        (whole, "quarantine", "poison"),
        (letter("b"), "replay", ""),
    ]
    assert chunk == archive.pack_letters([(whole, QUARANTINE), (letter("b"), REPLAY)])


def test_a_ledger_comes_out_as_it_went_in() -> None:
    lines = [*replayed("a"), *left("b", doubt="may_be_sent")]

    assert list(archive.read_ledger(archive.pack_ledger(lines))) == lines


def test_names_of_a_thread_sort_by_number() -> None:
    names = [archive.chunk_name("3", 0, number) for number in (2, 10, 1000)]

    assert names == sorted(names)
    assert archive.archive_key(RUN, names[0]) == f"incidents/{RUN}/archive/3-000-000002.jsonl.gz"


def test_a_run_without_letters_is_balanced() -> None:
    balance = reconcile(Shelf(), RUN)

    assert (balance.archived, balance.balanced) == (0, True)


def test_every_letter_counts_once_with_what_came_of_it_last() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", "b", told=[*replayed("a"), *left("b")])
    shelf.chunk("2", "b", "c", told=[*replayed("b"), *left("c")])
    shelf.chunk("3", "c", "d", told=[*left("c"), Line("d", "dropped", "expired")])
    shelf.chunk("4", "e", fate=QUARANTINE, told=quarantined("e"))

    balance = reconcile(shelf, RUN)

    assert balance.balanced
    assert (balance.archived, balance.copies) == (5, 2)
    assert (balance.replayed, balance.quarantined, balance.dropped, balance.left) == (2, 1, 1, 1)
    assert (balance.unknown, balance.possible_duplicates) == (0, 0)


def test_a_chunk_without_its_ledger_is_not_told_yet() -> None:
    shelf = Shelf()
    assert archive.is_told(shelf, RUN)
    shelf.chunk("9", "a", told=replayed("a"))
    assert archive.is_told(shelf, RUN)
    shelf.chunk("10", "b", told=None)
    assert not archive.is_told(shelf, RUN)


def test_letters_of_a_dead_worker_are_looked_for_in_other_chunks() -> None:
    shelf = Shelf()
    shelf.chunk("9", "a", "b", "c", told=None)
    shelf.chunk("10", "b", "c", told=[*replayed("b"), *left("c")])

    balance = reconcile(shelf, RUN)

    assert balance.balanced
    assert (balance.replayed, balance.left, balance.unknown) == (1, 1, 1)
    assert balance.unknown_examples == ("a",)
    assert balance.possible_duplicates == 1  # b, if the dead worker had sent it


@pytest.mark.parametrize(
    ("first", "second", "possible"),
    [
        (replayed("a"), replayed("a"), 1),
        (replayed("a", doubt="not_deleted"), None, 1),
        (left("a", doubt="may_be_sent"), replayed("a"), 1),
        (left("a"), replayed("a"), 0),
        (quarantined("a", doubt="not_deleted"), quarantined("a"), 0),
        (None, None, 1),
    ],
)
def test_letters_that_may_have_been_sent_twice_are_counted(
    first: list[Line] | None, second: list[Line] | None, possible: int
) -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", told=first)
    shelf.chunk("2", "a", told=second)

    assert reconcile(shelf, RUN).possible_duplicates == possible


def test_a_letter_that_its_ledger_does_not_know_is_named() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", "lost", told=replayed("a"))

    balance = reconcile(shelf, RUN)

    assert (balance.balanced, balance.differences, balance.examples) == (False, 1, ("lost",))


def test_a_letter_that_was_touched_without_an_archive_is_named() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", told=replayed("a", "touched"))
    shelf[archive.ledger_key(RUN, "2")] = archive.pack_ledger(replayed("too"))

    balance = reconcile(shelf, RUN)

    assert not balance.balanced
    assert (balance.archived, balance.replayed) == (1, 1)
    assert (balance.differences, sorted(balance.examples)) == (2, ["too", "touched"])


def test_other_runs_do_not_count() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", told=replayed("a"))

    assert reconcile(shelf, RUN + "-2").archived == 0


def peak(letters: int) -> int:
    shelf = Shelf()
    for number in range(0, letters, 500):
        ids = [f"{number + n:036}" for n in range(500)]
        shelf.chunk(f"{number:06}", *ids, told=replayed(*ids))
    tracemalloc.start()
    try:
        assert reconcile(shelf, RUN).replayed == letters
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_letters() -> None:
    assert peak(32_000) < 1.2 * peak(16_000)


def ids(letters: Iterable[Any]) -> list[str]:
    return [one["MessageId"] for one in letters]


def test_what_only_the_archive_holds_comes_once() -> None:
    shelf = Shelf()
    both = ["q", "again", "later"]
    told = [*quarantined("q"), *quarantined("again", doubt="not_deleted"), *left("later")]
    shelf.chunk("1", *both, fate=QUARANTINE, told=told)
    shelf.chunk("2", "again", "later", fate=QUARANTINE, told=quarantined("again", "later"))
    shelf.chunk("3", "r", "l", told=[*replayed("r"), *left("l")])
    shelf.chunk("4", "d", told=[Line("d", "dropped", "expired")])

    assert ids(not_replayed(shelf, RUN)) == ["q", "again", "later", "d"]


def test_a_letter_left_before_it_is_quarantined_in_doubt_comes_once() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", fate=QUARANTINE, told=left("a"))
    shelf.chunk("2", "a", fate=QUARANTINE, told=quarantined("a", doubt="not_deleted"))

    assert ids(not_replayed(shelf, RUN)) == ["a"]


def test_a_letter_quarantined_after_it_was_replayed_does_not_come() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", fate=QUARANTINE, told=quarantined("a"))
    shelf.chunk("2", "a", told=replayed("a", doubt="not_deleted"))

    assert ids(not_replayed(shelf, RUN)) == []


def test_quarantined_letters_of_dead_workers_come_if_nobody_has_seen_them_since() -> None:
    shelf = Shelf()
    shelf.chunk("9", "gone", "seen", fate=QUARANTINE, told=None)
    shelf.chunk("8", "gone", fate=QUARANTINE, told=None)
    shelf.chunk("7", "sent", told=None)
    shelf.chunk("10", "seen", told=replayed("seen"))

    assert ids(not_replayed(shelf, RUN)) == ["gone"]


def test_archived_letters_are_a_source_that_loses_none_between_two_receives() -> None:
    source = ArchivedLetters(map(letter, "abcdefg"), skip={"c"})

    received = [ids(source.receive(2, 30, 0)) for _ in range(4)]

    assert received == [["a", "b"], ["d", "e"], ["f", "g"], []]
    assert source.delete({"a": "a"}) == source.hide({"b": "b"}, 0) == set()


def test_ids_that_a_run_has_replayed_are_known() -> None:
    shelf = Shelf()
    shelf.chunk("1", "a", "b", told=[*replayed("a"), *left("b")])
    shelf.chunk("2", "c", told=None)

    assert archive.replayed_ids(shelf, RUN) == {"a"}
