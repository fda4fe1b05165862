"""Who may decide what, and when: the rules (pure), and how a decision is recorded and delivered.

The record decides who was first; Step Functions is told afterwards, and again if that failed. Only
the function that takes decisions may send task results: whoever holds a task token and
``states:SendTask*`` can approve anything, for these actions know no resource-level permission.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall.errors import BadInput, Contended, Denied
from oncall.incident import Entry
from oncall.step import logger
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from oncall.incident import Ask, Incident
    from oncall.services import Services

DASHBOARD_FIELD = "by"
"""The field of the dashboard's widget in which a person says who they are."""
DECISIONS = ("approve", "reject", "abort", "take_over")
EXAMPLE = (
    '{"incident": "queue-saturation-orders-20261123T030211Z", "decision": "approve", '
    '"by": "arn:aws:iam::123456789012:user/alice"}'
)
MAX_REASON = 500
_DONE = {
    "approve": "approved",
    "reject": "rejected",
    "abort": "aborted",
    "take_over": "taken over",
}
_STOP_KINDS = ("abort", "take_over")
_TOO_LATE = frozenset({"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"})
_RACES = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody wants: validated, not yet judged."""

    incident: str
    kind: str
    by: str
    """A Slack user id that Slack's signature proves, or an IAM ARN that the caller claims."""
    via: str
    """``slack``, or ``invoke`` or ``dashboard``, which only claim who it is"""
    ask: str = ""
    """The question that it answers; ``""`` means the one that waits."""
    reason: str = ""

    @property
    def who(self) -> str:
        """The person, with a note where the identity is claimed and not proven."""
        return f"{self.by} (by {self.via})" if self.claimed else self.by

    @property
    def claimed(self) -> bool:
        """Whether nothing proves who it is: Lambda does not say who has invoked it."""
        return self.via != "slack"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a decision, in a sentence for the one who made it."""

    recorded: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say about a decision.

    ``action``: ``refuse late first settle stop``; ``first`` is the first of two approvals.
    """

    action: str
    text: str = ""


# The rules


def parse_decision(event: Mapping[str, object]) -> Decision:
    """Read a direct call. Raises ``BadInput`` with a sentence and an example."""
    known = {"incident", "decision", "by", "reason", "ask"}
    unknown = sorted(set(event) - known)
    if unknown:
        raise BadInput(f"{unknown[0]}: there is no such field. Give {EXAMPLE}.")
    for name in ("incident", "decision", "by"):
        if not event.get(name):
            raise BadInput(f"{name}: it is missing. Give {EXAMPLE}.")
    for name, value in event.items():
        if not isinstance(value, str):
            raise BadInput(f"{name}: it must be text, not {type(value).__name__}. Give {EXAMPLE}.")
    fields = {name: str(value) for name, value in event.items()}
    if fields["decision"] not in DECISIONS:
        raise BadInput(
            f"decision: {fields['decision']!r} is none of {', '.join(DECISIONS)}. Give {EXAMPLE}."
        )
    if not fields["by"].startswith("arn:"):
        raise BadInput(
            f"by: {fields['by']!r} is no IAM principal; Slack users decide in Slack. "
            f"Give {EXAMPLE}."
        )
    if len(fields.get("reason", "")) > MAX_REASON:
        raise BadInput(f"reason: it is longer than {MAX_REASON} characters. Give {EXAMPLE}.")
    return Decision(
        incident=fields["incident"],
        kind=fields["decision"],
        by=fields["by"],
        via="invoke",
        ask=fields.get("ask", ""),
        reason=fields.get("reason", ""),
    )


def parse_click(event: Mapping[str, Any]) -> Decision:
    """Read a click on the dashboard: a direct call's fields, ``by`` in a form field of the widget.

    Raises ``BadInput`` with a sentence.
    """
    fields = {name: value for name, value in event.items() if name != "widgetContext"}
    forms = event["widgetContext"].get("forms", {}).get("all", {})
    by = str(forms.get(DASHBOARD_FIELD, "")).strip()
    if not by:
        raise BadInput(
            "Say who you are first: your IAM ARN, such as arn:aws:iam::123456789012:user/alice, in "
            "the field above the incidents."
        )
    return replace(parse_decision({**fields, "by": by}), via="dashboard")


def may_decide(by: str, approvers: Iterable[str]) -> bool:
    """Whether a person is an approver; an empty list means nobody.

    A session of a role (``arn:aws:sts::…:assumed-role/<role>/<session>``) counts as the role.
    """
    return bool(
        {by, _role_of(by)} & {_without_path(approver) for approver in approvers} - {""}
    ) or (by in set(approvers))


