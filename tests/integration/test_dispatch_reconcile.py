"""From alarms to runs, and what the sweep finds, on the embedded AWS."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from botocore.exceptions import ClientError

import close_incident
import dispatch_alarm
import hand_over
import put_back
import reconcile
from oncall import alarms, changes
from oncall.dispatch import DispatchSettings
from oncall.errors import LockLost, SweepIncomplete
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.services import Services, Settings
from oncall.step import Call
from oncall.times import iso
from tests.integration.tables import TABLE, make_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.aws import AwsAccount

WAITING = {
    "StartAt": "Work",
    "States": {"Work": {"Type": "Wait", "Seconds": 300, "End": True}},
}
FAILING = {"StartAt": "Fail", "States": {"Fail": {"Type": "Fail", "Error": "Broken"}}}
STUBS = """
  Inbox: {Type: AWS::SQS::Queue}
  Report:
    Type: AWS::Serverless::Function
    Properties: &stub
      FunctionName: note-report
      Environment: {Variables: {INBOX: !Ref Inbox}}
      Policies: [{SQSSendMessagePolicy: {QueueName: !GetAtt Inbox.QueueName}}]
  Decision:
    Type: AWS::Serverless::Function
    Properties: {<<: *stub, FunctionName: note-decision}
"""
STUB_CODE = """
import json, os, boto3

def handler(event, context):
    body = {"function": context.function_name, "event": event}
    boto3.client("sqs").send_message(QueueUrl=os.environ["INBOX"], MessageBody=json.dumps(body))
