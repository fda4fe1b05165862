"""From an alarm to its run, whether an event (``dispatch_alarm``) or the sweep has noticed it.

An alarm starts a run, joins the incident that works on its target, or, where there are too many
runs at once, starts a run that asks and is gathered under a parent incident (a storm).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from oncall import alarms
from oncall import contract as contracts
from oncall.alarms import Ignore, Misconfigured
from oncall.counting import count
from oncall.errors import BadInput
from oncall.incident import Entry, Incident
from oncall.times import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.alarms import Alarm, Start
    from oncall.contract import Contract
    from oncall.services import Services

STORM = "storm"
"""The runbook of a parent incident; no machine runs it."""
STORM_WINDOW = timedelta(minutes=5)
_STORM_LEASE = timedelta(hours=6)
_STORM_ID = f"{STORM}-%Y%m%dT%H%MZ"
_NAMED_LENGTH = 64
"""Of what a tag calls a runbook, which may be any text."""


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """What the template tells the functions that start runs."""

    machines: Mapping[str, str]
    """State machine ARNs by runbook id."""
    storm_incidents: int
    """More new runs than this in five minutes are a storm."""

    @classmethod
    def from_environment(cls) -> DispatchSettings:
        """Read ``STATE_MACHINES`` (JSON) and ``STORM_INCIDENTS``. Raises ``KeyError``."""
        return cls(
            machines=json.loads(os.environ["STATE_MACHINES"]),
            storm_incidents=int(os.environ["STORM_INCIDENTS"]),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """An alarm that may start a run."""

    live: Alarm
    contract: Contract
    start: Start
    machine: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An alarm fires that starts nothing, for a mistake of whoever tagged it: on-call is paged."""

    incident: str
    text: str
    """What to fix."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run has been started."""

    incident: str
    storm: str
    """The parent incident that gathers it, ``""`` for none."""


def read_tags(aws: Services, alarm_arn: str) -> Mapping[str, str]:
    """Return an alarm's tags; none when the alarm is gone."""
    try:
        answer = aws.client("cloudwatch").list_tags_for_resource(ResourceARN=alarm_arn)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ResourceNotFoundException", "ResourceNotFound"}:
            return {}
        raise
    return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}


