"""The incident's record: one DynamoDB table is the only truth, all that people see is a view of it.

Its items and their keys are listed in ``oncall.items``; what stands or falls together is said here.

Every write of a run is one transaction that also checks the lock's fencing token, so a step that
wakes up late writes nothing (``LockLost``). Entry ids are made by the caller from step and round:
writing the same entry twice leaves one.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Key
from botocore.exceptions import ClientError

from oncall import items
from oncall.errors import Contended, GuardRefused, LockLost, NotFound, TargetBusy
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.times import epoch, iso, parse
from oncall.writes import Writes, failures, raced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from boto3.dynamodb.conditions import ConditionBase
    from mypy_boto3_dynamodb.service_resource import Table
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

    from oncall.times import Clock

_RACES = 40
"""How often a write is tried again when another writer was faster."""
_PAGE = 50
"""Incidents that one read of the latest brings at least."""
_RUN_WAITS = 0.1
_OTHERS_WAIT = 1.0
"""Longest wait in seconds before such a try: a run goes before alarms that join its incident."""


class IncidentStore:
    """Reads and writes the incidents table; a write is one atomic ``TransactWriteItems``."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._writes = Writes(table.name, clock)

    def now(self) -> datetime:
        """Return the time that entries are stamped with."""
        return self._clock()

    # Reading

    def load(self, incident: str) -> Incident:
        """Read one incident whole, consistently. Raises ``NotFound``."""
        record: Mapping[str, Any] | None = None
        entries: list[Mapping[str, Any]] = []
        changes: list[Mapping[str, Any]] = []
        for item in self._query(Key("pk").eq(items.incident_key(incident)), ConsistentRead=True):
            kind = str(item["sk"]).partition("#")[0]
            if kind == "RECORD":
                record = item
            elif kind == "ENTRY":
                entries.append(item)
            elif kind == "CHANGE":
                changes.append(item)
        if record is None:
            raise NotFound(
                f"There is no incident {incident!r}; `runbook list` shows those there are."
            )
        return items.incident_from_item(record, entries, changes)

    def find(self, incident: str) -> Incident | None:
        """Read one incident without its entries and changes; ``None`` where there is none."""
        item = self._get(items.incident_key(incident), "RECORD")
        return items.incident_from_item(item) if item else None

    def ask(self, incident: str, ask: str) -> Ask | None:
        """Read one question with its token."""
        item = self._get(items.incident_key(incident), f"ASK#{ask}")
        return items.ask_from_item(item) if item else None

    def holder(self, target: str) -> str:
        """Return the incident that holds ``target`` now, or ``""``."""
        lock = self._get(items.target_key(target), "LOCK")
        if not lock or not lock.get("incident"):
            return ""
        return str(lock["incident"]) if parse(str(lock["expires_at"])) > self._clock() else ""

    def lease(self, lever: str, resource: str) -> Change | None:
        """Return the change that leases a setting now, if any."""
        item = self._get(items.setting_key(lever, resource), "LEASE")
        return items.change_from_item(item) if item else None

    def past_runs(self, target: str, since: datetime) -> list[Mapping[str, Any]]:
        """Return ``{"runbook", "outcome", "closed_at", "incident"}`` of runs closed since then."""
        runs = Key("pk").eq(items.target_key(target)) & Key("sk").between(
            f"RUN#{iso(since)}", "RUN#9999"
        )
        return list(self._query(runs, ConsistentRead=True))

    def opened(self, kind: str, due_before: datetime | None = None) -> list[Mapping[str, Any]]:
        """Return what is open of ``kind`` (``incident lock change report``), soonest due first.

        The index is eventually consistent: confirm with a read before acting on a row.
        """
        condition: ConditionBase = Key("open").eq(kind)
        if due_before is not None:
            condition = condition & Key("due").lte(epoch(due_before))
        return list(self._query(condition, IndexName="open-index"))

    def latest(self, limit: int, runbook: str = "") -> list[Incident]:
        """Return the incidents that started last, without entries and changes, the latest first.

        ``runbook`` leaves out the others'. The index is eventually consistent.
        """
        rows = self._query(
            Key("type").eq("incident"),
            IndexName="started-index",
            ScanIndexForward=False,
            Limit=max(limit, _PAGE),
        )
        wanted = (row for row in rows if not runbook or row["runbook"] == runbook)
        return [items.incident_from_item(row) for row in islice(wanted, limit)]

    def started(self, since: datetime) -> list[Incident]:
        """Return the incidents that started since then, latest first, without entries and changes.

        The index is eventually consistent.
        """
        rows = self._query(
            Key("type").eq("incident") & Key("started_at").gte(iso(since)),
            IndexName="started-index",
            ScanIndexForward=False,
        )
        return [items.incident_from_item(row) for row in rows]

    # The life of an incident

    def open(self, new: Incident, entry: Entry, lease: timedelta) -> Incident:
        """Take the target's lock and write the record, in one transaction; safe to repeat.

        Returns the incident as written, with its fencing token. Raises ``TargetBusy`` when another
        incident holds the target, and ``GuardRefused`` when an incident of this name has ended.
        """
        existing = self.find(new.id)
        if existing is not None:
            return _reopened(existing, new)
        now = self._clock()
        for attempt in range(_RACES):
            _back_off(attempt)
            lock = self._get(items.lock_key(new), "LOCK") or {}
            holder = str(lock.get("incident", ""))
            if holder and holder != new.id and parse(str(lock["expires_at"])) > now:
                raise TargetBusy(
                    f"Incident {holder} is already working on {new.target_name}; "
                    f"this one joins its timeline.",
                    holder,
                )
            fence = int(lock.get("fence", 0)) + 1
            incident = replace(
                new,
                fence=fence,
                started_at=iso(now),
                updated_at=iso(now),
                lease_until=iso(now + lease),
                seq=1,
            )
            try:
                self._transact(
                    [
                        self._writes.take_lock(incident, lock),
                        self._writes.put_record(incident, open_until=now + lease),
                        self._writes.put_entry(incident.id, replace(entry, seq=1, at=iso(now))),
                    ]
                )
            except ClientError as error:
                if not raced(error):
                    raise
                existing = self.find(new.id)
                if existing is not None:
                    return _reopened(existing, new)
            else:
                return replace(incident, entries=(replace(entry, seq=1, at=iso(now)),))
        raise GuardRefused(f"{new.target_name} is contended; start the run again.")

    def open_closed(self, new: Incident, *entries: Entry) -> Incident:
        """Write an incident that ended before it began (``refused``); takes no lock; repeatable."""
        now = iso(self._clock())
        closed = replace(
            new,
            status="closed",
            phase="closed",
            started_at=now,
            updated_at=now,
            closed_at=now,
            seq=len(entries),
        )
        numbered = [replace(entry, seq=n, at=now) for n, entry in enumerate(entries, 1)]
        try:
            self._transact(
                [
                    self._writes.put_record(closed, open_until=None),
                    *(self._writes.put_entry(closed.id, entry) for entry in numbered),
                ]
            )
        except ClientError as error:
            if not failures(error):
                raise
        return self.load(new.id)

    def note(self, run: Run, entry: Entry | None, **fields: Any) -> None:
        """Write a timeline entry and fields of the record, if the run still holds its lock.

        Raises ``LockLost`` otherwise. Writing the same entry again changes nothing.
        """
        self._write(run.incident, entry, fields, fence=run)

    def note_from_outside(self, incident: str, entry: Entry | None, **fields: Any) -> bool:
        """Write to an open incident from outside its run; ``False`` when it has closed."""
        try:
            self._write(incident, entry, fields, fence=None)
        except LockLost:
            return False
        return True

    def close(self, run: Run, outcome: str, summary: str, entry: Entry, **fields: Any) -> Incident:
        """Close the incident, release the lock and remember how it ended; safe to repeat.

        Raises ``LockLost`` when another run holds the target; a run that is wound down closes all
        the same and leaves the lock to the other.
        """
        now = self._clock()
        for attempt in range(_RACES):
            _back_off(attempt)
            incident = self.load(run.incident)
            if incident.status == "closed":
                return incident
            closing = {
                "status": "closed",
                "phase": "closed",
                "outcome": outcome,
                "summary": summary,
                "closed_at": iso(now),
                **fields,
            }
            release = (
                []
                if run.winding_down and not self._holds(run)
                else [self._writes.release_lock(run)]
            )
            writes: list[TransactWriteItemTypeDef] = [
                *release,
                self._writes.update_record(incident, closing, closes=True),
                self._writes.put_entry(
                    run.incident, replace(entry, seq=incident.seq + 1, at=iso(now))
                ),
                self._writes.put_ending(incident, outcome, now),
            ]
            try:
                self._transact(writes)
            except ClientError as error:
                if release and 0 in failures(error) and not run.winding_down:
                    raise LockLost(f"Another run holds {incident.target_name} now.") from error
                if not raced(error):
                    raise
            else:
                return self.load(run.incident)
        raise _contended(run.incident)

    def locks_past_lease(self) -> list[Run]:
        """Return the locks that their holders should have given back by now, for ``give_up_lock``.

        Only ``incident``, ``target``, ``mode`` and ``fence`` of each mean something.
        """
        return [
            Run(
                incident=str(row["incident"]),
                runbook="",
                target=str(row["target"]),
                mode="observe" if str(row["pk"]) != items.target_key(str(row["target"])) else "",
                fence=int(str(row["fence"])),
            )
            for row in self.opened("lock", self._clock())
        ]

    def give_up_lock(self, run: Run) -> bool:
        """Free a lock that an ended run has left; ``False`` when it is no longer that run's."""
        try:
            self._transact([self._writes.release_lock(run)])
        except ClientError as error:
            if not failures(error):
                raise
            return False
        return True

    # Changes

    def lease_change(self, run: Run, change: Change, entry: Entry, supersedes: str = "") -> None:
        """Record a change before it is made and lease its setting to this run.

        ``supersedes`` is the ended incident whose lease may be taken over. Raises ``GuardRefused``
        when another incident leases the setting, ``LockLost`` as ever.
        """
        stamped = replace(change, incident=run.incident, recorded_at=iso(self._clock()))
        lease = self._writes.take_lease(stamped, supersedes or run.incident)
        try:
            self._write(
                run.incident,
                entry,
                {"phase": "acting"},
                fence=run,
                extra=[self._writes.put_change(stamped), lease],
            )
        except _ExtraRefused as error:
            held = self.lease(change.lever, change.resource)
            holder = held.incident if held else "another incident"
            raise GuardRefused(
                f"{change.name} is leased to incident {holder}, which has changed it and will put "
                f"it back; wait for it to close, or take that incident over."
            ) from error

    def update_change(self, run: Run, change: Change, entry: Entry, **fields: Any) -> None:
        """Write a change's new state; an ended one gives its lease back."""
        put = self._writes.put_change(change)
        give_back = self._writes.give_lease_back(run, change)
        extra: list[Any] = [put] if change.standing else [put, give_back]
        try:
            self._write(run.incident, entry, fields, fence=run, extra=extra)
        except _ExtraRefused:
            # A later incident has taken the lease over: it is that one's to give back.
            self._write(run.incident, entry, fields, fence=run, extra=[put])

    # Questions

    def put_ask(self, run: Run, ask: Ask, entry: Entry, **fields: Any) -> None:
        """Write a question with its task token; the record shows it without the token.

        A task that is tried again has another token: the question stays as it is, answered or not,
        and its answer goes to the new one.
        """
        if self.ask(run.incident, ask.id) is not None:
            renewal = self._writes.renew_token(run.incident, ask)
            self._write(run.incident, None, {}, fence=run, extra=[renewal])
            return
        put = self._writes.put_ask(run.incident, ask)
        fields = {"ask": items.shown(ask), "phase": "waiting", **fields}
        self._write(run.incident, entry, fields, fence=run, extra=[put])

    def decide(self, incident: str, before: Ask, after: Ask, entry: Entry, **fields: Any) -> bool:
        """Write a decision if nobody has decided since ``before`` was read.

        Returns ``False`` when someone was faster or the incident has closed: the first wins.
        """
        update = self._writes.answer_ask(incident, before, after)
        try:
            self._write(
                incident,
                entry,
                {"ask": items.shown(after), **fields},
                fence=None,
                extra=[update],
                asking=before.id,
            )
        except (_ExtraRefused, LockLost):
            return False
        return True

    def ask_delivered(self, incident: str, ask: str) -> None:
        """Remember that Step Functions has been told the decision."""
        self._table.update_item(
            Key={"pk": items.incident_key(incident), "sk": f"ASK#{ask}"},
            UpdateExpression="SET delivered = :yes",
            ConditionExpression="attribute_exists(pk)",
            ExpressionAttributeValues={":yes": True},
        )

    # Small things

    def count(self, name: str, window: timedelta) -> int:
        """Count one more ``name`` in the current window and return how many there are."""
        now = epoch(self._clock())
        seconds = int(window.total_seconds())
        bucket = now - now % seconds
        answer = self._table.update_item(
            Key={"pk": f"COUNT#{name}#{bucket}", "sk": "COUNT"},
            UpdateExpression="ADD n :one SET #ttl = :ttl",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={":one": 1, ":ttl": bucket + 2 * seconds + 3600},
            ReturnValues="UPDATED_NEW",
        )
        return int(str(answer["Attributes"]["n"]))

    def first_time(self, digest: str, keep: timedelta) -> bool:
        """Use up ``digest``; ``False`` when it has been used before."""
        try:
            self._table.put_item(
                Item={
                    "pk": f"SEEN#{digest}",
                    "sk": "SEEN",
                    "ttl": epoch(self._clock() + keep),
                },
                ConditionExpression="attribute_not_exists(pk)",
            )
        except self._table.meta.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def report_state(self, incident: str) -> dict[str, Any]:
        """Return what the channels have been told of an incident (``{}`` at first)."""
        item = self._get(items.incident_key(incident), "REPORT")
        return json.loads(str(item["state"])) if item else {}

    # Readiness

    def put_readiness(self, service: str, found: Mapping[str, Any]) -> None:
        """Remember what was found of a service, which lets the report tell what is news."""
        self._put_readiness(service, "RECORD", found)

    def readiness(self, service: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return what was found of a service last, and what people have been told; ``{}``: none."""
        items_ = (self._get(items.readiness_key(service), sk) for sk in ("RECORD", "TOLD"))
        found, told = (json.loads(str(item["found"])) if item else {} for item in items_)
        return found, told

    def readiness_told(self, service: str, found: Mapping[str, Any]) -> None:
        """Remember that people have been told of what was found."""
        self._put_readiness(service, "TOLD", found)

    def _put_readiness(self, service: str, sk: str, found: Mapping[str, Any]) -> None:
        self._table.put_item(
            Item={
                "pk": items.readiness_key(service),
                "sk": sk,
                "type": "readiness",
                "found": json.dumps(found, separators=(",", ":")),
                # A write that changes nothing is no event of the table's stream, and what nobody
                # was told yet would never be (DynamoDB Developer Guide, "Change data capture").
                "at": iso(self._clock()),
            }
        )

    def put_report_state(self, incident: str, state: Mapping[str, Any], *, owed: bool) -> None:
        """Remember what has been told; ``owed`` lets the sweeper send the rest."""
        now = epoch(self._clock())
        item: dict[str, Any] = {
            "pk": items.incident_key(incident),
            "sk": "REPORT",
            "type": "report",
            "incident": incident,
            "state": json.dumps(state),
            "ttl": epoch(self._clock() + items.KEEP_INCIDENTS),
        }
        if owed:
            item |= {"open": "report", "due": now}
        self._table.put_item(Item=item)

    def claim_report(self, incident: str, lease: timedelta) -> bool:
        """Take the right to report an incident: the stream and the sweeper may meet."""
        now = self._clock()
        try:
            self._table.put_item(
                Item={
                    "pk": items.incident_key(incident),
                    "sk": "REPORTING",
                    "type": "reporting",
                    "incident": incident,
                    "until": epoch(now + lease),
                    # Left behind by a crash, it reminds the sweeper.
                    "open": "report",
                    "due": epoch(now + lease),
                    "ttl": epoch(now + lease + items.KEEP_INCIDENTS),
                },
                ConditionExpression="attribute_not_exists(pk) OR #until < :now",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues={":now": epoch(now)},
            )
        except self._table.meta.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def release_report(self, incident: str) -> None:
        """Give the right to report back; the row stays, for nothing of an incident is deleted."""
        self._table.update_item(
            Key={"pk": items.incident_key(incident), "sk": "REPORTING"},
            UpdateExpression="SET #until = :free REMOVE #open, due",
            ExpressionAttributeNames={"#until": "until", "#open": "open"},
            ExpressionAttributeValues={":free": 0},
        )

    # How it is written

    def _write(
        self,
        incident_id: str,
        entry: Entry | None,
        fields: Mapping[str, Any],
        *,
        fence: Run | None,
        extra: Iterable[Any] = (),
        asking: str = "",
    ) -> None:
        """Write in one transaction; ``asking`` is the question that the record must show still."""
        extras = list(extra)
        winding_down = fence is not None and fence.winding_down
        for attempt in range(_RACES):
            _back_off(attempt, _RUN_WAITS if fence else _OTHERS_WAIT)
            incident = self.find(incident_id)
            if incident is None:
                raise NotFound(f"There is no incident {incident_id!r}.")
            if incident.status != "open" and not winding_down:
                raise LockLost(f"Incident {incident_id} has closed ({incident.outcome}).")
            if asking and incident.ask.get("id") != asking:
                raise _ExtraRefused
            if incident.status != "open":
                # What is put back after the end belongs into the timeline; how it ended stays.
                fields = {}
            guard = [self._writes.check_lock(fence)] if fence and not winding_down else []
            now = iso(self._clock())
            writes = [*guard, self._writes.update_record(incident, fields)]
            entry_at = -1
            if entry is not None:
                entry_at = len(writes)
                writes.append(
                    self._writes.put_entry(
                        incident_id, replace(entry, seq=incident.seq + 1, at=now)
                    )
                )
            extra_at = len(writes)
            try:
                self._transact([*writes, *extras])
            except ClientError as error:
                failed = failures(error)
                lock_lost = bool(guard) and 0 in failed
                if entry_at in failed and max(failed) < extra_at and not lock_lost:
                    return
                _judge(error, fence if guard else None, incident, extra_at)
            else:
                return
        raise _contended(incident_id)

    def _holds(self, run: Run) -> bool:
        lock = self._get(items.lock_key(run), "LOCK") or {}
        return (lock.get("incident"), lock.get("fence")) == (run.incident, run.fence)

    def _transact(self, writes: list[TransactWriteItemTypeDef]) -> None:
        self._table.meta.client.transact_write_items(TransactItems=writes)

    def _get(self, pk: str, sk: str) -> Mapping[str, Any] | None:
        return self._table.get_item(Key={"pk": pk, "sk": sk}, ConsistentRead=True).get("Item")

    def _query(self, condition: ConditionBase, **how: Any) -> Iterator[Mapping[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            page = self._table.query(KeyConditionExpression=condition, **how, **start)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _back_off(attempt: int, longest: float = _RUN_WAITS) -> None:
    """Wait a random while before another try, so that writers stop meeting each other."""
    if attempt:
        time.sleep(random.uniform(0, min(longest, 0.01 * 2**attempt)))  # noqa: S311 -- no secret


def _contended(incident: str) -> Contended:
    return Contended(f"Incident {incident} is written to by too many at once; try again.")


class _ExtraRefused(Exception):  # noqa: N818 -- private signal, never leaves this module
    """The condition of an additional write failed."""


def _judge(error: ClientError, fence: Run | None, incident: Incident, extra_at: int) -> None:
    """Raise what a failed write means; return when it only lost a race and may try again."""
    failed = failures(error)
    if fence and 0 in failed:
        raise LockLost(
            f"Another run holds {incident.target_name}; this step came too late."
        ) from error
    if any(index >= extra_at for index in failed):
        raise _ExtraRefused from error
    if not raced(error):
        raise error


def _reopened(existing: Incident, new: Incident) -> Incident:
    """Return the incident that an earlier attempt of the same execution has opened."""
    if existing.execution != new.execution:
        raise GuardRefused(
            f"An incident named {new.id} exists already, from another execution; start the run "
            f"again and leave the execution's name to AWS."
        )
    if existing.status != "open":
        raise GuardRefused(
            f"Incident {new.id} has ended ({existing.outcome}); start a new execution instead."
        )
    return existing