def _role_of(arn: str) -> str:
    head, _, rest = arn.partition(":assumed-role/")
    parts = head.split(":")
    if not rest or len(parts) != 5 or parts[2] != "sts":  # noqa: PLR2004 -- arn:p:sts::account
        return ""
    return f"arn:{parts[1]}:iam::{parts[4]}:role/{rest.partition('/')[0]}"


def _without_path(arn: str) -> str:
    """Return a role's ARN without its path, which a session's ARN does not show."""
    head, found, rest = arn.partition(":role/")
    return f"{head}{found}{rest.rpartition('/')[2]}" if found else arn


def refuse_stranger(decision: Decision, approvers: tuple[str, ...]) -> None:
    """Raise ``Denied`` unless the person is an approver."""
    if may_decide(decision.by, approvers):
        return
    nobody = "; the list is empty, so nobody is" if not approvers else ""
    raise Denied(
        f"{decision.by} is not among the approvers{nobody}. The stack's parameter Approvers "
        f"lists them: Slack user ids and IAM ARNs."
    )


def refuse_others(decision: Decision, incident: Incident) -> None:
    """Raise ``Denied`` where a plan names who may approve it and the person is none of those.

    ``incident.plan["order"]["approvers"]``, such as a service file's for its failback, narrows the
    stack's list and never widens it. Whoever may approve anything else may reject or stop.
    """
    named = incident.plan.get("order", {}).get("approvers", ())
    if decision.kind == "approve" and named and not may_decide(decision.by, named):
        raise Denied(
            f"{decision.by} may not approve this; the owner of {incident.target_name} has named "
            f"who may: {', '.join(named)}."
        )


def judge(decision: Decision, incident: Incident, ask: Ask | None, now: datetime) -> Verdict:
    """Say what a decision means for the record as it is now. Pure."""
    if incident.status != "open":
        return Verdict(
            "refuse",
            f"Too late: incident {incident.id} closed ({incident.outcome}) at "
            f"{_at(incident.closed_at)}.",
        )
    if incident.stop:
        return Verdict("refuse", _already(incident.stop["kind"], incident.stop))
    if decision.kind in _STOP_KINDS:
        return Verdict("stop")
    return _judge_answer(decision, incident, ask, now)


def _judge_answer(
    decision: Decision, incident: Incident, ask: Ask | None, now: datetime
) -> Verdict:
    if ask is None:
        return Verdict("refuse", f"Incident {incident.id} asks nothing now.")
    if ask.state in {"approved", "rejected"}:
        return Verdict("refuse", _already_decided(incident, ask))
    current = incident.ask.get("id") == ask.id and incident.phase == "waiting"
    if ask.state != "waiting" or not current:
        return Verdict("refuse", f"Too late: this was to be answered by {_at(ask.deadline)}.")
    if parse(ask.deadline) <= now:
        return Verdict("late", f"Too late: this was to be answered by {_at(ask.deadline)}.")
    if decision.kind == "reject":
        return Verdict("settle")
    return _judge_approval(decision, ask)


def _judge_approval(decision: Decision, ask: Ask) -> Verdict:
    if any(approval["by"] == decision.by for approval in ask.approvals):
        return Verdict("refuse", f"You have approved already; {ask.people} different people must.")
    claimed = [approval["via"] for approval in ask.approvals if approval["via"] != "slack"]
    if claimed and decision.claimed:
        return Verdict(
            "refuse",
            f"One approval came by {claimed[0]} already, which claims who it is from and does not "
            "prove it; the other must come from Slack.",
        )
    return Verdict("settle" if len(ask.approvals) + 1 >= ask.people else "first")


def _already_decided(incident: Incident, ask: Ask) -> str:
    for entry in reversed(incident.entries):
        if entry.kind == "decided" and entry.data.get("ask") == ask.id:
            return _already(str(entry.data["decision"]), {"by": entry.data["by"], "at": entry.at})
    return f"Already {ask.state}."


def _already(kind: str, said: Mapping[str, str]) -> str:
    return f"Already {_DONE.get(kind, kind)} by {said['by']} at {_at(said['at'])}."


def _at(moment: str) -> str:
    return f"{parse(moment):%H:%M} UTC"


# The record


def decide(decision: Decision, aws: Services) -> Answer:
    """Judge, record and deliver a decision. Raises ``Denied``, ``NotFound`` or ``Contended``."""
    refuse_stranger(decision, aws.settings.approvers)
    for _ in range(_RACES):
        incident = aws.store.load(decision.incident)
        refuse_others(decision, incident)
        ask_id = decision.ask or str(incident.ask.get("id", ""))
        ask = aws.store.ask(decision.incident, ask_id) if ask_id else None
        verdict = judge(decision, incident, ask, aws.clock())
        answer = _carry_out(decision, verdict, incident, ask, aws)
        if answer is not None:
            return answer
    raise Contended(f"Incident {decision.incident} is changing too fast; decide again.")