def read_alarm(aws: Services, name: str) -> Alarm | None:
    """Read an alarm as it is now; ``None`` when it is gone."""
    answer = aws.client("cloudwatch").describe_alarms(
        AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    for described in [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]:
        return alarms.read_alarm(described)
    return None


def prepare(
    aws: Services, settings: DispatchSettings, live: Alarm, tags: Mapping[str, str]
) -> Prepared | Refused | Ignore:
    """Decide what a tagged alarm starts; on-call is paged where its tags do not say."""
    try:
        return _prepared(settings, live, tags)
    except Misconfigured as error:
        return Refused(_refuse(aws, live, tags, error), str(error))


def _prepared(
    settings: DispatchSettings, live: Alarm, tags: Mapping[str, str]
) -> Prepared | Ignore:
    runbook = tags[alarms.RUNBOOK_TAG]
    machine = settings.machines.get(runbook, "")
    if not machine:
        raise Misconfigured(
            f"Alarm {live.name}: no runbook {runbook!r} is deployed here; set its tag "
            f"{alarms.RUNBOOK_TAG} to one of {', '.join(sorted(settings.machines))}."
        )
    try:
        contract = contracts.load(runbook)
    except BadInput as error:
        raise Misconfigured(f"Alarm {live.name}: {error}") from error
    start = alarms.decide(live, tags, contract)
    if isinstance(start, Ignore):
        return start
    return Prepared(live, contract, start, machine)


def _refuse(aws: Services, live: Alarm, tags: Mapping[str, str], error: Misconfigured) -> str:
    """Open an incident that has ended before it began, which pages: an alarm fires, nobody acts.

    Returns its id; each sentence is told once in an alarm's state period, whoever finds it.
    """
    sentence = str(error)
    started = alarms.execution_name(live.arn, live.changed_at)
    name = alarms.derived_name(started, f"refused-{alarms.digest(sentence)}")
    reason = alarms.in_brief(live)
    happened = f"Alarm {live.name} fired{f': {reason}' if reason else ''}."
    aws.store.open_closed(
        Incident(
            id=name,
            runbook=alarms.shortened(tags[alarms.RUNBOOK_TAG], _NAMED_LENGTH),
            title="An alarm that starts nothing",
            target=live.arn,
            target_name=live.name,
            mode="ask",
            trigger={
                "kind": "alarm",
                "by": "",
                "reason": reason,
                "alarm": {
                    "name": live.name,
                    "arn": live.arn,
                    "changed_at": iso(live.changed_at),
                },
            },
            execution="",
            fence=0,
            outcome="refused",
            summary=f"{live.name} needs you: no runbook was started. {sentence}",
            happened=happened,
            doing=f"Nothing: {sentence}",
            need="Take care of what the alarm says yourself; nothing was changed. Once that is "
            "mended, the runbook is started within five minutes if the alarm still fires.",
        ),
        Entry(
            id="refused",
            kind="paged",
            text=f"{happened} I cannot start its runbook: {sentence}",
            severity="error",
        ),
    )
    return name


def launch(
    aws: Services, settings: DispatchSettings, prepared: Prepared, request: str
) -> Started | Ignore:
    """Start the run or join the incident that holds its target; safe to repeat.

    ``request`` is the id of the Lambda request, which stays the same when Lambda tries it again.
    """
    start, live = prepared.start, prepared.live
    arn = alarms.execution_arn(prepared.machine, start.name)
    execution = read_execution(aws, arn)
    if execution is not None:
        return _started_before(aws, settings, prepared, execution, request)
    holder = aws.store.holder(start.target_arn)
    if holder and aws.store.note_from_outside(holder, _joining(start, live)):
        return Ignore("joined", f"Alarm {live.name} joins incident {holder} on {start.target}.")
    count = aws.store.count("incidents", STORM_WINDOW)
    storm = _storm_id(aws.clock()) if count > settings.storm_incidents else ""
    given = alarms.machine_input(prepared.contract, start, live, storm=storm, request=request)
    if not start_once(aws, prepared.machine, start.name, given):
        execution = read_execution(aws, arn) or {}
        return _started_before(aws, settings, prepared, execution, request)
    if storm:
        _gather(aws, settings, storm, prepared, f"{count} alarms in 5 minutes")
    return Started(start.name, storm)


def read_execution(aws: Services, arn: str) -> Mapping[str, Any] | None:
    """Return what ``DescribeExecution`` says; ``None`` when there is no such execution."""
    try:
        return aws.client("stepfunctions").describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return None
        raise


def start_once(aws: Services, machine: str, name: str, given: Mapping[str, Any]) -> bool:
    """Start an execution; ``False`` when one of that name exists already.

    AWS answers a repeated StartExecution with equal name and input as if it were the first.
    """
    try:
        aws.client("stepfunctions").start_execution(
            stateMachineArn=machine, name=name, input=json.dumps(given)
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionAlreadyExists":
            return False
        raise
    return True


def count_alarm(metric: str, **dimensions: str) -> None:
    """Count one alarm.

    ``AlarmsMisconfigured`` (tags or dimensions to be mended) is watched by an alarm of the stack.
    """
    count(metric, **dimensions)


def _started_before(
    aws: Services,
    settings: DispatchSettings,
    prepared: Prepared,
    execution: Mapping[str, Any],
    request: str,
) -> Started | Ignore:
    """Tell a run that this request has started on an earlier attempt from a duplicate event."""
    name = prepared.start.name
    given = json.loads(execution.get("input", "{}"))
    storm = str(given.get("storm", ""))
    if storm:
        # Whoever started the run may have ended before it got so far.
        _gather(aws, settings, storm, prepared)
    if given.get("alarm", {}).get("request") == request:
        return Started(name, storm)
    return Ignore("duplicate", f"Run {name} exists already.")


def _joining(start: Start, live: Alarm) -> Entry:
    reason = alarms.in_brief(live)
    return Entry(
        id=f"joined-{start.name}",
        kind="joined",
        text=f"Alarm {live.name} fires as well: {reason or 'no reason given'}",
        data={"alarm": live.name, "arn": live.arn, "changed_at": iso(live.changed_at)},
    )


def _storm_id(moment: datetime) -> str:
    """Name the storm of the window that ``moment`` is in."""
    seconds = int(STORM_WINDOW.total_seconds())
    begins = datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, UTC)
    return begins.strftime(_STORM_ID)


def _gather(
    aws: Services, settings: DispatchSettings, storm: str, prepared: Prepared, title: str = ""
) -> None:
    """Write a run into its storm's timeline; the first one opens the storm and pages."""
    parent = aws.store.find(storm)
    if parent is None:
        parent = aws.store.open(
            _new_storm(settings, storm, title),
            Entry(id="opened", kind="opened", text="Many alarms at once: a storm begins."),
            _STORM_LEASE,
        )
    if parent.seq == 1:
        aws.store.note_from_outside(
            storm,
            Entry(
                id="paged",
                kind="paged",
                text=f"{parent.happened} {parent.doing} {parent.need}",
                severity="critical",
            ),
        )
    name = prepared.start.name
    entry = Entry(
        id=f"joined-{name}",
        kind="joined",
        text=f"Alarm {prepared.live.name} → incident {name} on {prepared.start.target}.",
        data={"incident": name, "execution": alarms.execution_arn(prepared.machine, name)},
    )
    fields = {"title": title} if title else {}
    aws.store.note_from_outside(storm, entry, **fields)


def _new_storm(settings: DispatchSettings, storm: str, title: str) -> Incident:
    begins = datetime.strptime(storm, _STORM_ID).replace(tzinfo=UTC)
    return Incident(
        id=storm,
        runbook=STORM,
        title=title or "Many alarms in 5 minutes",
        target=f"storm#{storm.removeprefix(f'{STORM}-')}",
        target_name="many targets",
        mode="ask",
        trigger={
            "kind": STORM,
            "by": "",
            "reason": f"more than {settings.storm_incidents} new runs in 5 minutes",
            "alarm": {},
            "window_ends": iso(begins + STORM_WINDOW),
        },
        execution="",
        fence=0,
        happened=f"More than {settings.storm_incidents} runs were started by alarms within 5 "
        f"minutes, since {begins:%H:%M} UTC.",
        doing="Each further run asks before it changes anything; the timeline lists them.",
        need="Look for one common cause, such as a deployment, a dependency or an account limit, "
        "and answer the runs that ask.",
    )
