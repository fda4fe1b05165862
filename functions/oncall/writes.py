"""The writes that a transaction of the record is made of, each with its condition, and its refusal.

``oncall.record`` puts them together: which writes stand or fall as one is decided there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import items
from oncall.times import epoch, iso, parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from botocore.exceptions import ClientError
    from mypy_boto3_dynamodb.type_defs import PutTypeDef, TransactWriteItemTypeDef

    from oncall.incident import Ask, Change, Entry, Incident, Run
    from oncall.times import Clock


class Writes:
    """Builds writes to one table."""

    def __init__(self, table: str, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    # The lock

    def take_lock(self, incident: Incident, seen: Mapping[str, Any]) -> TransactWriteItemTypeDef:
        """Take the target's lock, if it is still as ``seen`` (``{}`` for none)."""
        put: PutTypeDef = {
            "TableName": self._table,
            "Item": {
                "pk": items.lock_key(incident),
                "sk": "LOCK",
                "type": "lock",
                "target": incident.target,
                "incident": incident.id,
                "fence": incident.fence,
                "expires_at": incident.lease_until,
                "open": "lock",
                "due": epoch(parse(incident.lease_until)),
            },
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        if seen:
            put["ConditionExpression"] = "fence = :seen AND incident = :holder"
            put["ExpressionAttributeValues"] = {
                ":seen": seen["fence"],
                ":holder": seen["incident"],
            }
        return {"Put": put}

    def check_lock(self, run: Run) -> TransactWriteItemTypeDef:
        """Check that a run holds its lock."""
        return {
            "ConditionCheck": {
                "TableName": self._table,
                "Key": {"pk": items.lock_key(run), "sk": "LOCK"},
                "ConditionExpression": "incident = :incident AND fence = :fence",
                "ExpressionAttributeValues": {":incident": run.incident, ":fence": run.fence},
            }
        }

    def release_lock(self, run: Run) -> TransactWriteItemTypeDef:
        """Free the lock but keep its fence, so that the next holder's token is higher."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": {"pk": items.lock_key(run), "sk": "LOCK"},
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

    # The incident

    def put_record(
        self, incident: Incident, open_until: datetime | None
    ) -> TransactWriteItemTypeDef:
        """Write a new incident; ``open_until`` is when the sweeper has to look after it."""
        item: dict[str, Any] = {
            "pk": items.incident_key(incident.id),
            "sk": "RECORD",
            "type": "incident",
            **items.record_attributes(incident),
            "ttl": self._ttl(),
        }
        if open_until is not None:
            item |= {"open": "incident", "due": epoch(open_until)}
        return {
            "Put": {
                "TableName": self._table,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def update_record(
        self, incident: Incident, fields: Mapping[str, Any], *, closes: bool = False
    ) -> TransactWriteItemTypeDef:
        """Update under the sequence number that was read: entries get gapless, ordered numbers."""
        values = {
            **items.attributes(fields),
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
                "TableName": self._table,
                "Key": {"pk": items.incident_key(incident.id), "sk": "RECORD"},
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

    def put_entry(self, incident: str, entry: Entry) -> TransactWriteItemTypeDef:
        """Write an entry, once."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    "pk": items.incident_key(incident),
                    "sk": f"ENTRY#{entry.id}",
                    "type": "entry",
                    **items.entry_attributes(entry),
                    "ttl": self._ttl(),
                },
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def put_ending(
        self, incident: Incident, outcome: str, closed: datetime
    ) -> TransactWriteItemTypeDef:
        """Remember at the target how a run on it ended."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    "pk": items.target_key(incident.target),
                    "sk": f"RUN#{iso(closed)}#{incident.id}",
                    "type": "run",
                    "runbook": incident.runbook,
                    "incident": incident.id,
                    "outcome": outcome,
                    "mode": incident.mode,
                    "closed_at": iso(closed),
                    "ttl": epoch(closed + items.KEEP_INCIDENTS),
                },
            }
        }

    # Changes

    def put_change(self, change: Change) -> TransactWriteItemTypeDef:
        """Write a change as it is now."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    "pk": items.incident_key(change.incident),
                    "sk": f"CHANGE#{change.lever}#{change.resource}",
                    "type": "change",
                    **items.change_attributes(change),
                    "ttl": self._ttl(),
                },
            }
        }

    def take_lease(self, change: Change, ended: str) -> TransactWriteItemTypeDef:
        """Lease a setting, if it is free, leased to the incident already, or to ``ended``."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    "pk": items.setting_key(change.lever, change.resource),
                    "sk": "LEASE",
                    "type": "lease",
                    **items.change_attributes(change),
                    "open": "change",
                    "due": epoch(parse(change.expires_at)),
                },
                "ConditionExpression": (
                    "attribute_not_exists(pk) OR incident = :incident OR incident = :ended"
                ),
                "ExpressionAttributeValues": {":incident": change.incident, ":ended": ended},
            }
        }

    def give_lease_back(self, run: Run, change: Change) -> TransactWriteItemTypeDef:
        """End a lease, if it is the run's."""
        return {
            "Delete": {
                "TableName": self._table,
                "Key": {"pk": items.setting_key(change.lever, change.resource), "sk": "LEASE"},
                "ConditionExpression": "attribute_not_exists(pk) OR incident = :incident",
                "ExpressionAttributeValues": {":incident": run.incident},
            }
        }

    # Questions

    def put_ask(self, incident: str, ask: Ask) -> TransactWriteItemTypeDef:
        """Write a question."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    "pk": items.incident_key(incident),
                    "sk": f"ASK#{ask.id}",
                    "type": "ask",
                    **items.ask_attributes(ask),
                    "ttl": self._ttl(),
                },
            }
        }

    def renew_token(self, incident: str, ask: Ask) -> TransactWriteItemTypeDef:
        """Let a question's answer go to another task."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": {"pk": items.incident_key(incident), "sk": f"ASK#{ask.id}"},
                "UpdateExpression": "SET #token = :token, delivered = :no",
                "ExpressionAttributeNames": {"#token": "token"},
                "ExpressionAttributeValues": {":token": ask.token, ":no": False},
            }
        }

    def answer_ask(self, incident: str, before: Ask, after: Ask) -> TransactWriteItemTypeDef:
        """Write what a decision makes of a question, if nobody has decided since ``before``."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": {"pk": items.incident_key(incident), "sk": f"ASK#{before.id}"},
                "UpdateExpression": (
                    "SET #state = :state, approvals = :approvals, deadline = :deadline"
                ),
                "ConditionExpression": "#state = :was AND approvals = :seen",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": {
                    ":state": after.state,
                    ":was": before.state,
                    ":approvals": items.approvals(after),
                    ":seen": items.approvals(before),
                    ":deadline": after.deadline,
                },
            }
        }

    def _ttl(self) -> int:
        return epoch(self._clock() + items.KEEP_INCIDENTS)


def failures(error: ClientError) -> set[int]:
    """Return the positions of a transaction's writes whose conditions failed."""
    codes = _codes(error)
    return {index for index, code in enumerate(codes) if code == "ConditionalCheckFailed"}


def raced(error: ClientError) -> bool:
    """Whether another writer was faster, so that reading anew and trying again may help."""
    conflict = error.response["Error"]["Code"] in {
        "TransactionConflictException",
        "TransactionInProgressException",
    }
    return conflict or "TransactionConflict" in _codes(error) or bool(failures(error))


def _codes(error: ClientError) -> list[str]:
    reasons = error.response.get("CancellationReasons", [])
    return [str(reason.get("Code", "None")) for reason in reasons]
