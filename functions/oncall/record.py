"""The incident's record: one DynamoDB table is the only truth, all that people see is a view of it.

Items (``pk`` / ``sk``):

- ``INCIDENT#<id>`` / ``RECORD``: the incident; ``ENTRY#<entry id>``: its timeline, by
  ``seq``; ``CHANGE#<lever>#<resource>``: what it changed; ``ASK#<ask id>``: a question with its
  task token; ``REPORT``: what Slack and PagerDuty have been told.
- ``TARGET#<target>`` / ``LOCK``: who holds the target, with the fencing token;
  ``RUN#<time>#<id>``: how earlier runs on it ended (cooldown and breaker read this).
- ``SETTING#<lever>#<resource>`` / ``LEASE``: a changed setting belongs to one incident at a time.
- ``COUNT#<name>#<window>`` / ``COUNT``: rates. ``SEEN#<digest>`` / ``SEEN``: requests used up.

The sparse index ``open-index`` (``open``, ``due``) holds what the sweeper looks after: open
incidents, held locks, leased settings and reports that are owed.

Every write of a run is one transaction that also checks the lock's fencing token, so a step that
wakes up late writes nothing (``LockLost``). Entry ids are made by the caller from step and round:
writing the same entry twice leaves one.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Key
from botocore.exceptions import ClientError

from oncall.errors import Contended, GuardRefused, LockLost, NotFound, TargetBusy
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.times import epoch, iso, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from boto3.dynamodb.conditions import ConditionBase
    from mypy_boto3_dynamodb.service_resource import Table
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

    from oncall.times import Clock

KEEP_INCIDENTS = timedelta(days=400)
_RACES = 40
"""How often a write is tried again when another writer was faster."""
_RUN_WAITS = 0.1
_OTHERS_WAIT = 1.0
"""Longest wait in seconds before such a try: a run goes before alarms that join its incident."""


_JSON_FIELDS = frozenset({"trigger", "plan", "progress", "ask", "stop"})
_RECORD_FIELDS = tuple(
    name for name in Incident.__dataclass_fields__ if name not in {"entries", "changes"}
)


def _lock_key(holder: Run | Incident) -> str:
    """Return the lock's partition key; a run that only observes holds a lock of its own."""
    incident = holder.incident if isinstance(holder, Run) else holder.id
    suffix = f"#observe#{incident}" if holder.mode == "observe" else ""
    return f"TARGET#{holder.target}{suffix}"


def _incident_key(incident: str) -> str:
    return f"INCIDENT#{incident}"


def _to_attributes(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value, separators=(",", ":")) if name in _JSON_FIELDS else value
        for name, value in fields.items()
    }


def incident_from_item(
    item: Mapping[str, Any],
    entries: Iterable[Mapping[str, Any]] = (),
    changes: Iterable[Mapping[str, Any]] = (),
) -> Incident:
    """Read the incident's items back into values."""
    values: dict[str, Any] = {}
    for name in _RECORD_FIELDS:
        if name not in item:
            continue
        value = item[name]
        if name in _JSON_FIELDS:
            value = json.loads(value)
        elif name in {"seq", "fence"}:
            value = int(value)
        values[name] = value
    return Incident(
        **values,
        entries=tuple(sorted((_entry_from_item(e) for e in entries), key=lambda e: e.seq)),
        changes=tuple(
            sorted((change_from_item(c) for c in changes), key=lambda c: (c.recorded_at, c.lever))
        ),
    )


def _entry_from_item(item: Mapping[str, Any]) -> Entry:
    return Entry(
        id=item["id"],
        kind=item["kind"],
        text=item["text"],
        at=item["at"],
        seq=int(item["seq"]),
        data=json.loads(item["data"]),
        severity=item.get("severity", ""),
    )


def change_from_item(item: Mapping[str, Any]) -> Change:
    """Read a ``CHANGE#`` item back."""
    names = Change.__dataclass_fields__
    values = {name: item[name] for name in names if name in item}
    values["before"] = json.loads(item["before"])
    values["after"] = json.loads(item["after"])
    return Change(**values)


def _change_attributes(change: Change) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(change, name) for name in Change.__dataclass_fields__}
    values["before"] = json.dumps(change.before)
    values["after"] = json.dumps(change.after)
    return values