def _carry_out(
    decision: Decision, verdict: Verdict, incident: Incident, ask: Ask | None, aws: Services
) -> Answer | None:
    """Act on a verdict; ``None`` when somebody was faster and it has to be judged again."""
    if verdict.action == "refuse":
        return Answer(recorded=False, text=verdict.text)
    if verdict.action == "stop":
        return _stop(decision, incident, aws)
    if ask is None:
        raise AssertionError(verdict)  # judge() refuses an answer to no question
    if verdict.action == "late":
        return _expire(decision, ask, verdict, aws)
    if verdict.action == "first":
        return _first_approval(decision, incident, ask, aws)
    return _settle(decision, incident, ask, aws)


def _expire(decision: Decision, ask: Ask, verdict: Verdict, aws: Services) -> Answer | None:
    entry = Entry(
        id=_entry_id("late", decision, ask.id),
        kind="decided",
        text=f"{decision.who} wanted to {decision.kind} after the deadline; it changes nothing.",
        data={"by": decision.by, "ask": ask.id},
    )
    if not aws.store.decide(decision.incident, ask, replace(ask, state="expired"), entry):
        return None
    return Answer(recorded=False, text=verdict.text)


def _first_approval(
    decision: Decision, incident: Incident, ask: Ask, aws: Services
) -> Answer | None:
    """Record the first of two approvals; the heartbeat gives the second person as much time."""
    try:
        aws.client("stepfunctions").send_task_heartbeat(taskToken=ask.token)
    except ClientError as error:
        if not _too_late(error):
            raise _without_token(error) from None
        return Answer(recorded=False, text="Too late: the run no longer waits for this answer.")
    missing = ask.people - len(ask.approvals) - 1
    after = replace(
        ask,
        approvals=(*ask.approvals, _approval(decision, aws)),
        deadline=_longer(incident, ask, aws),
    )
    entry = _decided(decision, ask.id, f"; {missing} more needed", missing=missing)
    need = f"A yes from {missing} more by {_at(after.deadline)}."
    if not aws.store.decide(decision.incident, ask, after, entry, need=need):
        return None
    return Answer(
        recorded=True, text=f"Noted; {missing} more must approve by {_at(after.deadline)}."
    )


def _longer(incident: Incident, ask: Ask, aws: Services) -> str:
    """Return the deadline after a heartbeat: as long from now as it was from the question."""
    asked = [e.at for e in incident.entries if e.kind == "asked"]
    if not asked:
        return ask.deadline
    return iso(aws.clock() + (parse(ask.deadline) - parse(asked[-1])))


def _settle(decision: Decision, incident: Incident, ask: Ask, aws: Services) -> Answer | None:
    if decision.kind == "approve":
        after = replace(ask, state="approved", approvals=(*ask.approvals, _approval(decision, aws)))
    else:
        after = replace(ask, state="rejected")
    entry = _decided(decision, ask.id, "")
    if not aws.store.decide(incident.id, ask, after, entry, need="Nothing."):
        return None
    delivered = deliver(aws, incident.id, after, entry)
    said = f"{_DONE[decision.kind].capitalize()}."
    return Answer(recorded=True, text=said if delivered is None else f"{said} {delivered}")


def _stop(decision: Decision, incident: Incident, aws: Services) -> Answer | None:
    """Stop the run; a question that waits is taken back in the same write."""
    stop = {
        "kind": decision.kind,
        "by": decision.who,
        "at": iso(aws.clock()),
        "reason": decision.reason,
    }
    # One id for all: whoever stops the run first has stopped it.
    entry = replace(_decided(decision, "", ""), id="stopped")
    waiting = incident.ask.get("state") == "waiting" and incident.phase == "waiting"
    ask = aws.store.ask(incident.id, incident.ask["id"]) if waiting else None
    if ask is not None and ask.state == "waiting":
        after = replace(ask, state="stopped")
        if not aws.store.decide(incident.id, ask, after, entry, stop=stop, need="Nothing."):
            return None
        delivered = deliver(aws, incident.id, after, entry)
    else:
        if not aws.store.note_from_outside(incident.id, entry, stop=stop, need="Nothing."):
            return None
        found = aws.store.find(incident.id)
        if found is None or found.stop != stop:
            return None
        delivered = None
    said = "It is yours: the run stops before its next change and leaves everything as it is."
    if decision.kind == "abort":
        # An order's steps are no leased changes: the thread tells what was done and how to undo it.
        kept = incident.plan.get("order")
        fate = (
            "what it has done stays, as the thread says" if kept else "what it changed is put back"
        )
        said = f"The run stops before its next change; {fate}."
    return Answer(recorded=True, text=said if delivered is None else f"{said} {delivered}")


