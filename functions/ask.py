"""Ask the approvers: put the question with its task token into the record; the report shows it.

Called with ``.waitForTaskToken``:
``{"run", "state", "token", "plan_hash", "level", "wait_seconds"}``.
The task goes on when ``receive_decision`` sends the answer, and times out when nobody answers.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall.guards import heed_stop
from oncall.incident import Ask, Entry
from oncall.step import step
from oncall.times import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Write the question. Raises ``Aborted`` or ``TakenOver`` when it is too late to ask."""
    incident = aws.store.load(call.run.incident)
    heed_stop(incident)
    level = int(call.payload["level"])
    contract = contracts.load(call.run.runbook)
    people = 2 if incident.plan.get("action") in contract.two_people else 1
    deadline = iso(aws.clock() + timedelta(seconds=int(call.payload["wait_seconds"])))
    plan_hash = str(call.payload["plan_hash"])
    ask = Ask(
        id=f"{plan_hash[:8]}-{call.run.round}-{level}",
        plan_hash=plan_hash,
        token=str(call.payload["token"]),
        deadline=deadline,
        people=people,
        level=level,
    )
    who = "somebody" if people == 1 else f"{people} people"
    silence = (
        "No answer: I page the next in line."
        if level == 1
        else "No answer: I change nothing and hand over."
    )
    what = incident.plan.get("ask", "May I make these changes?")
    again = "Nobody has answered yet. " if level > 1 else ""
    aws.store.put_ask(
        call.run,
        ask,
        Entry(
            id=f"asked-{ask.id}",
            kind="asked",
            text=f"{again}{what} I need a yes from {who} by {_clock_time(deadline)}. {silence}",
        ),
        need=f"A yes or no from {who} by {_clock_time(deadline)}. {silence}",
    )
    return {"ask": ask.id}


def _clock_time(moment: str) -> str:
    return f"{moment[11:16]} UTC"


handler = step(work)
