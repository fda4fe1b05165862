"""Stories: real trouble on the playground, followed until the incident's last word is told.

A story makes trouble for the pilot and then only watches: what happens is what the deployed
templates do. It ends when the incident is closed and every channel has been told so.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3

from local.aws import AwsAccount
from local.playground import IAM_APPROVER, REGION, STACK, Playground
from oncall.changes import tell
from oncall.errors import BadInput, NotFound
from oncall.levers import LEVERS
from oncall.messages import told_elsewhere
from oncall.services import Services, Settings
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from local.pagerduty import FakePagerDuty
    from local.slack import FakeSlack, Message
    from oncall.record import Incident

PATIENCE_SECONDS = 90.0
"""From the trouble to the last word told."""
_LOOK_SECONDS = 0.4
_STEADY_PER_SECOND = 15
_CALM_SECONDS = 6
"""Steady load before the trouble: metrics need a "before"."""
_SPIKE = 400
_CLEAR_SECONDS = 30
_ABORT_SECONDS = 15
_AWS_HOSTS = ("amazonaws.com", "amazonaws.com.cn", "api.aws")

type SettingKey = tuple[str, str]
"""Lever and resource."""


@dataclass(frozen=True, slots=True)
class Story:
    """What is played: a runbook, and what is done to the deployed stack before the trouble."""

    id: str
    title: str
    runbook: str
    prepare: Callable[[Playground], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to see at one moment; ``None`` and ``""`` mean "not yet"."""

    now: str
    waiting: int | None = None
    in_flight: int | None = None
    cap: int | None = None
    alarm: str = ""
    state: str = ""
    """The state of the machine that the run is in."""
    doing: str = ""
    """The incident's own sentence."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a story went."""

    story: Story
    incident: Incident | None
    slack: FakeSlack
    pagerduty: FakePagerDuty
    trouble_at: datetime
    now: Mapping[SettingKey, Any] = field(default_factory=dict)
    """The live value of each setting that the incident has changed."""
    left: Sequence[str] = ()
    """Sentences on what is not as it was before, read from AWS and not from the record."""
    overdue: str = ""
    """What had not happened when patience ran out."""

    @property
    def outcome(self) -> str:
        """The incident's outcome; ``timed_out`` when it had none in time."""
        return "timed_out" if self.overdue or not self.incident else self.incident.outcome

    def after(self, moment: str) -> float | None:
        """Return the seconds from the trouble to an ISO time, ``None`` without one."""
        return (parse(moment) - self.trouble_at).total_seconds() if moment else None

    @property
    def alarm_after(self) -> float | None:
        """Seconds from the trouble to the alarm."""
        alarm = self.incident.trigger.get("alarm", {}) if self.incident else {}
        return self.after(str(alarm.get("changed_at", "")))

    @property
    def first_change_after(self) -> float | None:
        """Seconds from the trouble to the first change that was made."""
        return self.after(self._at("changed"))

    @property
    def drained_after(self) -> float | None:
        """Seconds from the trouble to the proof of relief: the look that let settings go back."""
        entries = self.incident.entries if self.incident else ()
        before = [entry.kind for entry in entries].index("put_back") if self._at("put_back") else 0
        looks = [entry.at for entry in entries[:before] if entry.kind == "verified"]
        return self.after(looks[-1]) if looks else None

    @property
    def ended_after(self) -> float | None:
        """Seconds from the trouble to the incident's end."""
        return self.after(self.incident.closed_at) if self.incident else None

    def _at(self, kind: str) -> str:
        entries = self.incident.entries if self.incident else ()
        return next((entry.at for entry in entries if entry.kind == kind), "")


def _set_kill_switch(ground: Playground, value: str) -> None:
    account(ground).client("ssm").put_parameter(
        Name=ground.outputs["KillSwitch"], Value=value, Overwrite=True
    )


def _throw_kill_switch(ground: Playground) -> None:
    _set_kill_switch(ground, "stopped by the story")


STORIES: Mapping[str, Story] = {
    story.id: story
    for story in (
        Story("queue-saturation", "A burst of orders saturates a queue", "queue-saturation"),
        Story(
            "kill-switch",
            "The same burst, with the kill switch thrown: nothing is changed, on-call is woken",
            "queue-saturation",
            _throw_kill_switch,
        ),
    )
}


def account(ground: Playground) -> AwsAccount:
    """Return the account that the playground lives in, once it is open."""
    assert ground.aws is not None  # noqa: S101 -- an open playground has one
    return ground.aws


class RunningAws(AwsAccount):
    """An emulator that another process runs; the AWS_* variables have to point at it."""

    def __init__(self) -> None:
        self._session = boto3.Session()
        self.client = self._session.client
        self.region = str(self._session.region_name)
        self.account = self.client("sts").get_caller_identity()["Account"]

    @property
    def endpoint_url(self) -> str:
        """The address of every service."""
        return os.environ["AWS_ENDPOINT_URL"]


