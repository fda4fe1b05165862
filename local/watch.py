"""Watching a story: what is to be seen in AWS at a moment, and what is left at the end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from local.emulator import RunningAws
from local.playground import IAM_APPROVER, STACK
from oncall.errors import NotFound
from oncall.headline import behind
from oncall.levers import LEVERS
from oncall.services import Services, Settings
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from local.playground import Playground
    from local.stories import Row, Story
    from oncall.incident import Incident

_LOOK_SECONDS = 0.4
_CLEAR_SECONDS = 30
_ABORT_SECONDS = 15

_ENDS = frozenset(
    {"ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"}
)

type SettingKey = tuple[str, str]
"""Lever and resource."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to see at one moment; ``""`` means "not yet"."""

    now: str
    rows: Sequence[Row] = ()
    alarm: str = ""
    state: str = ""
    """The state of the machine that the run is in."""
    doing: str = ""
    """The incident's own sentence."""
    entered: Sequence[str] = ()
    """The states that the run has entered, in order."""
    over: bool = False
    """Whether the run has ended."""
    threshold: float | None = None
    """The alarm's."""
    incident: Incident | None = None


class Watch:
    """Reads what there is to see from AWS; changes nothing but by ``abort``."""

    def __init__(self, ground: Playground, story: Story) -> None:
        self._ground = ground
        self._story = story
        aws = ground.account
        self._alarm = story.alarm(ground)
        self._rows = story.view(ground)
        self._lambda = aws.client("lambda")
        self._cloudwatch = aws.client("cloudwatch")
        self._sfn = aws.client("stepfunctions")
        self._services = Services(_settings(ground), aws.session())
        words = story.runbook.split("-")
        self._machine = ground.outputs["".join(map(str.capitalize, words)) + "Machine"]
        self._earlier = {run["executionArn"] for run in self._runs()}
        self._run: Any = None
        self._entered: list[str] = []
        self._last_event = 0
        self._over = False

    def look(self) -> Glance:
        """Look at what the story shows, its alarm and the run."""
        found = self._cloudwatch.describe_alarms(AlarmNames=[self._alarm])["MetricAlarms"][0]
        self._walk()
        incident = self.incident()
        alarm = str(found["StateValue"])
        now = f"Waiting for the alarm {self._alarm}"
        if self._run:
            now = "The runbook runs"
        elif alarm == "ALARM":
            now = "The alarm fired; waiting for the runbook to start"
        if incident and incident.status != "open":
            now = "The run has ended; waiting until everybody is told"
        return Glance(
            now=now,
            rows=self._rows(),
            alarm=alarm,
            state=self._entered[-1] if self._entered else "",
            doing=incident.doing if incident else "",
            entered=tuple(self._entered),
            over=self._over,
            threshold=found.get("Threshold"),
            incident=incident,
        )

    def clear(self, show: Callable[[Glance], None]) -> None:
        """On an emulator that runs on: empty the queues, so that an earlier story's alarm ends."""
        if (glance := self.look()).alarm != "ALARM":
            return
        sqs = self._ground.account.client("sqs")
        pilot = self._ground.pilot
        for url in (pilot.queue_url, pilot.dead_letter_queue_url):
            sqs.purge_queue(QueueUrl=url)
        until = time.monotonic() + _CLEAR_SECONDS
        while glance.alarm == "ALARM" and time.monotonic() < until:
            show(replace(glance, now="Clearing what an earlier story has left in the queues"))
            time.sleep(_LOOK_SECONDS)
            glance = self.look()

    def calm(self, show: Callable[[Glance], None], until: float) -> None:
        """Show the calm before the trouble."""
        while time.monotonic() < until:
            show(replace(self.look(), now=f"Steady load: {self._story.steady.words}"))
            time.sleep(_LOOK_SECONDS)

    def until_told(self, show: Callable[[Glance], None], until: float) -> str:
        """Look until the incident is closed and told; return what was overdue, or ``""``."""
        while True:
            glance = self.look()
            show(glance)
            incident = glance.incident
            if incident and self.told(incident):
                return ""
            if time.monotonic() > until:
                return _overdue(glance, incident)
            time.sleep(_LOOK_SECONDS)

    def incident(self) -> Incident | None:
        """Return the run's incident, whole."""
        found = self._found()
        return self._ground.store.load(found.id) if found else None

    def settings(self) -> dict[SettingKey, Any]:
        """Read every setting of the pilot that a runbook could change."""
        pilot = self._ground.pilot
        mapping = self._lambda.get_event_source_mapping(UUID=pilot.worker_mapping_id)
        arn = str(mapping["EventSourceMappingArn"])
        api = self._lambda.get_function_configuration(FunctionName=pilot.api_function)
        keys = (
            ("mapping-concurrency", arn),
            ("mapping-enabled", arn),
            ("reserved-concurrency", str(mapping["FunctionArn"])),
            ("reserved-concurrency", str(api["FunctionArn"])),
            ("back-pressure", pilot.back_pressure_parameter),
        )
        return {key: self._read(key) for key in keys}

    def live(self, incident: Incident | None) -> dict[SettingKey, Any]:
        """Read the settings that the incident has changed."""
        changes = incident.changes if incident else ()
        keys = [(change.lever, change.resource) for change in changes]
        return {key: self._read(key) for key in keys}

    def left(self, before: Mapping[SettingKey, Any], incident: Incident | None) -> tuple[str, ...]:
        """Say what is not as it was: settings, locks, leases, open incidents, owed reports."""
        now = self.settings()
        said = [
            f"{lever} of {resource} is {tell(now[lever, resource])}, was {tell(value)}"
            for (lever, resource), value in before.items()
            if now[lever, resource] != value
        ]
        said += [
            f"{change.name} is recorded as {change.state}"
            for change in (incident.changes if incident else ())
            if change.state not in {"put_back", "not_made"}
        ]
        words = {
            "lock": "a lock is held",
            "change": "a setting is leased",
            "incident": "an incident is open",
            "report": "a report is owed",
        }
        said += [
            f"{text}: {row['pk']}"
            for kind, text in words.items()
            for row in self._ground.store.opened(kind)
        ]
        return tuple(said)

    def abort(self, show: Callable[[Glance], None]) -> None:
        """Stop a run that still goes and wait, not for long, until all is put back.

        Only on an emulator that runs on: the embedded one takes the run with it.
        """
        incident = self._found()
        running = isinstance(self._ground.account, RunningAws)
        if not running or incident is None or incident.status != "open":
            return
        decision = {
            "incident": incident.id,
            "decision": "abort",
            "by": IAM_APPROVER,
            "reason": "the play was stopped",
        }
        function = self._ground.outputs["DecisionFunction"]
        self._lambda.invoke(FunctionName=function, Payload=json.dumps(decision).encode())
        until = time.monotonic() + _ABORT_SECONDS
        while time.monotonic() < until:
            show(Glance("Aborting the run, so that it puts back what it has changed"))
            found = self._found()
            if found is None or found.status != "open":
                return
            time.sleep(_LOOK_SECONDS)

    def _read(self, key: SettingKey) -> Any:
        lever, resource = key
        try:
            return LEVERS[lever].read(self._services, resource)
        except NotFound:
            return None

    def _runs(self) -> Sequence[Any]:
        return self._sfn.list_executions(stateMachineArn=self._machine)["executions"]

    def _walk(self) -> None:
        """Add the states that the run has entered since the last look."""
        if self._run is None:
            new = [run for run in self._runs() if run["executionArn"] not in self._earlier]
            self._run = new[-1] if new else None
        if self._run is None or self._over:
            return
        entered: list[str] = []
        last = self._last_event
        for event in self._events():
            if event["id"] <= last:
                break
            self._last_event = max(self._last_event, event["id"])
            self._over |= event["type"] in _ENDS
            if "stateEnteredEventDetails" in event:
                entered.append(str(event["stateEnteredEventDetails"]["name"]))
        self._entered += reversed(entered)

    def _events(self) -> Iterator[Any]:
        """Return the run's events, the latest first."""
        pages = self._sfn.get_paginator("get_execution_history").paginate(
            executionArn=self._run["executionArn"],
            reverseOrder=True,
            includeExecutionData=False,
            PaginationConfig={"PageSize": 50},
        )
        return (event for page in pages for event in page["events"])

    def _found(self) -> Incident | None:
        return self._ground.store.find(self._run["name"]) if self._run else None

    def told(self, incident: Incident) -> bool:
        """Whether the incident is closed and the channels know of it."""
        state = self._ground.store.report_state(incident.id)
        return incident.status != "open" and not behind(incident, state)


def _overdue(glance: Glance, incident: Incident | None) -> str:
    if glance.alarm != "ALARM" and not glance.state:
        return (
            "The alarm did not fire. An emulator that runs elsewhere has to look at its alarms "
            "every second: python -m local.aws --resolution 1."
        )
    if not glance.state:
        return "The alarm fired, but no run started."
    if incident is None:
        return f"The run opened no incident; its last state is {glance.state}."
    if incident.status == "open":
        return f"The run was still at {glance.state}."
    return "The run ended, but Slack and PagerDuty were not told everything."


def _settings(ground: Playground) -> Settings:
    """Return what levers need to read: no more than a region."""
    return Settings(
        table=ground.outputs["IncidentsTable"],
        stack=STACK,
        kill_switch="",
        period_seconds=1,
        calendars=(),
        runs_per_hour=0,
        approvers=(),
        account_floor=0,
        region=ground.account.region,
    )