"""


@dataclass
class World:
    """An account with the table, two machines and a way to see what happened."""

    aws: AwsAccount
    machine: str
    wind_down: str
    inbox: str = ""
    shift: timedelta = field(default_factory=timedelta)
    requests: Any = field(default_factory=lambda: itertools.count(1))

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def services(self) -> Services:
        settings = Settings(
            table=TABLE,
            stack="runbooks",
            kill_switch="/runbooks/kill-switch",
            period_seconds=60,
            calendars=(),
            runs_per_hour=100,
            approvers=(),
            account_floor=100,
            region=self.aws.region,
        )
        return Services(settings, self.aws.session(), self.clock)

    def dispatch_settings(self, storm_incidents: int = 1000) -> DispatchSettings:
        return DispatchSettings({"queue-saturation": self.machine}, storm_incidents)

    def dispatch(
        self, event: Mapping[str, Any], storm_incidents: int = 1000, request: str = ""
    ) -> Mapping[str, str]:
        return dispatch_alarm.dispatch_alarm(
            event,
            self.services(),
            self.dispatch_settings(storm_incidents),
            request or f"request-{next(self.requests)}",
        )

    def sweep(self, event: Mapping[str, Any] | None = None, grace: int = 0) -> Mapping[str, int]:
        settings = reconcile.SweepSettings(
            dispatch=self.dispatch_settings(),
            grace=timedelta(seconds=grace),
            wind_down=self.wind_down,
            report_function="note-report",
            decision_function="note-decision",
        )
        return reconcile.reconcile(
            event or {}, self.services(), settings, f"request-{next(self.requests)}"
        )

    def refused(self) -> list[str]:
        """Return the incidents that ended before they began."""
        items = self.aws.session().resource("dynamodb").Table(TABLE).scan()["Items"]
        return [str(one["id"]) for one in items if one.get("outcome") == "refused"]

    def tag(self, alarm: str, key: str, value: str) -> None:
        cloudwatch = self.aws.client("cloudwatch")
        found = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]
        cloudwatch.tag_resource(ResourceARN=found["AlarmArn"], Tags=[{"Key": key, "Value": value}])

    def alarm(
        self,
        name: str = "orders-backlog",
        state: Literal["OK", "ALARM"] = "ALARM",
        queue: str = "orders",
        **tags: str,
    ) -> str:
        """Put a tagged alarm into a state; return its ARN."""
        cloudwatch = self.aws.client("cloudwatch")
        tags = {"runbook": "queue-saturation", **{k.replace("_", ":"): v for k, v in tags.items()}}
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/SQS",
            MetricName="ApproximateNumberOfMessagesVisible",
            Dimensions=[{"Name": "QueueName", "Value": queue}],
            Statistic="Maximum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=100.0,
            ComparisonOperator="GreaterThanThreshold",
            Tags=[{"Key": key, "Value": value} for key, value in tags.items() if value],
        )
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="900 > 100")
        return f"arn:aws:cloudwatch:{self.aws.region}:{self.aws.account}:alarm:{name}"

    def event(self, name: str = "orders-backlog", previous: str = "OK") -> dict[str, Any]:
        """Return the event of an alarm's last transition, as CloudWatch sends it."""
        answer = self.aws.client("cloudwatch").describe_alarms(
            AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        alarm: Any = [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])][0]
        moved = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
        return {
            "source": "aws.cloudwatch",
            "detail-type": "CloudWatch Alarm State Change",
            "resources": [alarm["AlarmArn"]],
            "detail": {
                "alarmName": name,
                "state": {
                    "value": alarm["StateValue"],
                    "timestamp": moved.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
                    + "+0000",
                },
                "previousState": {"value": previous},
            },
        }

    def executions(self, machine: str = "") -> list[str]:
        found = self.aws.client("stepfunctions").list_executions(
            stateMachineArn=machine or self.machine
        )
        return sorted(execution["name"] for execution in found["executions"])

    def given(self, name: str, machine: str = "") -> dict[str, Any]:
        arn = alarms.execution_arn(machine or self.machine, name)
        described = self.aws.client("stepfunctions").describe_execution(executionArn=arn)
        found: dict[str, Any] = json.loads(described["input"])
        return found

    def stop(self, name: str) -> None:
        arn = alarms.execution_arn(self.machine, name)
        self.aws.client("stepfunctions").stop_execution(executionArn=arn, cause="test")

    def open(
        self, name: str = "incident-1", target: str = "orders", *, run: bool = True, **fields: Any
    ) -> Run:
        """Open an incident, with its execution running unless ``run`` says otherwise."""
        if run:
            self.aws.client("stepfunctions").start_execution(
                stateMachineArn=self.machine, name=name, input="{}"
            )
        new = Incident(
            id=name,
            runbook="queue-saturation",
            title="Drain a saturated queue",
            target=self.arn(target),
            target_name=target,
            mode="auto",
            trigger={"kind": "hand", "by": "", "reason": "", "alarm": {}},
            execution=alarms.execution_arn(self.machine, name),
            fence=0,
        )
        opened = self.services().store.open(
            replace(new, **fields), Entry(id="opened", kind="opened", text="x"), timedelta(hours=1)
        )
        return Run(name, opened.runbook, opened.target, opened.mode, opened.fence)

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:{self.aws.region}:{self.aws.account}:{queue}"

    def incident(self, name: str) -> Incident:
        return self.services().store.load(name)

    def change(self, run: Run, parameter: str = "/orders/back-pressure") -> None:
        """Change an SSM parameter from ``off`` to ``on`` on a run's behalf, leased for an hour."""
        ssm = self.aws.client("ssm")
        ssm.put_parameter(Name=parameter, Value="off", Type="String", Overwrite=True)
        change = Change(
            lever="back-pressure",
            resource=parameter,
            name=f"Back-pressure {parameter}",
            before="off",
            after="on",
            why="the queue is past its safe size",
            undo=f"aws ssm put-parameter --overwrite --name {parameter} --value off",
            expires_at=iso(self.clock() + timedelta(hours=1)),
        )
        store = self.services().store
        store.lease_change(run, change, Entry(id="intend", kind="intended", text="x"))
        ssm.put_parameter(Name=parameter, Value="on", Overwrite=True)
        store.update_change(
            run,
            replace(change, state="applied", incident=run.incident),
            Entry(id="changed", kind="changed", text="x"),
        )

    def setting(self, parameter: str = "/orders/back-pressure") -> str:
        return self.aws.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]

    def received(self) -> list[tuple[str, dict[str, str]]]:
        """Return what the stub functions have been invoked with."""
        found = []
        answer = self.aws.client("sqs").receive_message(
            QueueUrl=self.inbox, MaxNumberOfMessages=10, WaitTimeSeconds=1
        )
        for message in answer.get("Messages", []):
            body = json.loads(message["Body"])
            found.append((body["function"], body["event"]))
        return sorted(found, key=str)