@contextmanager
def running_aws(endpoint_url: str) -> Iterator[RunningAws]:
    """Point this process at a running emulator, with dummy credentials.

    As long as it lasts every other AWS_* variable is gone, so that no client can reach the real
    AWS. Raises ``BadInput`` for an address that is AWS's own or none.
    """
    address = urlsplit(endpoint_url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise BadInput(
            f"--endpoint-url: {endpoint_url!r} is no address. Give for example "
            f"--endpoint-url http://127.0.0.1:4566."
        )
    if address.hostname.endswith(_AWS_HOSTS):
        raise BadInput(
            "--endpoint-url: a story makes trouble, so it plays on an emulator and never on AWS. "
            "Give for example --endpoint-url http://127.0.0.1:4566."
        )
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    # MiniStack's access key is the account's number.
    key = before.get("AWS_ACCESS_KEY_ID", "")
    region = before.get("AWS_REGION") or before.get("AWS_DEFAULT_REGION") or REGION
    ours = {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": key if re.fullmatch(r"\d{12}", key) else "123456789012",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield RunningAws()
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def play(
    story: Story,
    ground: Playground,
    show: Callable[[Glance], None],
    patience: float = PATIENCE_SECONDS,
) -> Played:
    """Play a story on an open playground.

    ``show`` is called at every look. A run that still goes when the play is left early (Ctrl-C) is
    aborted, which puts back what it has changed.
    """
    watch = _Watch(ground, story)
    watch.clear(show)
    story.prepare(ground)
    settings = watch.settings()
    stop = threading.Event()
    load = ground.load(stop=stop)
    # One thread: its errors must surface, and leaving the block waits for its last batch.
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            seconds = _CALM_SECONDS + patience
            steady = pool.submit(load.steady, _STEADY_PER_SECOND, seconds)
            watch.calm(show, until=time.monotonic() + _CALM_SECONDS)
            trouble_at = datetime.now(UTC)
            show(replace(watch.look(), now=f"A burst of {_SPIKE} orders"))
            load.spike(_SPIKE)
            overdue = watch.until_told(show, until=time.monotonic() + patience)
        except BaseException:
            watch.abort(show)
            raise
        finally:
            stop.set()
            _set_kill_switch(ground, "run")
        steady.result()
    incident = watch.incident()
    if overdue:
        watch.abort(show)
    return Played(
        story=story,
        incident=incident,
        slack=ground.slack,
        pagerduty=ground.pagerduty,
        trouble_at=trouble_at,
        now=watch.live(incident),
        left=watch.left(settings, incident),
        overdue=overdue,
    )


class _Watch:
    """Reads what there is to see from AWS; changes nothing but by ``abort``."""

    def __init__(self, ground: Playground, story: Story) -> None:
        self._ground = ground
        aws = account(ground)
        self._sqs = aws.client("sqs")
        self._lambda = aws.client("lambda")
        self._cloudwatch = aws.client("cloudwatch")
        self._sfn = aws.client("stepfunctions")
        self._services = Services(_settings(ground), aws.session())
        words = story.runbook.split("-")
        self._machine = ground.outputs["".join(map(str.capitalize, words)) + "Machine"]
        self._earlier = {run["executionArn"] for run in self._runs()}
        self._run: Any = None

    def look(self) -> Glance:
        """Look at the queue, its alarm and the run."""
        pilot = self._ground.pilot
        depth = self._sqs.get_queue_attributes(
            QueueUrl=pilot.queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
            ],
        )["Attributes"]
        mapping = self._lambda.get_event_source_mapping(UUID=pilot.worker_mapping_id)
        alarms = self._cloudwatch.describe_alarms(AlarmNames=[pilot.backlog_alarm])
        state = self._state()
        incident = self._found()
        alarm = str(alarms["MetricAlarms"][0]["StateValue"])
        now = f"Waiting for the alarm {pilot.backlog_alarm}"
        if self._run:
            now = "The runbook runs"
        elif alarm == "ALARM":
            now = "The alarm fired; waiting for the runbook to start"
        if incident and incident.status != "open":
            now = "The run has ended; waiting until everybody is told"
        return Glance(
            now=now,
            waiting=int(depth["ApproximateNumberOfMessages"]),
            in_flight=int(depth["ApproximateNumberOfMessagesNotVisible"]),
            cap=mapping.get("ScalingConfig", {}).get("MaximumConcurrency"),
            alarm=alarm,
            state=state,
            doing=incident.doing if incident else "",
        )

    def clear(self, show: Callable[[Glance], None]) -> None:
        """On an emulator that runs on: empty the queue, so that an earlier story's alarm ends."""
        if (glance := self.look()).alarm != "ALARM":
            return
        self._sqs.purge_queue(QueueUrl=self._ground.pilot.queue_url)
        until = time.monotonic() + _CLEAR_SECONDS
        while glance.alarm == "ALARM" and time.monotonic() < until:
            show(replace(glance, now="Clearing what an earlier story has left in the queue"))
            time.sleep(_LOOK_SECONDS)
            glance = self.look()

    def calm(self, show: Callable[[Glance], None], until: float) -> None:
        """Show the calm before the trouble."""
        while time.monotonic() < until:
            now = f"Steady load: {_STEADY_PER_SECOND} orders a second"
            show(replace(self.look(), now=now))
            time.sleep(_LOOK_SECONDS)

    def until_told(self, show: Callable[[Glance], None], until: float) -> str:
        """Look until the incident is closed and told; return what was overdue, or ``""``."""
        while True:
            glance = self.look()
            show(glance)
            incident = self.incident()
            if incident and incident.status != "open" and self._told(incident):
                return ""
            if time.monotonic() > until:
                return _overdue(glance, incident)
            time.sleep(_LOOK_SECONDS)

    def incident(self) -> Incident | None:
        """Return the run's incident, whole."""
        found = self._found()
        return self._ground.store.load(found.id) if found else None

    def settings(self) -> dict[SettingKey, Any]:
        """Read every setting that the runbook could change."""
        pilot = self._ground.pilot
        mapping = self._lambda.get_event_source_mapping(UUID=pilot.worker_mapping_id)
        arn = str(mapping["EventSourceMappingArn"])
        keys = (
            ("mapping-concurrency", arn),
            ("mapping-enabled", arn),
            ("reserved-concurrency", str(mapping["FunctionArn"])),
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
        aws = account(self._ground)
        if not isinstance(aws, RunningAws) or incident is None or incident.status != "open":
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

    def _state(self) -> str:
        """Return the state that the run has entered last."""
        if self._run is None:
            new = [run for run in self._runs() if run["executionArn"] not in self._earlier]
            self._run = new[-1] if new else None
        if self._run is None:
            return ""
        history = self._sfn.get_execution_history(
            executionArn=self._run["executionArn"],
            reverseOrder=True,
            maxResults=20,
            includeExecutionData=False,
        )
        names = (
            event["stateEnteredEventDetails"]["name"]
            for event in history["events"]
            if "stateEnteredEventDetails" in event
        )
        return str(next(names, ""))

    def _found(self) -> Incident | None:
        return self._ground.store.find(self._run["name"]) if self._run else None

    def _told(self, incident: Incident) -> bool:
        """Whether the channels know of the end: Slack's header says so and no report is owed."""
        reports = self._ground.store.opened("report")
        if any(str(row["incident"]) == incident.id for row in reports):
            return False
        closed = parse(incident.closed_at).timestamp()
        headers = [m for m in self._ground.slack.messages if m.thread_ts is None]
        return told_elsewhere(incident) or any(
            incident.id in _shown(header) and header.versions[-1].at >= closed for header in headers
        )


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


def _shown(message: Message) -> str:
    return str(message.blocks)


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
        region=account(ground).region,
    )


def document(played: Played) -> dict[str, Any]:
    """Return a play as JSON: the incident, what was changed, and what people were told."""
    incident = played.incident
    return {
        "incident": incident.id if incident else None,
        "runbook": played.story.runbook,
        "target": incident.target if incident else None,
        "mode": incident.mode if incident else None,
        "outcome": played.outcome,
        "timeline": [
            {"at": entry.at, "kind": entry.kind, "text": entry.text}
            for entry in (incident.entries if incident else ())
        ],
        "changes": [
            {
                "setting": change.name,
                "before": change.before,
                "after": change.after,
                "now": played.now.get((change.lever, change.resource)),
                "state": change.state,
                "undo": change.undo,
            }
            for change in (incident.changes if incident else ())
        ],
        "slack": [
            {
                "ts": message.ts,
                "thread_ts": message.thread_ts,
                "text": _as_read(played.slack, message),
                "edited": _iso(message.edited) if message.edited else None,
            }
            for message in played.slack.messages
        ],
        "pagerduty": pagerduty_told(played.pagerduty),
    }


def threads(played: Played) -> list[str]:
    """Return each Slack thread as text, as it reads now."""
    slack = played.slack
    roots = [message.ts for message in slack.messages if message.thread_ts is None]
    return [slack.render_text(slack.thread(ts)) for ts in roots]


def pagerduty_told(pagerduty: FakePagerDuty) -> list[dict[str, Any]]:
    """Return what PagerDuty was told, change events first: ``{"kind", "summary", "woke", …}``."""
    changes = [
        {"kind": "change", "summary": event["payload"]["summary"], "woke": False}
        for event in pagerduty.change_events
    ]
    events = [
        {
            "kind": event["event_action"],
            "summary": event.get("payload", {}).get("summary", incident.title),
            "severity": event.get("payload", {}).get("severity", incident.severity),
            "dedup_key": incident.dedup_key,
            "woke": number == 0,
        }
        for incident in pagerduty.incidents
        for number, event in enumerate(incident.events)
    ]
    return [*changes, *events]


def _as_read(slack: FakeSlack, message: Message) -> str:
    """Return a message's text without its time, unwrapped."""
    text = slack.render_text(replace(message, thread_ts=None), width=100_000)
    return "\n".join(line.strip() for line in text.splitlines()[1:])


def _iso(seconds: float) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))
