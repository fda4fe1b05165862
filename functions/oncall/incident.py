"""What a run knows and what its record holds: plain values, without table and clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Run:
    """What each step of a run is told: which incident, under which fencing token."""

    incident: str
    runbook: str
    target: str
    mode: str
    fence: int
    round: int = 1
    """Counts the plans of this run; entry ids and asks bear it."""
    winding_down: bool = False
    """The execution is over and the wind-down machine ends the incident: its lock may be another
    run's by now, so its writes do not ask for it. The leases of its settings are still its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an incident's timeline."""

    id: str
    kind: str
    """``opened joined inspected planned asked decided intended changed verified moved put_back
    warned paged refused closed``, ``scored`` of a scorecard; ``warned``: on-call has to read it,
    and is not woken."""
    text: str
    at: str = ""
    seq: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    severity: str = ""
    """Only on ``paged``: ``critical error warning info``, as PagerDuty's Events API names them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write to production: leased, so it can be put back.

    ``before`` and ``after`` are the lever's plain values (``None`` means "not set").
    """

    lever: str
    resource: str
    name: str
    before: Any
    after: Any
    why: str
    undo: str
    """The command that puts it back by hand."""
    expires_at: str
    state: str = "intended"
    """``intended applied put_back not_made left handed_over``; ``left``: someone changed it."""
    incident: str = ""
    recorded_at: str = ""
    ended_at: str = ""
    note: str = ""

    @property
    def standing(self) -> bool:
        """Whether the setting may still be other than it was before the run."""
        return self.state in {"intended", "applied"}

    @property
    def mends(self) -> bool:
        """Whether it makes good what another run has left, so that it stays as it is set."""
        return bool(self.before == self.after)


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the approvers, waiting for its answer."""

    id: str
    plan_hash: str
    token: str = field(repr=False)
    deadline: str
    people: int
    """How many different people have to approve."""
    level: int
    state: str = "waiting"
    """``waiting approved rejected stopped expired``"""
    approvals: tuple[Mapping[str, str], ...] = ()
    delivered: bool = False
    """Whether Step Functions has been told the decision."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One run, whole: what the report, the CLI and the sweeper read.

    The sentences ``happened``, ``doing`` and ``need`` are written by the steps, which know the
    numbers; every surface shows them as they are.
    """

    id: str
    runbook: str
    title: str
    target: str
    target_name: str
    mode: str
    trigger: Mapping[str, Any]
    """``{"kind": "alarm"|"hand", "by", "reason", "alarm": {"name", "arn", "changed_at"}}``, and
    where they are ``"options"`` and ``"game_day": true``"""
    execution: str
    fence: int
    status: str = "open"
    phase: str = "investigating"
    """``investigating waiting acting watching putting_back handed_over closed``"""
    started_at: str = ""
    updated_at: str = ""
    closed_at: str = ""
    lease_until: str = ""
    seq: int = 0
    happened: str = ""
    doing: str = ""
    need: str = ""
    diagnosis: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    """``{"done": 0..1, "text", "eta": iso time or ""}``; of what a good end leaves to be done
    besides ``"warning"`` and ``"need"``."""
    move_task: Mapping[str, Any] = field(default_factory=dict)
    """Of a replay by SQS's own move tasks: ``{"round", "after": ms, "until": s, "moved": {round:
    letters}}``; ``round`` may have a task that was started after ``after``."""
    ask: Mapping[str, Any] = field(default_factory=dict)
    """``{"id", "deadline", "people", "approvals", "level", "state"}``: never the token."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    """``{"kind": "abort"|"take_over", "by", "at", "reason"}``"""
    outcome: str = ""
    summary: str = ""
    report_url: str = ""
    parent: str = ""
    """The storm that gathers this incident."""
    entries: tuple[Entry, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def standing_changes(self) -> tuple[Change, ...]:
        """Changes that may still be in force."""
        return tuple(change for change in self.changes if change.standing)
