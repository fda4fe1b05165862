"""Find what events have missed, every five minutes: the guarantee behind all that is best effort.

- An open incident whose execution is over, and a change past its lease: the ``wind-down`` machine.
- A lock past its lease whose incident is closed or gone: freed. A storm that is over: closed.
- A decision that Step Functions has not been told, a report that is owed: sent again.
- An alarm that is in ALARM without a run: started, as ``dispatch_alarm`` would.

``{"incident": id}`` or a "Step Functions Execution Status Change" event looks at one incident only.
One item that fails does not keep the others from being done: ``SweepIncomplete`` names those that
did.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from oncall import alarms, dispatch, endings, guards
from oncall.alarms import Ignore
from oncall.dispatch import DispatchSettings, Refused
from oncall.errors import NotFound, OnCallError, SweepIncomplete
from oncall.incident import Entry, Run
from oncall.items import change_from_item
from oncall.step import logged, logger, services
from oncall.times import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from oncall.alarms import Alarm
    from oncall.dispatch import Prepared
    from oncall.incident import Incident
    from oncall.services import Services

YOUNG = timedelta(minutes=1)
"""Younger incidents are left alone: DescribeExecution and the index are eventually consistent."""
LATE_STEPS = timedelta(minutes=1)
"""A step may outlive its execution by so much: no function that changes anything runs longer."""
WIND_DOWN_TRIES = 8
WIND_DOWN_PAUSE = timedelta(minutes=15)
"""The n-th try begins so many times n-1 after the one before it has ended."""
_STATUS_EVENT = "Step Functions Execution Status Change"
_DECIDED = frozenset({"approved", "rejected", "stopped"})
_STOP_BEFORE_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What the template tells ``reconcile``."""

    dispatch: DispatchSettings
    grace: timedelta
    """An alarm younger than this is left to its event."""
    wind_down: str
    """ARN of the machine."""
    report_function: str
    decision_function: str

    @classmethod
    def from_environment(cls) -> SweepSettings:
        """Read the settings. Raises ``KeyError`` for one that is missing."""
        return cls(
            dispatch=DispatchSettings.from_environment(),
            grace=timedelta(seconds=int(os.environ.get("RECONCILE_GRACE_SECONDS", "120"))),
            wind_down=os.environ["WIND_DOWN_MACHINE"],
            report_function=os.environ["REPORT_FUNCTION"],
            decision_function=os.environ["DECISION_FUNCTION"],
        )


@dataclass(slots=True)
class _Sweep:
    """The work of one sweep, item by item: what was done and what was not."""

    out_of_time: Callable[[], bool]
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def each[T](
        self, kind: str, find: Callable[[], Iterable[T]], name: Callable[[T], str],
        do: Callable[[T], str],
    ) -> None:  # fmt: skip
        """Do every item that is found; ``do`` returns what it did, ``""`` for nothing."""
        try:
            items = list(find())
        except Exception as error:  # noqa: BLE001 -- collected, and raised in the end
            self._failed(kind, error)
            return
        for index, item in enumerate(items):
            if self.out_of_time():
                self.failures.append(f"{kind}: no time left for {len(items) - index}")
                return
            try:
                result = do(item)
            except Exception as error:  # noqa: BLE001 -- collected, and raised in the end
                self._failed(f"{kind} {name(item)}", error)
            else:
                if result:
                    self.done[result] += 1

    def end(self) -> Mapping[str, int]:
        """Return what was done how often, or raise ``SweepIncomplete``."""
        logger.info("swept", extra={"done": dict(self.done), "failures": self.failures})
        if self.failures:
            raise SweepIncomplete(
                f"{len(self.failures)} items failed, the next sweep tries them again: "
                f"{'; '.join(self.failures)}."
            )
        return dict(self.done)

    def _failed(self, what: str, error: Exception) -> None:
        logger.exception(f"{what} failed")
        self.failures.append(f"{what} ({type(error).__name__}: {error})")


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, int]:
    """Sweep, or look at one incident; returns what was done how often."""

    def out_of_time() -> bool:
        return bool(context.get_remaining_time_in_millis() < _STOP_BEFORE_TIMEOUT_MS)

    with logged(function="reconcile"):
        return reconcile(
            event, services(), SweepSettings.from_environment(), context.aws_request_id, out_of_time
        )


