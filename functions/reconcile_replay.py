"""Account for every letter of a replay: what was archived against what became of it.

Called with ``{"run", "state", "ending"?}``; ``ending`` is the machine's ``{"error", "cause"}`` of a
run that ends badly, whose workers may still be at it: they are told to stop, and waited for.
Returns the fields of ``oncall.archive.Balance``.
Where SQS has moved the letters nothing is archived: it counts, and returns the fields of
``oncall.unarchived.Count`` and ``unknown``, 0.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall import archive, endings, move_task, queue_facts, replays, unarchived
from oncall import contract as contracts
from oncall.archive_store import bucket_store
from oncall.errors import NotReconciled
from oncall.incident import Entry
from oncall.step import step
from oncall.targets import queue_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.archive import Balance, Store
    from oncall.endings import Ending
    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.step import Call

_LOOK_AGAIN_SECONDS = 2
_MOST_LOOKS = 10
"""A worker that is told to stop does so within a second or two of its last call."""


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Reconcile, by count and by id.

    Raises ``NotReconciled`` with what differs, and with what the run had ended by before.
    """
    ending = endings.read(call.payload.get("ending", {}))
    incident = aws.store.load(call.run.incident)
    if unarchived.is_native(incident.plan.get("order", {})):
        return _by_count(call, aws, incident, ending)
    store = bucket_store(aws)
    if ending.error:
        aws.store.note(call.run, None, phase="putting_back")
        _await_workers(store, incident.id, aws.settings.period_seconds)
    balance = archive.reconcile(store, incident.id)
    if not balance.balanced:
        raise NotReconciled(f"{_difference(balance)}{_before(ending)}")
    if balance.archived or not ending.error:
        _tell(call, aws, incident, balance, unsure=bool(ending.error))
    return asdict(balance)


def _before(ending: Ending) -> str:
    return f" Before that: {ending.because}" if ending.because else ""


def _await_workers(store: Store, incident: str, period: int) -> None:
    """Wait until workers have told what became of their letters; a dead one never does."""
    for _ in range(min(_MOST_LOOKS, max(1, period // _LOOK_AGAIN_SECONDS))):
        if archive.is_told(store, incident):
            return
        time.sleep(_LOOK_AGAIN_SECONDS)


def _tell(call: Call, aws: Services, incident: Incident, balance: Balance, *, unsure: bool) -> None:
    total = asdict(balance)
    if unsure:
        total["unsure"] = total.pop("unknown")
    said = replays.effect(total, call.run.target.rsplit(":", 1)[-1], incident.id)
    aws.store.note(
        call.run,
        Entry(id=f"balanced-{call.run.round}", kind="verified", text=_balanced(balance)),
        progress={**incident.progress, "effect": said},
    )


def _by_count(call: Call, aws: Services, incident: Incident, ending: Ending) -> Mapping[str, Any]:
    """Count what SQS says to have moved and what lies there against what lay there."""
    if ending.error:
        incident = _without_a_task(call, aws, incident)
    found = queue_facts.attributes(aws, queue_url(aws, call.run.target))
    count = unarchived.Count(
        lay=int(incident.plan["lying"]),
        moved=sum(incident.move_task.get("moved", {}).values()),
        lies=int(found["ApproximateNumberOfMessages"])
        + int(found["ApproximateNumberOfMessagesNotVisible"]),
    )
    if unarchived.differs(count, contracts.load(call.run.runbook).verification):
        raise NotReconciled(f"{unarchived.told(count)}{_before(ending)}")
    if ending.error and not count.moved:
        return {**asdict(count), "unknown": 0}
    entry = Entry(id=f"counted-{call.run.round}", kind="verified", text=unarchived.told(count))
    said = unarchived.effect({"replayed": count.moved})
    aws.store.note(call.run, entry, progress={**incident.progress, "effect": said})
    return {**asdict(count), "unknown": 0}


def _without_a_task(call: Call, aws: Services, incident: Incident) -> Incident:
    """End a move task that has outlived its workers."""

    def note(recorded: Mapping[str, Any]) -> None:
        aws.store.note(call.run, None, move_task=recorded)

    ports = move_task.Ports(aws.client("sqs"), note, lambda: True, time.time, time.sleep)
    order = incident.plan["order"]
    move_task.end(call.run.target, order["destination"], ports, incident.move_task)
    return aws.store.load(incident.id)


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
