"""Account for every letter of a replay: what was archived against what became of it.

Called with ``{"run", "state"}``; returns the fields of ``oncall.archive.Balance``. Reads only.
Where SQS has moved the letters nothing is archived: it counts, and returns the fields of
``oncall.unarchived.Count`` and ``unknown``, 0.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall import archive, queue_facts, unarchived
from oncall import contract as contracts
from oncall.archive_store import bucket_store
from oncall.errors import NotReconciled
from oncall.incident import Entry
from oncall.step import step
from oncall.targets import queue_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.archive import Balance
    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Reconcile, by count and by id. Raises ``NotReconciled`` with what differs."""
    incident = aws.store.load(call.run.incident)
    if unarchived.is_native(incident.plan.get("order", {})):
        return _by_count(call, aws, incident)
    balance = archive.reconcile(bucket_store(aws), call.run.incident)
    if not balance.balanced:
        raise NotReconciled(_difference(balance))
    entry = Entry(id=f"balanced-{call.run.round}", kind="verified", text=_balanced(balance))
    aws.store.note(call.run, entry)
    return asdict(balance)


def _by_count(call: Call, aws: Services, incident: Incident) -> Mapping[str, Any]:
    """Count what SQS says to have moved and what lies there against what lay there."""
    found = queue_facts.attributes(aws, queue_url(aws, call.run.target))
    count = unarchived.Count(
        lay=int(incident.plan["lying"]),
        moved=sum(incident.move_task.get("moved", {}).values()),
        lies=int(found["ApproximateNumberOfMessages"])
        + int(found["ApproximateNumberOfMessagesNotVisible"]),
    )
    if unarchived.differs(count, contracts.load(call.run.runbook).verification):
        raise NotReconciled(unarchived.told(count))
    entry = Entry(id=f"counted-{call.run.round}", kind="verified", text=unarchived.told(count))
    aws.store.note(call.run, entry)
    return {**asdict(count), "unknown": 0}


def _balanced(balance: Balance) -> str:
    doubt = ""
    if balance.unknown:
        doubt += f" {balance.unknown} of a worker that died: deleted only if confirmed."
    if balance.possible_duplicates:
        doubt += f" At most {balance.possible_duplicates} may have been sent twice."
    return (
        f"All {balance.archived} archived letters are accounted for, by id: {balance.replayed} "
        f"replayed, {balance.quarantined} quarantined, {balance.dropped} dropped, {balance.left} "
        f"left.{doubt}"
    )


def _difference(balance: Balance) -> str:
    told = balance.replayed + balance.quarantined + balance.dropped + balance.left + balance.unknown
    named = ", ".join(balance.examples)
    return (
        f"{balance.archived} letters are archived and {told} accounted for; {balance.differences} "
        f"differ{': ' + named if named else ''}. Nothing more is moved; compare archive and ledger."
    )


handler = step(work)