@pytest.fixture
def world(
    aws: AwsAccount, stack: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "runbooks")
    made = stack(STUBS, STUB_CODE)
    make_table(aws.session())
    create = aws.client("stepfunctions").create_state_machine
    role = aws.client("iam").create_role(RoleName="machine", AssumeRolePolicyDocument="{}")["Role"][
        "Arn"
    ]
    return World(
        aws,
        machine=create(name="runbook", definition=json.dumps(WAITING), roleArn=role)[
            "stateMachineArn"
        ],
        wind_down=create(name="wind-down", definition=json.dumps(WAITING), roleArn=role)[
            "stateMachineArn"
        ],
        inbox=made["Inbox"],
    )


def counted(captured: str) -> Counter[str]:
    """Return the embedded metrics in what was printed: name, or name and reason."""
    found: Counter[str] = Counter()
    for line in captured.splitlines():
        if '"_aws"' in line:
            data = json.loads(line)
            assert data["service"] == "runbooks"
            for metric in data["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                name = metric["Name"]
                found[f"{name} {data['Reason']}" if "Reason" in data else name] += 1
    return found


# dispatch_alarm


def test_an_alarm_starts_its_runbook(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    arn = world.alarm(runbook_mode="observe")
    answer = world.dispatch(world.event(), request="r-1")
    assert answer["result"] == "started"
    assert world.executions() == [answer["incident"]]
    given = world.given(answer["incident"])
    changed_at = given["alarm"].pop("changed_at")
    assert given == {
        "queue": "orders",
        "mode": "observe",
        "reason": "900 > 100",
        "alarm": {"name": "orders-backlog", "arn": arn, "request": "r-1"},
    }
    assert answer["incident"].startswith(f"orders-backlog-{changed_at[:10].replace('-', '')}T")
    assert counted(capsys.readouterr().out) == {"AlarmsStarted": 1}


def test_one_event_delivered_five_times_at_once_starts_one_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.alarm()
    event = world.event()
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: world.dispatch(event), range(5)))
    assert len(world.executions()) == 1
    assert Counter(answer["reason"] for answer in answers) == {"": 1, "duplicate": 4}
    assert counted(capsys.readouterr().out) == {"AlarmsStarted": 1, "AlarmsIgnored duplicate": 4}


def test_the_next_period_of_an_alarm_is_a_run_of_its_own(world: World) -> None:
    world.alarm()
    world.dispatch(world.event())
    world.alarm(state="OK")
    time.sleep(1.1)  # names are to the second
    world.alarm()
    assert world.dispatch(world.event())["result"] == "started"
    assert len(world.executions()) == 2