def _ask_from_item(item: Mapping[str, Any]) -> Ask:
    return Ask(
        id=item["id"],
        plan_hash=item["plan_hash"],
        token=item["token"],
        deadline=item["deadline"],
        people=int(item["people"]),
        level=int(item["level"]),
        state=item["state"],
        approvals=tuple(json.loads(item["approvals"])),
        delivered=bool(item["delivered"]),
    )


def _shown(ask: Ask) -> dict[str, Any]:
    """Return what the record shows of a question: never the token."""
    return {
        "id": ask.id,
        "deadline": ask.deadline,
        "people": ask.people,
        "level": ask.level,
        "state": ask.state,
        "approvals": list(ask.approvals),
    }


def _cancel_codes(error: ClientError) -> list[str]:
    reasons = error.response.get("CancellationReasons", [])
    return [str(reason.get("Code", "None")) for reason in reasons]


class IncidentStore:
    """Reads and writes the incidents table; a write is one atomic ``TransactWriteItems``."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def now(self) -> datetime:
        """Return the time that entries are stamped with."""
        return self._clock()

    # Reading

    def load(self, incident: str) -> Incident:
        """Read one incident whole, consistently. Raises ``NotFound``."""
        record: Mapping[str, Any] | None = None
        entries: list[Mapping[str, Any]] = []
        changes: list[Mapping[str, Any]] = []
        for item in self._query(_incident_key(incident)):
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
        return incident_from_item(record, entries, changes)

    def find(self, incident: str) -> Incident | None:
        """Read one incident without its entries and changes; ``None`` where there is none."""
        item = self._get(_incident_key(incident), "RECORD")
        return incident_from_item(item) if item else None

    def ask(self, incident: str, ask: str) -> Ask | None:
        """Read one question with its token."""
        item = self._get(_incident_key(incident), f"ASK#{ask}")
        return _ask_from_item(item) if item else None

    def holder(self, target: str) -> str:
        """Return the incident that holds ``target`` now, or ``""``."""
        lock = self._get(f"TARGET#{target}", "LOCK")
        if not lock or not lock.get("incident"):
            return ""
        return str(lock["incident"]) if parse(str(lock["expires_at"])) > self._clock() else ""

    def lease(self, lever: str, resource: str) -> Change | None:
        """Return the change that leases a setting now, if any."""
        item = self._get(f"SETTING#{lever}#{resource}", "LEASE")
        return change_from_item(item) if item else None

    def past_runs(self, target: str, since: datetime) -> list[Mapping[str, Any]]:
        """Return ``{"runbook", "outcome", "closed_at", "incident"}`` of runs closed since then."""
        runs = self._query(f"TARGET#{target}", between=(f"RUN#{iso(since)}", "RUN#9999"))
        return list(runs)

    def opened(self, kind: str, due_before: datetime | None = None) -> list[Mapping[str, Any]]:
        """Return what is open of ``kind`` (``incident lock change report``), soonest due first.

        The index is eventually consistent: confirm with a read before acting on a row.
        """
        condition: ConditionBase = Key("open").eq(kind)
        if due_before is not None:
            condition = condition & Key("due").lte(epoch(due_before))
        rows: list[Mapping[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            page = self._table.query(
                IndexName="open-index", KeyConditionExpression=condition, **start
            )
            rows += page["Items"]
            if "LastEvaluatedKey" not in page:
                return rows
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

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
            lock = self._get(_lock_key(new), "LOCK") or {}
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
                        self._lock_write(incident, lock),
                        self._put_record(incident, open_until=now + lease),
                        self._put_entry(incident.id, replace(entry, seq=1, at=iso(now))),
                    ]
                )
            except ClientError as error:
                if "ConditionalCheckFailed" not in _cancel_codes(error) and not _conflict(error):
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
                    self._put_record(closed, open_until=None),
                    *(self._put_entry(closed.id, entry) for entry in numbered),
                ]
            )
        except ClientError as error:
            if not _failed(error):
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
            release = [] if run.winding_down and not self._holds(run) else [self._release(run)]
            writes: list[TransactWriteItemTypeDef] = [
                *release,
                self._update_record(incident, closing, closes=True),
                self._put_entry(run.incident, replace(entry, seq=incident.seq + 1, at=iso(now))),
                {
                    "Put": {
                        "TableName": self._table.name,
                        "Item": {
                            "pk": f"TARGET#{incident.target}",
                            "sk": f"RUN#{iso(now)}#{run.incident}",
                            "type": "run",
                            "runbook": incident.runbook,
                            "incident": run.incident,
                            "outcome": outcome,
                            "mode": incident.mode,
                            "closed_at": iso(now),
                            "ttl": epoch(now + KEEP_INCIDENTS),
                        },
                    }
                },
            ]
            try:
                self._transact(writes)
            except ClientError as error:
                codes = _cancel_codes(error)
                if release and codes[:1] == ["ConditionalCheckFailed"] and not run.winding_down:
                    raise LockLost(f"Another run holds {incident.target_name} now.") from error
                if not _raced(error):
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
                mode="observe" if str(row["pk"]) != f"TARGET#{row['target']}" else "",
                fence=int(str(row["fence"])),
            )
            for row in self.opened("lock", self._clock())
        ]

    def give_up_lock(self, run: Run) -> bool:
        """Free a lock that an ended run has left; ``False`` when it is no longer that run's."""
        try:
            self._transact([self._release(run)])
        except ClientError as error:
            if not _failed(error):
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
        attributes = _change_attributes(stamped)
        lease = {
            "Put": {
                "TableName": self._table.name,
                "Item": {
                    "pk": f"SETTING#{change.lever}#{change.resource}",
                    "sk": "LEASE",
                    "type": "lease",
                    **attributes,
                    "open": "change",
                    "due": epoch(parse(change.expires_at)),
                },
                "ConditionExpression": (
                    "attribute_not_exists(pk) OR incident = :incident OR incident = :ended"
                ),
                "ExpressionAttributeValues": {
                    ":incident": run.incident,
                    ":ended": supersedes or run.incident,
                },
            }
        }
        try:
            self._write(
                run.incident,
                entry,
                {"phase": "acting"},
                fence=run,
                extra=[self._put_change(stamped), lease],
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
        put = self._put_change(change)
        give_back = {
            "Delete": {
                "TableName": self._table.name,
                "Key": {"pk": f"SETTING#{change.lever}#{change.resource}", "sk": "LEASE"},
                "ConditionExpression": "attribute_not_exists(pk) OR incident = :incident",
                "ExpressionAttributeValues": {":incident": run.incident},
            }
        }
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
            self._write(run.incident, None, {}, fence=run, extra=[self._new_token(run, ask)])
            return
        item = {
            "pk": _incident_key(run.incident),
            "sk": f"ASK#{ask.id}",
            "type": "ask",
            "id": ask.id,
            "plan_hash": ask.plan_hash,
            "token": ask.token,
            "deadline": ask.deadline,
            "people": ask.people,
            "level": ask.level,
            "state": ask.state,
            "approvals": json.dumps(list(ask.approvals)),
            "delivered": ask.delivered,
            "ttl": epoch(self._clock() + KEEP_INCIDENTS),
        }
        put = {"Put": {"TableName": self._table.name, "Item": item}}
        fields = {"ask": _shown(ask), "phase": "waiting", **fields}
        self._write(run.incident, entry, fields, fence=run, extra=[put])

    def _new_token(self, run: Run, ask: Ask) -> TransactWriteItemTypeDef:
        return {
            "Update": {
                "TableName": self._table.name,
                "Key": {"pk": _incident_key(run.incident), "sk": f"ASK#{ask.id}"},
                "UpdateExpression": "SET #token = :token, delivered = :no",
                "ExpressionAttributeNames": {"#token": "token"},
                "ExpressionAttributeValues": {":token": ask.token, ":no": False},
            }
        }

    def decide(self, incident: str, before: Ask, after: Ask, entry: Entry, **fields: Any) -> bool:
        """Write a decision if nobody has decided since ``before`` was read.

        Returns ``False`` when someone was faster or the incident has closed: the first wins.
        """
        update = {
            "Update": {
                "TableName": self._table.name,
                "Key": {"pk": _incident_key(incident), "sk": f"ASK#{before.id}"},
                "UpdateExpression": (
                    "SET #state = :state, approvals = :approvals, deadline = :deadline"
                ),
                "ConditionExpression": "#state = :was AND approvals = :seen",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": {
                    ":state": after.state,
                    ":was": before.state,
                    ":approvals": json.dumps(list(after.approvals)),
                    ":seen": json.dumps(list(before.approvals)),
                    ":deadline": after.deadline,
                },
            }
        }
        try:
            self._write(
                incident,
                entry,
                {"ask": _shown(after), **fields},
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
            Key={"pk": _incident_key(incident), "sk": f"ASK#{ask}"},
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
        item = self._get(_incident_key(incident), "REPORT")
        return json.loads(str(item["state"])) if item else {}

    def put_report_state(self, incident: str, state: Mapping[str, Any], *, owed: bool) -> None:
        """Remember what has been told; ``owed`` lets the sweeper send the rest."""
        now = epoch(self._clock())
        item: dict[str, Any] = {
            "pk": _incident_key(incident),
            "sk": "REPORT",
            "type": "report",
            "incident": incident,
            "state": json.dumps(state),
            "ttl": epoch(self._clock() + KEEP_INCIDENTS),
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
                    "pk": _incident_key(incident),
                    "sk": "REPORTING",
                    "type": "reporting",
                    "incident": incident,
                    "until": epoch(now + lease),
                    # Left behind by a crash, it reminds the sweeper.
                    "open": "report",
                    "due": epoch(now + lease),
                    "ttl": epoch(now + lease + KEEP_INCIDENTS),
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
            Key={"pk": _incident_key(incident), "sk": "REPORTING"},
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
            guard = [self._lock_check(fence)] if fence and not winding_down else []
            now = iso(self._clock())
            writes = [*guard, self._update_record(incident, fields)]
            entry_at = -1
            if entry is not None:
                entry_at = len(writes)
                writes.append(
                    self._put_entry(incident_id, replace(entry, seq=incident.seq + 1, at=now))
                )
            extra_at = len(writes)
            try:
                self._transact([*writes, *extras])
            except ClientError as error:
                failed = _failed(error)
                lock_lost = bool(guard) and 0 in failed
                if entry_at in failed and max(failed) < extra_at and not lock_lost:
                    return
                _judge(error, fence if guard else None, incident, extra_at)
            else:
                return
        raise _contended(incident_id)

    def _lock_write(self, incident: Incident, seen: Mapping[str, Any]) -> TransactWriteItemTypeDef:
        condition = "attribute_not_exists(pk)"
        values: dict[str, Any] = {}
        if seen:
            condition = "fence = :seen AND incident = :holder"
            values = {":seen": seen["fence"], ":holder": seen["incident"]}
        put: dict[str, Any] = {
            "TableName": self._table.name,
            "Item": {
                "pk": _lock_key(incident),
                "sk": "LOCK",
                "type": "lock",
                "target": incident.target,
                "incident": incident.id,
                "fence": incident.fence,
                "expires_at": incident.lease_until,
                "open": "lock",
                "due": epoch(parse(incident.lease_until)),
            },
            "ConditionExpression": condition,
        }
        if values:
            put["ExpressionAttributeValues"] = values
        return {"Put": put}  # type: ignore[typeddict-item]  # built in two steps

    def _holds(self, run: Run) -> bool:
        lock = self._get(_lock_key(run), "LOCK") or {}
        return (lock.get("incident"), lock.get("fence")) == (run.incident, run.fence)

    def _lock_check(self, run: Run) -> TransactWriteItemTypeDef:
        return {
            "ConditionCheck": {
                "TableName": self._table.name,
                "Key": {"pk": _lock_key(run), "sk": "LOCK"},
                "ConditionExpression": "incident = :incident AND fence = :fence",
                "ExpressionAttributeValues": {":incident": run.incident, ":fence": run.fence},
            }
        }

    def _release(self, run: Run) -> TransactWriteItemTypeDef:
        """Free the lock but keep its fence, so that the next holder's token is higher."""
        return {
            "Update": {
                "TableName": self._table.name,
                "Key": {"pk": _lock_key(run), "sk": "LOCK"},
                "UpdateExpression": "SET incident = :none REMOVE #open, due",
                "ConditionExpression": "incident = :incident AND fence = :fence",
                "ExpressionAttributeNames": {"#open": "open"},
                "ExpressionAttributeValues": {
                    ":none": "",
                    ":incident": run.incident,
                    ":fence": run.fence,
                },
            }
        }

    def _put_record(
        self, incident: Incident, open_until: datetime | None
    ) -> TransactWriteItemTypeDef:
        fields = {name: getattr(incident, name) for name in _RECORD_FIELDS}
        item: dict[str, Any] = {
            "pk": _incident_key(incident.id),
            "sk": "RECORD",
            "type": "incident",
            **_to_attributes(fields),
            "ttl": epoch(self._clock() + KEEP_INCIDENTS),
        }
        if open_until is not None:
            item |= {"open": "incident", "due": epoch(open_until)}
        return {
            "Put": {
                "TableName": self._table.name,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _update_record(
        self, incident: Incident, fields: Mapping[str, Any], *, closes: bool = False
    ) -> TransactWriteItemTypeDef:
        """Update under the sequence number that was read: entries get gapless, ordered numbers."""
        values = {
            **_to_attributes(fields),
            "seq": incident.seq + 1,
            "updated_at": iso(self._clock()),
        }
        names = {f"#{name}": name for name in values}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in values)
        if closes:
            names |= {"#open": "open", "#due": "due"}
            expression += " REMOVE #open, #due"
        return {
            "Update": {
                "TableName": self._table.name,
                "Key": {"pk": _incident_key(incident.id), "sk": "RECORD"},
                "UpdateExpression": expression,
                "ConditionExpression": "#seq = :seen AND #status = :still",
                "ExpressionAttributeNames": {**names, "#seq": "seq", "#status": "status"},
                "ExpressionAttributeValues": {
                    **{f":{name}": value for name, value in values.items()},
                    ":seen": incident.seq,
                    ":still": incident.status,
                },
            }
        }

    def _put_entry(self, incident: str, entry: Entry) -> TransactWriteItemTypeDef:
        return {
            "Put": {
                "TableName": self._table.name,
                "Item": {
                    "pk": _incident_key(incident),
                    "sk": f"ENTRY#{entry.id}",
                    "type": "entry",
                    "id": entry.id,
                    "kind": entry.kind,
                    "text": entry.text,
                    "at": entry.at,
                    "seq": entry.seq,
                    "data": json.dumps(dict(entry.data), separators=(",", ":")),
                    "severity": entry.severity,
                    "ttl": epoch(self._clock() + KEEP_INCIDENTS),
                },
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _put_change(self, change: Change) -> TransactWriteItemTypeDef:
        return {
            "Put": {
                "TableName": self._table.name,
                "Item": {
                    "pk": _incident_key(change.incident),
                    "sk": f"CHANGE#{change.lever}#{change.resource}",
                    "type": "change",
                    **_change_attributes(change),
                    "ttl": epoch(self._clock() + KEEP_INCIDENTS),
                },
            }
        }

    def _transact(self, items: list[TransactWriteItemTypeDef]) -> None:
        self._table.meta.client.transact_write_items(TransactItems=items)

    def _get(self, pk: str, sk: str) -> Mapping[str, Any] | None:
        return self._table.get_item(Key={"pk": pk, "sk": sk}, ConsistentRead=True).get("Item")

    def _query(
        self, pk: str, between: tuple[str, str] | None = None
    ) -> Iterable[Mapping[str, Any]]:
        condition: ConditionBase = Key("pk").eq(pk)
        if between:
            condition = condition & Key("sk").between(*between)
        start: dict[str, Any] = {}
        while True:
            page = self._table.query(KeyConditionExpression=condition, ConsistentRead=True, **start)
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


def _failed(error: ClientError) -> set[int]:
    """Return the positions of a transaction's writes whose conditions failed."""
    codes = _cancel_codes(error)
    return {index for index, code in enumerate(codes) if code == "ConditionalCheckFailed"}


def _judge(error: ClientError, fence: Run | None, incident: Incident, extra_at: int) -> None:
    """Raise what a failed write means; return when it only lost a race and may try again."""
    failed = _failed(error)
    if fence and 0 in failed:
        raise LockLost(
            f"Another run holds {incident.target_name}; this step came too late."
        ) from error
    if any(index >= extra_at for index in failed):
        raise _ExtraRefused from error
    if not _raced(error):
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


def _conflict(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in {
        "TransactionConflictException",
        "TransactionInProgressException",
    } or "TransactionConflict" in _cancel_codes(error)


def _raced(error: ClientError) -> bool:
    return _conflict(error) or bool(_failed(error))
