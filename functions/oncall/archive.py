"""What is kept of every letter that a run has touched, and the proof that none is missing: pure.

A worker's thread archives letters in chunks, before it sends or deletes any of them, and tells in a
ledger of the same name what has become of each::

    incidents/<run>/archive/<worker>-<thread>-<number>.jsonl.gz
        {"class": "replay", "rule": "", "letter": {<the message>}}
    incidents/<run>/ledger/<worker>-<thread>-<number>.jsonl.gz
        {"id": "…", "outcome": "replayed", "reason": "", "new": "…", "doubt": ""}

``class`` is what was decided, ``outcome`` what came of it. A letter's hash is its ``MD5OfBody``.
Nothing here holds more than a chunk, or a 64th of the ids, however many there are.
"""

from __future__ import annotations

import gzip
import heapq
import io
import json
import tempfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import batched, groupby, islice
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from oncall.letters import Fate, Letter

REPLAYED = "replayed"
QUARANTINED = "quarantined"
DROPPED = "dropped"
LEFT = "left"
UNKNOWN = "unknown"
"""Of a worker that died before its ledger, and not received again since."""
MAY_BE_SENT = "may_be_sent"
"""A doubt: a call that sent the letter got no answer, so it may be there once more."""
NOT_DELETED = "not_deleted"
"""A doubt: SQS has not confirmed the deletion, so it may be received again."""

