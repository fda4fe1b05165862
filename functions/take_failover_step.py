"""Take one step of a failover's or failback's order, or see how far it is.

Called with ``{"run", "state", "plan_hash", "taken"}``, where ``taken`` is what it has returned
last: ``{"number": of the step to take next, "verdict": "next"|"again"|"watch", "looks": at a step
under way, "wait_seconds"}``. ``watch`` once traffic is moved, so that looks decide when to go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import failover_looks, failover_moves, guards, service
from oncall.errors import Ineffective, WorldMoved
from oncall.incident import Entry
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Take the step.

    Raises ``WorldMoved`` (another plan is in the record, or the world is not as it was planned
    for), ``NeedsHuman``, ``GuardRefused``, ``Aborted`` or ``TakenOver``, having changed nothing;
    ``Ineffective`` for a step that does not come to its end.
    """
    incident = aws.store.load(call.run.incident)
    if incident.plan.get("hash") != call.payload["plan_hash"]:
        raise WorldMoved("The record holds another plan by now; I look again.")
    order, taken = incident.plan["order"], call.payload["taken"]
    number, again = int(taken["number"]), taken["verdict"] == "again"
    one = order["steps"][number]
    if one["verb"] in failover_moves.LOOKED_AT:
        return _answer(number, "watch")
    opted_in = failover_moves.tags(aws, one)
    guards.check_before_change(
        aws, call.run, one["detail"].get("resource", order["record"]), opted_in
    )
    key = f"{one['id']}-{call.run.round}"
    intended = Entry(id=f"intend-{key}", kind="intended", text=f"About to {one['sentence']}.")
    aws.store.note(call.run, intended, phase="acting", doing=f"I {one['sentence']}.")
    about = service.load(order["service"])
    made = failover_moves.make(aws, about, one, again=again)
    if not made.done:
        looks = int(taken["looks"]) + 1
        if looks > contracts.load(call.run.runbook).limits["step_looks"]:
            raise Ineffective(f"It takes too long to {one['sentence']}; it may still be under way.")
        return _answer(number, "again", made.wait_seconds, looks)
    _tell(call, aws, key, one, made.change_id)
    return _answer(number + 1, "watch" if one["verb"] == "shift" else "next")


def _answer(number: int, verdict: str, wait_seconds: int = 0, looks: int = 0) -> Mapping[str, Any]:
    return {"number": number, "verdict": verdict, "wait_seconds": wait_seconds, "looks": looks}


def _tell(call: Call, aws: Services, key: str, one: Mapping[str, Any], change_id: str) -> None:
    changed = Entry(
        id=f"changed-{key}",
        kind="changed",
        text=f"Done: {one['sentence']}.",
        data={
            "by_hand": one["by_hand"],
            "undo": one["undo"] or one["no_undo_because"],
            "step": dict(one),
            "change_id": change_id,
        },
    )
    incident = aws.store.load(call.run.incident)
    entries = (*incident.entries, changed)
    said = failover_looks.effect_of(entries, incident.plan["order"])
    aws.store.note(call.run, changed, progress={**incident.progress, "effect": said})


handler = step(work)
