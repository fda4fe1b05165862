"""Leased changes: recorded before they are made, compared before they are written, put back.

``make`` and ``put_back`` may both be repeated after a crash at any point: what the record says was
intended is compared with the live value, and only what is missing is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall.errors import NotFound, PutBackFailed, WorldMoved
from oncall.guards import check_before_change
from oncall.incident import Change, Entry
from oncall.levers import LEVERS, write_as_planned
from oncall.times import iso
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident, Run
    from oncall.services import Services

SAME = "same as before"
_GONE = frozenset({"ResourceNotFoundException", "ParameterNotFound", "NotFoundException"})


@dataclass(frozen=True, slots=True)
class Planned:
    """One change as the plan holds it."""

    lever: str
    resource: str
    name: str
    before: Any
    """The live value that the plan saw."""
    after: Any
    why: str
    original: Any = SAME
    """What it is put back to, where that is not ``before``: another run's leftover is mended."""
    supersedes: str = ""
    """The ended incident whose lease on the setting is taken over."""

    @property
    def put_back_to(self) -> Any:
        """The value that the setting goes back to."""
        return self.before if self.original == SAME else self.original


def planned_for(incident: Incident, plan_hash: str, lever: str) -> Planned:
    """Return the change of ``lever`` in the plan that was decided on.

    Raises ``WorldMoved`` when the record holds another plan by now.
    """
    if incident.plan.get("hash") != plan_hash:
        raise WorldMoved(
            f"The plan {plan_hash[:8]} was decided on, but the record holds another by now; "
            f"I look again."
        )
    for change in incident.plan["changes"]:
        if change["lever"] == lever:
            return Planned(**change)
    raise WorldMoved(f"The plan {plan_hash[:8]} holds no change of {lever}; I look again.")


def make(aws: Services, run: Run, lever_id: str, plan_hash: str) -> Mapping[str, Any]:
    """Make one planned change: guards, lease, compare, write, read back, record.

    Returns ``{"lever", "name", "before", "after"}``. Raises ``GuardRefused``, ``Aborted``,
    ``TakenOver``, ``WorldMoved`` or ``LockLost``; nothing has been written to production then.
    """
    lever = LEVERS[lever_id]
    incident = aws.store.load(run.incident)
    planned = planned_for(incident, plan_hash, lever_id)
    check_before_change(aws, run, planned.name, lever.tags(aws, planned.resource))
    ours = _own_change(incident, planned)
    if ours is not None and ours.after != planned.after:
        raise WorldMoved(
            f"{planned.name} is still changed by this run ({tell(ours.after)}); it is put back "
            f"before it is changed again."
        )
    live = lever.read(aws, planned.resource)
    made_before_a_crash = ours is not None and live == ours.after
    if live != planned.before and not made_before_a_crash:
        raise WorldMoved(
            f"{planned.name} is {tell(live)} now; the plan saw {tell(planned.before)}. "
            f"I look again."
        )
    before = planned.put_back_to
    change = Change(
        lever=lever_id,
        resource=planned.resource,
        name=planned.name,
        before=before,
        after=planned.after,
        why=planned.why,
        undo=lever.command(planned.resource, before),
        expires_at=incident.lease_until,
        incident=run.incident,
        recorded_at=iso(aws.clock()),
    )
    key = f"{lever_id}-{run.round}"
    aws.store.lease_change(
        run,
        change,
        Entry(
            id=f"intend-{key}",
            kind="intended",
            text=f"About to set {planned.name} from {tell(planned.before)} to "
            f"{tell(planned.after)}.",
        ),
        planned.supersedes,
    )
    if live != planned.after:
        write_as_planned(aws, planned.lever, planned.resource, planned.after, planned.name)
    now_is = lever.read(aws, planned.resource)
    if now_is != planned.after:
        raise WorldMoved(
            f"{planned.name} reads {tell(now_is)} right after it was set to "
            f"{tell(planned.after)}: somebody else is changing it. I look again."
        )
    aws.store.update_change(
        run,
        replace(change, state="applied"),
        Entry(
            id=f"changed-{key}",
            kind="changed",
            text=f"Set {planned.name} from {tell(planned.before)} to {tell(planned.after)}: "
            f"{planned.why}.",
            data={"by_hand": lever.command(planned.resource, planned.after), "undo": change.undo},
        ),
        doing=f"Set {planned.name} {tell(planned.before)} → {tell(planned.after)}; "
        + (
            "it stays so." if change.mends else f"it goes back to {tell(before)} when this is over."
        ),
    )
    return {
        "lever": lever_id,
        "name": planned.name,
        "before": planned.before,
        "after": planned.after,
    }