def test_what_is_not_to_start_starts_nothing_and_is_counted_by_reason(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    world.alarm()
    event = world.event()
    world.dispatch(world.event(previous="INSUFFICIENT_DATA"))
    world.alarm(state="OK")
    world.dispatch(event)  # the alarm has moved on
    world.alarm("untagged", runbook="")
    world.dispatch(world.event("untagged"))
    world.alarm("typo", runbook="queue-saturatoin")
    world.dispatch(world.event("typo"))
    world.alarm("bad-mode", runbook_mode="yolo")
    world.dispatch(world.event("bad-mode"))
    world.alarm("muted")
    world.aws.client("cloudwatch").disable_alarm_actions(AlarmNames=["muted"])
    world.dispatch(world.event("muted"))
    world.alarm("deleted")
    deleted = world.event("deleted")
    world.aws.client("cloudwatch").delete_alarms(AlarmNames=["deleted"])
    world.dispatch(deleted)
    assert world.executions() == []
    found = counted(capsys.readouterr().out)
    gone = found.pop("AlarmsIgnored untagged") + found.pop("AlarmsIgnored late")
    assert gone == 3  # the tags of a deleted alarm may or may not be found
    assert found == {
        "AlarmsIgnored from_insufficient_data": 1,
        "AlarmsIgnored misconfigured": 2,
        "AlarmsMisconfigured": 2,
        "AlarmsIgnored silenced": 1,
    }
    assert "set its tag runbook to one of queue-saturation" in caplog.text
    assert "observe, ask, auto" in caplog.text


def test_a_composite_alarm_starts_the_run_that_its_tags_name(world: World) -> None:
    world.alarm()
    world.aws.client("cloudwatch").put_composite_alarm(
        AlarmName="orders-in-trouble",
        AlarmRule='ALARM("orders-backlog")',
        Tags=[
            {"Key": "runbook", "Value": "queue-saturation"},
            {"Key": "runbook:target", "Value": "orders"},
        ],
    )
    answer = world.dispatch(world.event("orders-in-trouble"))
    assert answer["result"] == "started"
    assert world.given(answer["incident"])["queue"] == "orders"


def test_an_alarm_on_a_busy_target_joins_its_incident(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.open()
    world.alarm("orders-age")
    event = world.event("orders-age")
    assert world.dispatch(event)["reason"] == "joined"
    assert world.dispatch(event)["reason"] == "joined"
    assert world.executions() == ["incident-1"]
    joined = [e for e in world.incident("incident-1").entries if e.kind == "joined"]
    assert [entry.text for entry in joined] == ["Alarm orders-age fires as well: 900 > 100"]
    assert counted(capsys.readouterr().out) == {"AlarmsIgnored joined": 2}


def test_a_storm_is_gathered_asks_pages_once_and_loses_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"alarm-{n}" for n in range(30)]
    for name in names:
        world.alarm(name, queue=name, runbook_mode="auto")
    events = [world.event(name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda event: world.dispatch(event, 10), events))
    results = Counter(answer["result"] for answer in answers)
    assert results == {"started": 10, "gathered": 20}
    assert counted(capsys.readouterr().out) == {"AlarmsStarted": 10, "AlarmsGathered": 20}
    assert len(world.executions()) == 30
    gathered = sorted(a["incident"] for a in answers if a["result"] == "gathered")
    storms = {world.given(name)["storm"] for name in gathered}
    assert len(storms) == 1
    storm = world.incident(storms.pop())
    listed = [e.data["incident"] for e in storm.entries if e.kind == "joined"]
    assert sorted(listed) == gathered
    assert [e.kind for e in storm.entries].count("paged") == 1
    assert [entry.seq for entry in storm.entries] == list(range(1, 23))
    assert all(
        "storm" not in world.given(a["incident"]) for a in answers if a["result"] == "started"
    )


def test_what_fails_is_raised_and_the_same_event_tried_again_starts_one_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.alarm()
    event = world.event()
    world.aws.faults.add("states", "StartExecution", "error", code="ServiceUnavailable", status=503)
    world.aws.faults.add(
        "states", "StartExecution", "error", code="AccessDeniedException", status=400
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        world.dispatch(event, request="r-1")
    assert world.executions() == []
    assert world.dispatch(event, request="r-1")["result"] == "started"
    assert len(world.executions()) == 1
    assert counted(capsys.readouterr().out) == {"AlarmsStarted": 1}


def test_a_crash_between_the_start_and_the_storms_line_is_made_good_by_the_next_try(
    world: World,
) -> None:
    world.alarm()
    event = world.event()
    world.aws.faults.add(
        "dynamodb", "TransactWriteItems", "error", code="AccessDeniedException", status=400
    )
    with pytest.raises(ClientError):
        world.dispatch(event, storm_incidents=0, request="r-1")
    answer = world.dispatch(event, storm_incidents=0, request="r-1")
    assert answer["result"] == "gathered"
    storm = world.incident(world.given(answer["incident"])["storm"])
    assert [e.kind for e in storm.entries] == ["opened", "paged", "joined"]


# The sweep: alarms


def test_the_sweep_starts_what_no_event_has_started_once(world: World) -> None:
    world.alarm("lost-event")
    world.alarm("untagged", runbook="", queue="other")
    world.alarm("well", state="OK", queue="another")
    assert world.sweep(grace=120) == {}
    world.shift = timedelta(minutes=3)
    assert world.sweep(grace=120) == {"started": 1}
    assert [name.split("-2")[0] for name in world.executions()] == ["lost-event"]
    assert world.sweep(grace=120) == {}
    assert world.dispatch(world.event("lost-event"))["reason"] == "duplicate"


def test_an_alarm_that_joined_waits_for_the_cooldown_and_then_gets_a_run_of_its_own(
    world: World,
) -> None:
    run = world.open()
    world.alarm()
    world.dispatch(world.event())
    world.services().store.close(run, "resolved", "x", Entry(id="closed", kind="closed", text="x"))
    assert world.sweep() == {}
    world.shift = timedelta(minutes=16)
    assert world.sweep() == {"started": 1}


def test_a_misconfigured_alarm_is_counted_in_every_sweep(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.alarm(runbook_mode="yolo")
    assert world.sweep() == {"misconfigured": 1}
    assert counted(capsys.readouterr().out) == {"AlarmsMisconfigured": 1}


def test_a_misconfigured_alarm_pages_once_by_whoever_finds_it_and_starts_once_it_is_mended(
    world: World,
) -> None:
    world.alarm(runbook_mode="yolo")
    told = world.dispatch(world.event())["incident"]
    world.sweep()
    assert world.refused() == [told]
    incident = world.services().store.load(told)
    assert (incident.status, incident.outcome, incident.target_name) == (
        "closed", "refused", "orders-backlog",
    )  # fmt: skip
    assert [(e.kind, e.severity) for e in incident.entries] == [("paged", "error")]
    assert "'yolo'; set it to one of observe, ask, auto" in incident.entries[0].text
    world.tag("orders-backlog", "runbook:mode", "always")
    world.sweep()
    assert len(world.refused()) == 2, "another mistake is told as well"
    world.tag("orders-backlog", "runbook:mode", "ask")
    assert world.sweep()["started"] == 1


# The sweep: incidents


def test_an_incident_whose_execution_was_stopped_is_wound_down_once(world: World) -> None:
    run = world.open()
    world.shift = timedelta(minutes=2)
    assert "wind_down" not in world.sweep()
    world.stop("incident-1")
    assert world.sweep()["wind_down"] == 1
    assert "wind_down" not in world.sweep()
    assert world.executions(world.wind_down) == ["incident-1-wind-down-1"]
    given = world.given("incident-1-wind-down-1", world.wind_down)
    assert Run(**given["run"]) == replace(run, round=0, winding_down=True)
    assert given["ending"]["error"] == "Aborted"
    assert given["closed"] is False
    assert given["wait_seconds"] == 0


def test_an_incident_that_was_closed_while_its_execution_ended_is_left_alone(world: World) -> None:
    run = world.open()
    world.services().store.close(run, "resolved", "x", Entry(id="closed", kind="closed", text="x"))
    world.stop("incident-1")
    world.shift = timedelta(minutes=2)
    assert world.sweep() == {}
    assert world.executions(world.wind_down) == []


def test_a_young_incident_is_left_to_its_event(world: World) -> None:
    world.open(run=False)  # as DescribeExecution may answer right after the start
    assert "wind_down" not in world.sweep()
    world.shift = timedelta(minutes=2)
    assert world.sweep()["wind_down"] == 1
    assert world.given("incident-1-wind-down-1", world.wind_down)["ending"]["error"] == "RunLost"


def test_a_status_event_winds_down_its_own_incident_at_once_and_waits_for_late_steps(
    world: World,
) -> None:
    world.open("incident-1")
    world.open("incident-2", "returns")
    world.stop("incident-1")
    world.stop("incident-2")
    detail = {
        "executionArn": alarms.execution_arn(world.machine, "incident-2"),
        "name": "incident-2",
        "status": "TIMED_OUT",
        "stopDate": int(world.clock().timestamp() * 1000),
    }
    event = {"detail-type": "Step Functions Execution Status Change", "detail": detail}
    assert world.sweep(event) == {"wind_down": 1}
    assert world.sweep(event) == {}
    assert world.executions(world.wind_down) == ["incident-2-wind-down-1"]
    given = world.given("incident-2-wind-down-1", world.wind_down)
    assert 55 <= given["wait_seconds"] <= 60
    assert "TIMED_OUT" in given["ending"]["cause"]
    assert world.sweep({**event, "detail": {**detail, "name": "unknown"}}) == {}


def test_one_incident_can_be_looked_at_by_hand(world: World) -> None:
    world.open("incident-1")
    world.open("incident-2", "returns")
    world.stop("incident-1")
    world.stop("incident-2")
    world.shift = timedelta(minutes=2)
    assert world.sweep({"incident": "incident-2"}) == {"wind_down": 1}
    assert world.executions(world.wind_down) == ["incident-2-wind-down-1"]


def test_a_wind_down_that_failed_is_tried_again_after_a_pause(world: World) -> None:
    world.open()
    world.stop("incident-1")
    world.shift = timedelta(minutes=2)
    world.wind_down = failing(world)
    world.sweep()
    time.sleep(0.3)
    assert "wind_down" not in world.sweep()
    world.shift = timedelta(minutes=18)
    assert world.sweep()["wind_down"] == 1
    assert world.executions(world.wind_down) == [
        "incident-1-wind-down-1",
        "incident-1-wind-down-2",
    ]


def failing(world: World) -> str:
    answer = world.aws.client("stepfunctions").create_state_machine(
        name="failing",
        definition=json.dumps(FAILING),
        roleArn=f"arn:aws:iam::{world.aws.account}:role/machine",
    )
    return answer["stateMachineArn"]


def test_a_change_past_its_lease_is_wound_down_open_or_closed(world: World) -> None:
    world.change(world.open("incident-1"))
    closed = world.open("incident-2", "returns")
    world.change(closed, "/returns/back-pressure")
    world.services().store.close(closed, "failed", "x", Entry(id="closed", kind="closed", text="x"))
    assert "wind_down" not in world.sweep()
    world.shift = timedelta(hours=2)
    assert world.sweep()["wind_down"] == 2
    for name, was_closed in (("incident-1", False), ("incident-2", True)):
        given = world.given(f"{name}-wind-down-1", world.wind_down)
        assert given["closed"] is was_closed
        assert "back-pressure" in given["ending"]["cause"]


def wind_down(world: World, run: Run) -> None:
    """Do in this process what the wind-down machine's steps do."""
    lost = replace(run, round=0, winding_down=True)
    ending = {"error": "RunLost", "cause": "Its execution ended TIMED_OUT."}
    aws = world.services()
    for work, state in (
        (put_back.work, "Put everything back"),
        (hand_over.work, "Hand over"),
        (close_incident.work, "Close incident"),
    ):
        payload = {"run": asdict(lost), "state": state, "ending": ending}
        work(Call(run=lost, state=state, payload=payload), aws)


def test_a_lost_run_ends_closed_with_all_put_back_though_another_holds_its_target(
    world: World,
) -> None:
    first = world.open("incident-1")
    world.change(first)
    world.shift = timedelta(hours=2)
    second = world.open("incident-2")  # the first one's lock has expired
    with pytest.raises(LockLost):
        world.services().store.note(first, Entry(id="late", kind="changed", text="late"))
    wind_down(world, first)
    ended = world.incident("incident-1")
    assert (ended.status, ended.outcome) == ("closed", "failed")
    assert ended.standing_changes == ()
    assert [e.kind for e in ended.entries][-3:] == ["put_back", "paged", "closed"]
    assert world.setting() == "off"
    store = world.services().store
    assert store.lease("back-pressure", "/orders/back-pressure") is None
    assert store.holder(world.arn("orders")) == "incident-2"
    world.change(second)  # the setting is free for the second
    store.close(second, "resolved", "x", Entry(id="closed", kind="closed", text="x"))
    assert store.holder(world.arn("orders")) == ""


def test_a_lost_run_that_still_holds_its_target_frees_it(world: World) -> None:
    run = world.open()
    wind_down(world, run)
    assert world.services().store.holder(run.target) == ""
    assert world.open("incident-2").fence == run.fence + 1


def test_what_an_incident_left_behind_is_put_back_after_its_end_and_stands_in_its_timeline(
    world: World,
) -> None:
    run = world.open()
    world.change(run)
    store = world.services().store
    store.close(run, "failed", "as it ended", Entry(id="closed", kind="closed", text="x"))
    with pytest.raises(LockLost):
        changes.put_back(world.services(), run)
    lost = replace(run, round=0, winding_down=True)
    changes.put_back(world.services(), lost)
    store.note(lost, None, phase="handed_over", summary="as a late step sees it")
    ended = world.incident("incident-1")
    assert ended.phase == "closed"
    assert world.setting() == "off"
    assert ended.standing_changes == ()
    assert [e.kind for e in ended.entries][-2:] == ["closed", "put_back"]
    assert (ended.status, ended.outcome, ended.summary) == ("closed", "failed", "as it ended")
    assert store.lease("back-pressure", "/orders/back-pressure") is None


def test_forty_who_write_to_one_incident_at_once_all_get_their_line(world: World) -> None:
    world.open()

    def join(number: int) -> bool:
        entry = Entry(id=f"joined-{number}", kind="joined", text=f"alarm {number}")
        return world.services().store.note_from_outside("incident-1", entry)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(join, range(40)))
    entries = world.incident("incident-1").entries
    assert sorted(e.text for e in entries if e.kind == "joined") == sorted(
        f"alarm {n}" for n in range(40)
    )
    assert [entry.seq for entry in entries] == list(range(1, 42))


# The sweep: locks, storms, telling


def test_a_lock_past_its_lease_is_freed_only_when_its_incident_is_over(world: World) -> None:
    gone = world.open("gone")
    held = world.open("held", "returns")
    world.aws.client("dynamodb").delete_item(
        TableName=TABLE, Key={"pk": {"S": "INCIDENT#gone"}, "sk": {"S": "RECORD"}}
    )
    assert "lock_freed" not in world.sweep()
    world.shift = timedelta(hours=2)
    assert world.sweep()["lock_freed"] == 1
    store = world.services().store
    assert [lock.incident for lock in store.locks_past_lease()] == ["held"]
    # A lock that has been taken in the meantime stays with its new holder.
    taken = world.open("new", "returns")
    assert store.give_up_lock(held) is False
    assert store.holder(held.target) == "new"
    assert store.give_up_lock(gone) is False
    assert taken.fence == held.fence + 1


@pytest.mark.parametrize(
    ("outcome", "ends"), [("resolved", "resolved"), ("ineffective", "handed_over")]
)
def test_a_storm_closes_when_its_window_and_all_its_incidents_are_over(
    world: World, outcome: str, ends: str
) -> None:
    world.alarm()
    child = world.dispatch(world.event(), storm_incidents=0)["incident"]
    storm = world.given(child)["storm"]
    world.shift = timedelta(minutes=7)
    assert "storm_closed" not in world.sweep()  # the child's execution has not opened it yet
    run = world.open(child, run=False, parent=storm)
    assert "storm_closed" not in world.sweep()
    world.services().store.close(run, outcome, "x", Entry(id="closed", kind="closed", text="x"))
    assert world.sweep()["storm_closed"] == 1
    closed = world.incident(storm)
    assert (closed.status, closed.outcome) == ("closed", ends)
    assert f"1 {outcome}" in closed.summary
    assert (child in closed.need) is (outcome != "resolved")
    assert "storm_closed" not in world.sweep()


def test_a_storm_whose_window_is_not_over_stays_open(world: World) -> None:
    world.alarm()
    child = world.dispatch(world.event(), storm_incidents=0)["incident"]
    storm = world.given(child)["storm"]
    run = world.open(child, run=False, parent=storm)
    world.services().store.close(run, "resolved", "x", Entry(id="closed", kind="closed", text="x"))
    world.sweep()
    assert world.incident(storm).status == "open"


def test_open_incidents_and_owed_reports_are_told_and_decisions_delivered(world: World) -> None:
    store = world.services().store
    for name, state, delivered in (
        ("told", "approved", True),
        ("untold", "rejected", False),
        ("waiting", "waiting", False),
    ):
        run = world.open(name, name)
        ask = Ask("ask-1", "hash", "token", iso(world.clock()), 1, 1)
        store.put_ask(run, ask, Entry(id="asked", kind="asked", text="x"))
        if state != "waiting":
            decided = Entry(id="decided", kind="decided", text="x")
            store.decide(name, ask, replace(ask, state=state), decided)
        if delivered:
            store.ask_delivered(name, "ask-1")
    closed = world.open("owed", "owed")
    store.close(closed, "resolved", "x", Entry(id="closed", kind="closed", text="x"))
    store.put_report_state("owed", {}, owed=True)
    assert world.sweep() == {"redelivered": 1, "report": 4}
    assert wait_for_messages(world, 5) == [
        ("note-decision", {"redeliver": "untold"}),
        ("note-report", {"incident": "owed"}),
        ("note-report", {"incident": "told"}),
        ("note-report", {"incident": "untold"}),
        ("note-report", {"incident": "waiting"}),
    ]


def wait_for_messages(world: World, count: int) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    deadline = time.monotonic() + 15
    while len(found) < count and time.monotonic() < deadline:
        found += world.received()
    return sorted(found, key=str)


def test_one_failing_item_does_not_keep_the_sweep_from_the_others(world: World) -> None:
    world.open("broken", run=False, execution="no arn")
    world.open("lost", "returns", run=False)
    world.alarm(queue="another")
    world.shift = timedelta(minutes=3)
    world.aws.faults.add(
        "states", "DescribeExecution", "error", code="InternalFailure", status=400, times=1
    )
    with pytest.raises(SweepIncomplete) as told:
        world.sweep()
    assert "incident broken" in str(told.value)
    assert world.executions(world.wind_down) == ["lost-wind-down-1"]
    assert len(world.executions()) == 1


# wind-down


MACHINE_STUBS = """
  PutBack: {Type: AWS::Serverless::Function, Properties: {Handler: app.put_back}}
  HandOver: {Type: AWS::Serverless::Function, Properties: {Handler: app.note}}
  CloseIncident: {Type: AWS::Serverless::Function, Properties: {Handler: app.note}}
  Machine:
    Type: AWS::Serverless::StateMachine
    Properties:
      DefinitionUri: machine.asl.yaml
      DefinitionSubstitutions:
        PutBackFunctionArn: !GetAtt PutBack.Arn
        HandOverFunctionArn: !GetAtt HandOver.Arn
        CloseIncidentFunctionArn: !GetAtt CloseIncident.Arn
"""
MACHINE_CODE = """
class PutBackFailed(Exception): pass

def put_back(event, context):
    if event["run"]["incident"] == "stuck":
        raise PutBackFailed("by hand: aws ...")
    return {"put_back": [], "left": []}

def note(event, context):
    if event["run"]["incident"] == event["state"]:
        raise ValueError("broken")
    return event
"""


@pytest.mark.parametrize(
    ("incident", "closed", "visited", "error"),
    [
        ("lost", False, ["Put everything back", "Hand over", "Close incident", "Fail"], "RunLost"),
        (
            "stuck",
            False,
            ["Put everything back", "Hand over", "Close incident", "Fail"],
            "PutBackFailed",
        ),
        (
            "Hand over",
            False,
            ["Put everything back", "Hand over", "Close incident", "Fail"],
            "RunLost",
        ),
        ("lost", True, ["Put everything back", "Done"], ""),
        (
            "stuck",
            True,
            ["Put everything back", "Hand over", "Close incident", "Fail"],
            "PutBackFailed",
        ),
    ],
)
def test_the_wind_down_machine_always_hands_over_closes_and_fails(  # noqa: PLR0917 -- fixtures and the table's columns
    aws: AwsAccount,
    stack: Callable[..., dict[str, str]],
    tmp_path: Path,
    incident: str,
    closed: bool,  # noqa: FBT001 -- a parameter of the table above
    visited: list[str],
    error: str,
) -> None:
    definition = Path(__file__).parents[2] / "statemachines/wind-down.asl.yaml"
    (tmp_path / "machine.asl.yaml").write_text(definition.read_text())
    machine = stack(MACHINE_STUBS, MACHINE_CODE)["Machine"]
    states = aws.client("stepfunctions")
    run = asdict(Run(incident, "queue-saturation", "t", "auto", 1, 0, winding_down=True))
    arn = states.start_execution(
        stateMachineArn=machine,
        input=json.dumps(
            {
                "run": run,
                "ending": {"error": "RunLost", "cause": "x"},
                "closed": closed,
                "wait_seconds": 0,
            }
        ),
    )["executionArn"]
    deadline = time.monotonic() + 15
    while (ended := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    history = states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    entered = [
        event["stateEnteredEventDetails"]["name"]
        for event in history
        if "stateEnteredEventDetails" in event
    ]
    found = [name for name in entered if name in {*visited, "Done", "Fail"}]
    assert found == visited
    assert ended["status"] == ("FAILED" if error else "SUCCEEDED")
    assert ended.get("error", "") == error