_ENDING = ".jsonl.gz"
_PARTS = 64
_READERS = 10
"""As many as a client of botocore's has connections."""
_PART_IN_MEMORY = 8192
_EXAMPLES = 20
_FASTEST = 1
"""zlib's level: a fifth of the size at a third of the usual level's time."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Taken(Exception):  # noqa: N818 -- what the key is
    """There is something of this name already; it has not been written over."""


class Store(Protocol):
    """Where chunks and ledgers are read."""

    def keys(self, prefix: str) -> Iterable[str]:
        """Return the keys that begin so, in the order of their bytes (S3 ListObjectsV2's)."""

    def get(self, key: str) -> bytes:
        """Return what stands under a key."""


class Archived(NamedTuple):
    """A letter as the archive holds it."""

    letter: Letter
    then: str
    """What was decided: ``replay quarantine drop leave``"""
    rule: str


class Line(NamedTuple):
    """What has become of one letter of a chunk."""

    id: str
    outcome: str
    """``replayed quarantined dropped left``"""
    reason: str = ""
    new: str = ""
    """The ``MessageId`` that it was sent under."""
    doubt: str = ""


def archive_key(run: str, name: str) -> str:
    """Return the key of a chunk."""
    return f"incidents/{run}/archive/{name}{_ENDING}"


def ledger_key(run: str, name: str) -> str:
    """Return the key of a chunk's ledger."""
    return f"incidents/{run}/ledger/{name}{_ENDING}"


def chunk_name(worker: str, thread: int, number: int) -> str:
    """Return a chunk's name; of one thread they sort by number."""
    return f"{worker}-{thread:03}-{number:06}"


def pack_letters(letters: Iterable[tuple[Letter, Fate]]) -> bytes:
    """Return a chunk."""
    return _pack(
        {"class": fate.then, "rule": fate.why, "letter": letter} for letter, fate in letters
    )


def read_letters(chunk: bytes) -> Iterator[Archived]:
    """Read a chunk."""
    for row in _rows(chunk):
        yield Archived(row["letter"], row["class"], row["rule"])


def pack_ledger(lines: Iterable[Line]) -> bytes:
    """Return a ledger."""
    return _pack(line._asdict() for line in lines)


def read_ledger(ledger: bytes) -> Iterator[Line]:
    """Read a ledger."""
    for row in _rows(ledger):
        yield Line(**row)


def _pack(rows: Iterable[dict[str, Any]]) -> bytes:
    text = "\n".join(map(_encode, rows))
    return gzip.compress(text.encode(), _FASTEST, mtime=0)


def _rows(data: bytes) -> Iterator[Any]:
    with gzip.open(io.BytesIO(data)) as file:
        yield from map(json.loads, file)


def _chunks(store: Store, run: str) -> Iterator[tuple[str, bool, bool]]:
    """Return names of chunks, and whether there is an archive and a ledger of each."""
    files = heapq.merge(*(_files(store, run, kind) for kind in ("archive", "ledger")))
    for file, found in groupby(files, key=lambda pair: pair[0]):
        kinds = {kind for _, kind in found}
        yield file.removesuffix(_ENDING), "archive" in kinds, "ledger" in kinds


def _files(store: Store, run: str, kind: str) -> Iterator[tuple[str, str]]:
    folder = f"incidents/{run}/{kind}/"
    for key in store.keys(folder):
        yield key.removeprefix(folder), kind


def _archived(store: Store, run: str, name: str) -> Iterator[Archived]:
    return read_letters(store.get(archive_key(run, name)))


def _told(store: Store, run: str, name: str) -> Iterator[Line]:
    return read_ledger(store.get(ledger_key(run, name)))


@dataclass(frozen=True, slots=True)
class Balance:
    """What a run has archived, held against what became of it; each letter counts once."""

    archived: int
    copies: int
    """How often a letter was archived once more: it was left, or its worker died."""
    replayed: int
    quarantined: int
    dropped: int
    left: int
    """Still in the queue."""
    unknown: int
    """Of dead workers and not seen since: still in the queue, or deleted. A letter is only deleted
    once its sending is confirmed, or for good once it is quarantined or dropped in the archive."""
    possible_duplicates: int
    """Letters that may be at the destination more than once. A dead worker has sent at most the ten
    of its last call without deleting them, and those whose deletion had failed before; which of its
    chunk they are is not known, so all of it counts that came again and was replayed. Unknown ones
    come on top, where a call of the dead worker had no answer and was made again."""
    differences: int
    """Letters whose chunk has a ledger without them, or a ledger of what is not in the archive."""
    examples: tuple[str, ...]
    """Some of their ids."""
    unknown_examples: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether every archived letter is accounted for, by id and by count."""
        told = self.replayed + self.quarantined + self.dropped + self.left + self.unknown
        return not self.differences and self.archived == told


# What one chunk says of a letter, in a character; in the order in which one settles the others.
_SETTLES = (
    ("rR", REPLAYED),
    ("q", QUARANTINED),
    ("d", DROPPED),
    ("lL", LEFT),
    ("uU", UNKNOWN),
)
_ONLY_ARCHIVED = {QUARANTINED: "quarantine", DROPPED: "drop"}
_CODES = {REPLAYED: "r", QUARANTINED: "q", DROPPED: "d", LEFT: "l"}
_DEAD_SENT, _DEAD = "u", "U"
_NO_LINE, _NO_LETTER = "m", "x"


def is_told(store: Store, run: str) -> bool:
    """Return whether each chunk has its ledger; that of a dead worker never gets one."""
    return all(told for _, archived, told in _chunks(store, run) if archived)


def reconcile(store: Store, run: str) -> Balance:
    """Hold the archive against the ledgers, by id; 40 B a letter are on disk meanwhile."""
    with ExitStack() as stack:
        parts = [
            stack.enter_context(tempfile.SpooledTemporaryFile(_PART_IN_MEMORY))
            for _ in range(_PARTS)
        ]
        for chunk, told in _fetched(store, run):
            letters = () if chunk is None else read_letters(chunk)
            ledger = None if told is None else {line.id: line for line in read_ledger(told)}
            for key, code in _codes(letters, ledger):
                row = f"{code}{key}\n".encode()
                parts[zlib.crc32(row[1:]) % _PARTS].write(row)
        return _balance(parts)


def _fetched(store: Store, run: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Return each chunk and its ledger, read ahead and side by side: a read takes its time."""

    def fetch(found: tuple[str, bool, bool]) -> tuple[bytes | None, bytes | None]:
        name, archived, told = found
        return (
            store.get(archive_key(run, name)) if archived else None,
            store.get(ledger_key(run, name)) if told else None,
        )

    with ThreadPoolExecutor(_READERS) as pool:
        for some in batched(_chunks(store, run), 2 * _READERS, strict=False):
            yield from pool.map(fetch, some)


def _codes(
    letters: Iterable[Archived], ledger: dict[str, Line] | None
) -> Iterator[tuple[str, str]]:
    for letter, then, _ in letters:
        key = letter["MessageId"]
        if ledger is None:
            yield key, _DEAD_SENT if then == "replay" else _DEAD
            continue
        line = ledger.pop(key, None)
        if line is None:
            yield key, _NO_LINE
        else:
            code = _CODES[line.outcome]
            yield key, code.upper() if line.doubt and code in "rl" else code
    for key in ledger or ():
        yield key, _NO_LETTER


def _balance(parts: Iterable[IO[bytes]]) -> Balance:
    counts: Counter[str] = Counter()
    examples: list[str] = []
    unknown: list[str] = []
    for part in parts:
        said: dict[str, str] = {}
        part.seek(0)
        for row in map(bytes.decode, part):
            key = row[1:-1]
            said[key] = said.get(key, "") + row[0]
        for key, codes in said.items():
            lines = len(codes) - codes.count(_NO_LETTER)
            counts["archived"] += lines > 0
            counts["copies"] += max(0, lines - 1)
            outcome = next((word for some, word in _SETTLES if set(some) & set(codes)), "")
            counts[outcome] += 1
            counts["doubled"] += _may_be_doubled(codes)
            if _NO_LINE in codes or _NO_LETTER in codes:
                counts["differences"] += 1
                examples.append(key)
            elif outcome == UNKNOWN:
                unknown.append(key)
        del examples[_EXAMPLES:], unknown[_EXAMPLES:]
    return Balance(
        archived=counts["archived"],
        copies=counts["copies"],
        replayed=counts[REPLAYED],
        quarantined=counts[QUARANTINED],
        dropped=counts[DROPPED],
        left=counts[LEFT],
        unknown=counts[UNKNOWN],
        possible_duplicates=counts["doubled"],
        differences=counts["differences"],
        examples=tuple(examples),
        unknown_examples=tuple(unknown),
    )


def _may_be_doubled(codes: str) -> bool:
    may_be_sent = codes.count("r") + codes.count(_DEAD_SENT)
    return "R" in codes or "L" in codes or may_be_sent > 1


def not_replayed(store: Store, run: str) -> Iterator[Letter]:
    """Return the letters that only the archive holds: quarantined or dropped, each once.

    In the order in which each thread archived them. Those of dead workers come last, if nobody has
    received them again; one that was not yet deleted is in the queue as well.
    """
    found = list(_chunks(store, run))
    told = [name for name, archived, ledger in found if archived and ledger]
    dead = [name for name, archived, ledger in found if archived and not ledger]
    skip, may_come_twice = _not_deleted(store, run, told)
    gone = {
        one.letter["MessageId"]
        for name in dead
        for one in _archived(store, run, name)
        if one.then in _ONLY_ARCHIVED.values()
    }
    for name in told:
        ledger = {line.id: line.outcome for line in _told(store, run, name)}
        gone -= ledger.keys()
        for letter, _, _ in _archived(store, run, name):
            key = letter["MessageId"]
            if ledger.get(key) in _ONLY_ARCHIVED and key not in skip:
                yield letter
                if key in may_come_twice:
                    skip.add(key)
    for name in dead:
        for letter, _, _ in _archived(store, run, name):
            if letter["MessageId"] in gone:
                gone.discard(letter["MessageId"])
                yield letter


def _not_deleted(store: Store, run: str, names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return ids that may have been received again: replayed ones, and others."""
    replayed: set[str] = set()
    others: set[str] = set()
    for name in names:
        for line in _told(store, run, name):
            if line.doubt:
                (replayed if line.outcome == REPLAYED else others).add(line.id)
    return replayed, others


def replayed_ids(store: Store, run: str) -> set[str]:
    """Return the ids that a run has replayed: what another round of an archive's may skip."""
    return {
        line.id
        for name, _, told in _chunks(store, run)
        if told
        for line in _told(store, run, name)
        if line.outcome == REPLAYED
    }


def replayed_bodies(store: Store, run: str) -> Iterator[str]:
    """Return the bodies of what a run has replayed."""
    for name, archived, told in _chunks(store, run):
        if archived and told:
            sent = {line.id for line in _told(store, run, name) if line.outcome == REPLAYED}
            for letter, _, _ in _archived(store, run, name):
                if letter["MessageId"] in sent:
                    yield letter["Body"]


class ArchivedLetters:
    """Archived letters as ``mover.Source``: nothing to hide, and what is deleted is kept anyhow.

    ``skip`` are ids that another round has replayed. Threads may share it.
    """

    def __init__(self, letters: Iterable[Letter], skip: Collection[str] = ()) -> None:
        self._letters = (one for one in letters if one["MessageId"] not in skip)
        self._lock = Lock()

    def receive(
        self,
        max_messages: int,
        visibility_seconds: int,  # noqa: ARG002 -- the protocol's
        wait_seconds: int,  # noqa: ARG002 -- the protocol's
    ) -> list[Letter]:
        """Return the next letters."""
        with self._lock:
            some = list(islice(self._letters, max_messages))
        return [{**one, "ReceiptHandle": one["MessageId"]} for one in some]

    def delete(self, handles: dict[str, str]) -> set[str]:  # noqa: ARG002 -- the protocol's
        """Do nothing: the ledger says that it is replayed."""
        return set()

    def hide(self, handles: dict[str, str], seconds: int) -> set[str]:  # noqa: ARG002 -- the protocol's
        """Do nothing: what is left is left for another round."""
        return set()