def _own_change(incident: Incident, planned: Planned) -> Change | None:
    """Return this incident's own standing change of the same setting."""
    for change in incident.standing_changes:
        if (change.lever, change.resource) == (planned.lever, planned.resource):
            return change
    return None


def put_back(aws: Services, run: Run, *, only: str = "") -> list[Change]:
    """Put back what the run changed, newest first; return all that was looked at.

    A setting that someone else has changed since is left, and told. ``only`` names one lever.
    Raises ``PutBackFailed`` with the commands to do it by hand; the rest has been put back then,
    and the lease of what failed stays so that the sweeper tries again.
    """
    done: list[Change] = []
    failures: list[str] = []
    incident = aws.store.load(run.incident)
    for change in reversed(incident.standing_changes):
        if only and change.lever != only:
            continue
        try:
            ended = _put_one_back(aws, change)
        except (ClientError, BotoCoreError) as error:
            failures.append(f"{change.name} ({error}); by hand: `{change.undo}`")
            continue
        done.append(_record_end(aws, run, ended, "put-back"))
    if failures:
        raise PutBackFailed("I could not put back " + "; ".join(failures) + ".")
    return done


def _put_one_back(aws: Services, change: Change) -> Change:
    lever = LEVERS[change.lever]
    try:
        live = lever.read(aws, change.resource)
        if live == change.before:
            never_made = change.state == "intended" and not change.mends
            return replace(
                change,
                state="not_made" if never_made else "put_back",
                note=f"{change.name} is {tell(live)}, as it was before.",
            )
        # A mend that was only intended is still as the ended incident left it: finish it.
        leftover = change.mends and change.state == "intended"
        if live != change.after and not leftover:
            return replace(
                change,
                state="left",
                note=f"{change.name} is {tell(live)} now: someone has changed it since I set "
                f"{tell(change.after)}, so I leave it. It was {tell(change.before)} before; "
                f"by hand: `{change.undo}`",
            )
        lever.write(aws, change.resource, change.before)
    except NotFound:
        return _vanished(change)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return _vanished(change)
        raise
    return replace(
        change,
        state="put_back",
        note=f"Put {change.name} back from {tell(live)} to {tell(change.before)}.",
    )


def _vanished(change: Change) -> Change:
    return replace(
        change,
        state="put_back",
        note=f"{change.name} no longer exists; there is nothing to put back.",
    )


def hand_to_person(aws: Services, run: Run, who: str) -> list[Change]:
    """Leave standing changes as they are and end their leases: they are ``who``'s now."""
    left: list[Change] = []
    for change in aws.store.load(run.incident).standing_changes:
        handed = replace(
            change,
            state="handed_over",
            note=f"{change.name} stays at {tell(change.after)}, {who} has it now; "
            f"to undo: `{change.undo}`",
        )
        left.append(_record_end(aws, run, handed, "handed"))
    return left


def _record_end(aws: Services, run: Run, ended: Change, how: str) -> Change:
    """Write how a change has ended, which gives its lease back; return it with its time."""
    stamped = replace(ended, ended_at=iso(aws.clock()))
    entry = Entry(
        id=f"{how}-{ended.lever}-{run.round}",
        kind="put_back",
        text=ended.note,
        data={"state": ended.state},
    )
    aws.store.update_change(run, stamped, entry)
    return stamped