def reconcile(
    event: Mapping[str, Any],
    aws: Services,
    settings: SweepSettings,
    request: str,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Mapping[str, int]:
    """Sweep, or look at the one incident that ``event`` names. Raises ``SweepIncomplete``."""
    sweep = _Sweep(out_of_time)
    if event.get("detail-type") == _STATUS_EVENT:
        detail = event["detail"]
        sweep.each(
            "incident", lambda: _named(aws, str(detail["name"])), _id,
            lambda incident: _after_status_event(aws, settings, incident, detail),
        )  # fmt: skip
        return sweep.end()
    if "incident" in event:
        name = str(event["incident"])
        if aws.store.find(name) is None:
            raise NotFound(f"incident: there is no incident {name!r}; `runbook list` shows all.")
        sweep.each(
            "incident", lambda: _named(aws, name), _id,
            lambda incident: _tend(aws, settings, incident),
        )  # fmt: skip
        return sweep.end()
    # What protects production first: put back, then free, then tell, then begin new work.
    sweep.each(
        "change", lambda: aws.store.opened("change", aws.clock()), lambda row: str(row["name"]),
        lambda row: _return_change(aws, settings, row),
    )  # fmt: skip
    sweep.each(
        "incident", lambda: _open_incidents(aws), _id,
        lambda incident: _tend(aws, settings, incident),
    )  # fmt: skip
    sweep.each(
        "lock", aws.store.locks_past_lease, lambda lock: lock.target,
        lambda lock: _free_lock(aws, lock),
    )  # fmt: skip
    sweep.each(
        "decision", lambda: _open_incidents(aws), _id,
        lambda incident: _redeliver(aws, settings, incident),
    )  # fmt: skip
    sweep.each("report", lambda: _owed(aws), str, lambda name: _report(aws, settings, name))
    sweep.each(
        "alarm", lambda: _firing(aws, settings), lambda alarm: alarm.name,
        lambda alarm: _start_missed(aws, settings, alarm, request),
    )  # fmt: skip
    return sweep.end()


def _id(incident: Incident) -> str:
    return incident.id


# Incidents


def _open_incidents(aws: Services) -> list[Incident]:
    """Read every open incident consistently; the index may lag."""
    names = sorted({str(row["id"]) for row in aws.store.opened("incident")})
    return [incident for name in names for incident in _named(aws, name)]


def _named(aws: Services, name: str) -> list[Incident]:
    incident = aws.store.find(name)
    return [incident] if incident is not None and incident.status == "open" else []


def _tend(aws: Services, settings: SweepSettings, incident: Incident) -> str:
    """Wind an open incident down when its execution is over; close a storm that is over."""
    if incident.runbook == dispatch.STORM:
        return _close_storm(aws, incident)
    if aws.clock() - parse(incident.started_at) < YOUNG:
        return ""
    execution = dispatch.read_execution(aws, incident.execution)
    if execution is not None and execution["status"] == "RUNNING":
        return ""
    # The execution may have closed its incident and ended since the record was read.
    if not _named(aws, incident.id):
        return ""
    return _wind_down(aws, settings, incident, _ending(execution), _stopped_at(execution))


def _after_status_event(
    aws: Services, settings: SweepSettings, incident: Incident, detail: Mapping[str, Any]
) -> str:
    """Act on an execution's end as its event tells it (``stopDate`` in milliseconds)."""
    if detail["executionArn"] != incident.execution:
        return ""
    if detail["status"] not in {"FAILED", "TIMED_OUT", "ABORTED"}:
        return ""
    stopped = datetime.fromtimestamp(int(detail.get("stopDate") or 0) / 1000, UTC)
    return _wind_down(aws, settings, incident, _ending(detail), stopped)


def _ending(execution: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Say how an execution ended: ``{"error", "cause"}`` as the last steps read it."""
    if execution is None:
        return {
            "error": "RunLost",
            "cause": "Its execution no longer exists and has not closed the incident.",
        }
    why = ": ".join(str(execution[key]) for key in ("error", "cause") if execution.get(key))
    why = f" ({alarms.shortened(why, 300)})" if why else ""
    if execution["status"] == "ABORTED":
        return {"error": "Aborted", "cause": f"Its execution was stopped in Step Functions{why}."}
    return {
        "error": "RunLost",
        "cause": f"Its execution ended {execution['status']} without closing the incident{why}.",
    }


def _stopped_at(execution: Mapping[str, Any] | None) -> datetime:
    stopped: datetime | None = (execution or {}).get("stopDate")
    return stopped or datetime.fromtimestamp(0, UTC)


def _wind_down(
    aws: Services,
    settings: SweepSettings,
    incident: Incident,
    ending: Mapping[str, str],
    stopped: datetime,
) -> str:
    """Start the machine that ends an incident from outside, again when it failed before."""
    now = aws.clock()
    for attempt in range(1, WIND_DOWN_TRIES + 1):
        name = alarms.derived_name(incident.id, f"wind-down-{attempt}")
        arn = alarms.execution_arn(settings.wind_down, name)
        before = dispatch.read_execution(aws, arn)
        if before is None:
            late = LATE_STEPS - (now - stopped)
            given = {
                "run": asdict(_run_of(incident)),
                "ending": ending,
                "closed": incident.status != "open",
                "wait_seconds": max(0, round(late.total_seconds())),
            }
            # A step that outlives its execution sees it, and need not go on.
            aws.store.note_from_outside(incident.id, None, phase="putting_back")
            started = dispatch.start_once(aws, settings.wind_down, name, given)
            return "wind_down" if started else ""
        if before["status"] == "RUNNING" or now < before["stopDate"] + attempt * WIND_DOWN_PAUSE:
            return ""
    raise OnCallError(
        f"{WIND_DOWN_TRIES} wind-downs of incident {incident.id} have failed; see the last one, "
        f"{name}, put back by hand what its timeline lists, and start the machine again"
    )


def _run_of(incident: Incident) -> Run:
    return Run(
        incident=incident.id,
        runbook=incident.runbook,
        target=incident.target,
        mode=incident.mode,
        fence=incident.fence,
        round=0,
        winding_down=True,
    )


def _return_change(aws: Services, settings: SweepSettings, row: Mapping[str, Any]) -> str:
    """Wind down the incident whose change is past its lease."""
    seen = change_from_item(row)
    lease = aws.store.lease(seen.lever, seen.resource)
    if lease is None or parse(lease.expires_at) > aws.clock():
        return ""
    incident = aws.store.find(lease.incident)
    if incident is None:
        raise NotFound(
            f"There is no incident {lease.incident} any more that has changed {lease.name} from "
            f"{lease.before} to {lease.after}; by hand: `{lease.undo}`"
        )
    ending = {
        "error": "RunLost",
        "cause": f"{lease.name} was to be put back by {lease.expires_at} and was not.",
    }
    return _wind_down(aws, settings, incident, ending, parse(lease.expires_at))


def _close_storm(aws: Services, storm: Incident) -> str:
    """Close a storm when its window is over and none of its incidents is open."""
    if aws.clock() < parse(storm.trigger["window_ends"]) + YOUNG:
        return ""
    gathered = [e.data for e in aws.store.load(storm.id).entries if "incident" in e.data]
    outcomes: dict[str, str] = {}
    for child in gathered:
        incident = aws.store.find(str(child["incident"]))
        if incident is None:
            execution = dispatch.read_execution(aws, str(child["execution"]))
            if execution is not None and execution["status"] == "RUNNING":
                return ""
            outcomes[str(child["incident"])] = "failed"
        elif incident.status == "open":
            return ""
        else:
            outcomes[incident.id] = incident.outcome
    bad = [name for name, outcome in outcomes.items() if outcome not in endings.GOOD]
    counted = ", ".join(f"{n} {outcome}" for outcome, n in Counter(outcomes.values()).most_common())
    summary = f"The storm is over; of {len(outcomes)} incidents: {counted or 'none'}."
    aws.store.close(
        Run(storm.id, storm.runbook, storm.target, storm.mode, storm.fence),
        "handed_over" if bad else "resolved",
        summary,
        Entry(id="closed", kind="closed", text=summary),
        doing="Every incident of the storm has closed.",
        need=f"Look at those that did not end well: {', '.join(bad)}." if bad else "Nothing.",
    )
    return "storm_closed"


def _free_lock(aws: Services, lock: Run) -> str:
    """Free a lock past its lease; that of an open incident goes with its wind-down."""
    incident = aws.store.find(lock.incident)
    if incident is not None and incident.status == "open":
        return ""
    return "lock_freed" if aws.store.give_up_lock(lock) else ""


# Telling


def _redeliver(aws: Services, settings: SweepSettings, incident: Incident) -> str:
    """Have a decision delivered that Step Functions has not been told."""
    if incident.ask.get("state") not in _DECIDED:
        return ""
    ask = aws.store.ask(incident.id, str(incident.ask["id"]))
    if ask is None or ask.delivered:
        return ""
    _invoke(aws, settings.decision_function, {"redeliver": incident.id})
    return "redelivered"


def _owed(aws: Services) -> list[str]:
    """Return the incidents to report on: those with a report owed, and all that are open."""
    owed = {str(row["incident"]) for row in aws.store.opened("report")}
    return sorted(owed | {str(row["id"]) for row in aws.store.opened("incident")})


def _report(aws: Services, settings: SweepSettings, incident: str) -> str:
    _invoke(aws, settings.report_function, {"incident": incident})
    return "report"


def _invoke(aws: Services, function: str, payload: Mapping[str, str]) -> None:
    aws.client("lambda").invoke(
        FunctionName=function, InvocationType="Event", Payload=json.dumps(payload)
    )


# Alarms


def _firing(aws: Services, settings: SweepSettings) -> list[Alarm]:
    """Return the alarms that are in ALARM for longer than the grace, latest first.

    So those that came since the last sweep are dealt with even when time runs out.
    """
    pages = aws.client("cloudwatch").get_paginator("describe_alarms")
    found = [
        alarms.read_alarm(described)
        for page in pages.paginate(StateValue="ALARM", AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        for described in [*page.get("MetricAlarms", []), *page.get("CompositeAlarms", [])]
    ]
    grown = [alarm for alarm in found if aws.clock() - alarm.changed_at >= settings.grace]
    return sorted(grown, key=lambda alarm: alarm.changed_at, reverse=True)


def _start_missed(aws: Services, settings: SweepSettings, live: Alarm, request: str) -> str:
    """Start the run of a tagged alarm that has none in this state period."""
    tags = dispatch.read_tags(aws, live.arn)
    if alarms.RUNBOOK_TAG not in tags:
        return ""
    prepared = dispatch.prepare(aws, settings.dispatch, live, tags)
    if isinstance(prepared, Refused):
        dispatch.count_alarm("AlarmsMisconfigured")
        logger.error(prepared.text, extra={"alarm": live.name})
        return "misconfigured"
    if isinstance(prepared, Ignore) or _cooling(aws, prepared):
        return ""
    done = dispatch.launch(aws, settings.dispatch, prepared, request)
    if isinstance(done, Ignore):
        return "joined" if done.reason == "joined" else ""
    dispatch.count_alarm("AlarmsFound")
    logger.info(
        f"Alarm {live.name} had no run, started {done.incident}.",
        extra={"alarm": live.name, "correlation_id": done.incident},
    )
    return "started"


def _cooling(aws: Services, prepared: Prepared) -> bool:
    """Say whether a run would be refused for now: an alarm that outlasts its run waits instead."""
    minutes = int(prepared.contract.limits["cooldown_minutes"])
    now = aws.clock()
    runs = aws.store.past_runs(prepared.start.target_arn, now - timedelta(minutes=minutes))
    return guards.cooling_down(runs, prepared.contract.id, minutes, now) is not None