def _approval(decision: Decision, aws: Services) -> Mapping[str, str]:
    return {"by": decision.by, "at": iso(aws.clock()), "via": decision.via}


def _decided(decision: Decision, ask: str, note: str, *, missing: int = 0) -> Entry:
    reason = f": {decision.reason}" if decision.reason else ""
    data: dict[str, object] = {
        "decision": decision.kind,
        "by": decision.by,
        "via": decision.via,
        "ask": ask,
        "reason": decision.reason,
    }
    if missing:
        data["missing"] = missing
    return Entry(
        id=_entry_id("decided", decision, ask),
        kind="decided",
        text=f"{_DONE[decision.kind].capitalize()} by {decision.who}{note}{reason}.",
        data=data,
    )


def _entry_id(prefix: str, decision: Decision, ask: str) -> str:
    """Return an id that one person's one decision on one question always has."""
    digest = hashlib.sha256(f"{decision.by}\n{decision.kind}".encode()).hexdigest()[:12]
    return f"{prefix}-{ask}-{digest}"


# Step Functions


def deliver(aws: Services, incident: str, ask: Ask, decided: Entry) -> str | None:
    """Tell Step Functions what was decided; return what went wrong in a sentence, else ``None``.

    A waiting task that is gone makes the decision too late; anything else is tried again later.
    """
    try:
        _send(aws, ask, decided)
    except ClientError as error:
        if _too_late(error):
            return _came_too_late(aws, incident, ask, decided)
        logger.error("decision not delivered", extra={"code": error.response["Error"]["Code"]})
        return "Step Functions could not be told yet; it is tried again within five minutes."
    except BotoCoreError as error:
        logger.error("decision not delivered", extra={"code": type(error).__name__})
        return "Step Functions could not be told yet; it is tried again within five minutes."
    aws.store.ask_delivered(incident, ask.id)
    return None


def _send(aws: Services, ask: Ask, decided: Entry) -> None:
    client = aws.client("stepfunctions")
    if ask.state == "approved":
        output = {
            "approved_by": [approval["by"] for approval in ask.approvals],
            "plan_hash": ask.plan_hash,
        }
        client.send_task_success(taskToken=ask.token, output=json.dumps(output))
        return
    error = {"reject": "Rejected", "abort": "Aborted", "take_over": "TakenOver"}
    client.send_task_failure(
        taskToken=ask.token, error=error[str(decided.data["decision"])], cause=decided.text
    )


def _came_too_late(aws: Services, incident: str, ask: Ask, decided: Entry) -> str:
    """Record that the run had gone on. A stop still stands: the next change heeds it."""
    aws.store.ask_delivered(incident, ask.id)
    if ask.state == "stopped":
        return "The run had gone on already."
    late = Entry(
        id=f"late-{decided.id}",
        kind="decided",
        text=f"This came too late: the run had stopped waiting. ({decided.text.rstrip('.')})",
        data={"ask": ask.id},
    )
    aws.store.decide(incident, ask, replace(ask, state="expired"), late)
    return "But too late: the run had stopped waiting, and it changes nothing."


def _too_late(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in _TOO_LATE


def _without_token(error: ClientError) -> ClientError:
    """Return the error without its message, in which the service may repeat the token."""
    code = error.response["Error"]["Code"]
    return ClientError({"Error": {"Code": code, "Message": ""}}, error.operation_name)


def redeliver(incident_id: str, aws: Services) -> Answer:
    """Tell Step Functions a decision that it has not been told; does nothing else. Repeatable."""
    incident = aws.store.load(incident_id)
    ask_id = str(incident.ask.get("id", ""))
    ask = aws.store.ask(incident_id, ask_id) if ask_id else None
    if ask is None or ask.delivered or ask.state not in {"approved", "rejected", "stopped"}:
        return Answer(recorded=False, text="There is nothing to deliver.")
    decided = _deciding_entry(incident, ask)
    if decided is None:
        raise AssertionError(ask.id)  # both are written in one transaction
    fault = deliver(aws, incident_id, ask, decided)
    return Answer(recorded=fault is None, text=fault or "Delivered.")


def _deciding_entry(incident: Incident, ask: Ask) -> Entry | None:
    wanted = {"approved": ("approve",), "rejected": ("reject",), "stopped": _STOP_KINDS}[ask.state]
    for entry in reversed(incident.entries):
        about = ask.state == "stopped" or entry.data.get("ask") == ask.id
        if entry.kind == "decided" and entry.data.get("decision") in wanted and about:
            return entry
    return None
