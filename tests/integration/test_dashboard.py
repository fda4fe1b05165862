"""The dashboard's widget as a person uses it: look, follow a button, see the world change.

Stories decide by it (tests/scenarios/queue-saturation/dashboard-*.yaml); here is the rest.

CloudWatch is imitated as far as its documentation says what it does: it invokes an action's
``endpoint`` with the JSON inside the ``<cwdb-action>`` and every form field of the widget in
``widgetContext.forms.all``, and shows what comes back.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from local.playground import Playground
from oncall import contract as contracts
from oncall.incident import Entry, Incident, Run
from tests.scenarios.world import eventually
from tests.widget import Action, Widget

_HOSTILE = '"><script>alert(1)</script><b>&'
type Json = dict[str, Any]


@dataclass
class Console:
    """The console of somebody who may look at the dashboard, and click."""

    ground: Playground

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        answer = self.ground.account.client("lambda").invoke(
            FunctionName=function, Payload=json.dumps(event)
        )
        body = json.loads(answer["Payload"].read())
        assert "FunctionError" not in dict(answer), body
        return body

    def context(self, forms: Mapping[str, str] | None = None) -> Json:
        return {
            "dashboardName": "runbooks",
            "accountId": self.ground.account.account,
            "theme": "dark",
            "forms": {"all": dict(forms or {})},
            "params": {},
        }

    def look(self) -> Widget:
        endpoint = next(
            one["properties"]["endpoint"]
            for one in self.body()["widgets"]
            if one["type"] == "custom"
        )
        return Widget(self.invoke(endpoint, {"widgetContext": self.context()}))

    def body(self) -> Json:
        found = self.ground.account.client("cloudwatch").get_dashboard(
            DashboardName=self.ground.outputs["Dashboard"]
        )
        body: Json = json.loads(found["DashboardBody"])
        return body

    def click(self, action: Action, **typed: str) -> str:
        """Click with some fields filled in, those of other forms empty; return what is shown."""
        event = {**action.payload, "widgetContext": self.context(typed)}
        return Widget(self.invoke(action.endpoint, event)).text

    def until(self, incident: str, **state: str) -> Incident:
        def there() -> bool:
            found = self.ground.store.find(incident)
            return found is not None and all(
                getattr(found, name) == value for name, value in state.items()
            )

        eventually(there, f"{incident} is {state}")
        return self.ground.store.load(incident)

    def start(self, machine: str, given: Mapping[str, Any]) -> str:
        started = self.ground.account.client("stepfunctions").start_execution(
            stateMachineArn=self.ground.outputs[machine], input=json.dumps(given)
        )
        return str(started["executionArn"])

    def ended(self, execution: str) -> Mapping[str, Any]:
        states = self.ground.account.client("stepfunctions")

        def over() -> Mapping[str, Any] | None:
            found = states.describe_execution(executionArn=execution)
            return found if found["status"] != "RUNNING" else None

        found = eventually(over, "the execution ends")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    with Playground(parameters={"DashboardButtons": "on"}) as ground:
        events = ground.account.client("events")
        for rule in events.list_rules()["Rules"]:
            if "Alarm State Change" in rule.get("EventPattern", ""):
                events.disable_rule(Name=rule["Name"])  # what runs here, a test has started
        yield Console(ground)


def started(said: str) -> str:
    assert said.startswith("✅ Started "), said
    return said.removeprefix("✅ Started ").partition(". ")[0]


def test_the_widget_describes_itself(console: Console) -> None:
    said = console.invoke(console.ground.outputs["ShowIncidentsFunction"], {"describe": True})
    assert said.startswith("### Runbooks")


def test_a_dry_run_is_started_by_a_form_of_one_field(console: Console) -> None:
    seen = console.look()
    dry = seen.action("Dry run", runbook="queue-saturation")
    queue = console.ground.pilot_outputs["QueueUrl"]
    assert set(seen.fields) - {"by"} == {
        f"{name}.{contracts.load(name).target_input}" for name in RUNBOOKS
    }
    incident = started(console.click(dry, **{"queue-saturation.queue": f" {queue} "}))
    assert incident.startswith("dashboard-")
    found = console.until(incident, status="closed")
    assert (found.outcome, found.trigger["by"], found.mode) == ("observed", "dashboard", "observe")
    assert found.happened


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "⛔ Not started. queue: it is missing"),
        (_HOSTILE, "⛔ Not started. queue: "),
    ],
)
def test_what_cannot_be_started_is_said(console: Console, typed: str, said: str) -> None:
    run = console.look().action("Run", runbook="queue-saturation")
    answer = console.click(run, **{"queue-saturation.queue": typed})
    assert answer.startswith(said)
    assert 'Give {"queue": "orders"}' in answer


def test_a_runbook_that_there_is_not_is_said(console: Console) -> None:
    event = {"runbook": "../x", "widgetContext": console.context()}
    said = console.invoke(console.ground.outputs["StartRunFunction"], event)
    assert "runbook: '../x' is not deployed" in Widget(said).text


RUNBOOKS = (
    "dlq-replay",
    "lambda-throttles",
    "queue-saturation",
    "route53-failback",
    "route53-failover",
)


@pytest.mark.parametrize("runbook", RUNBOOKS)
def test_a_machine_says_what_it_needs(console: Console, runbook: str) -> None:
    contract = contracts.load(runbook)
    machine = "".join(map(str.capitalize, runbook.split("-"))) + "Machine"
    empty = console.ended(console.start(machine, {}))
    assert empty["error"] == "BadInput"
    assert empty["cause"] == f"{contract.target_input}: it is missing. Give {contract.example()}."
    # One key is the whole input.
    [target] = json.loads(contract.example()).values()
    assert contracts.parse_input(contract, json.loads(contract.example())).target == target


def test_a_form_of_systems_manager_starts_its_machine(console: Console) -> None:
    """Do what Automation does with the document; the embedded AWS runs none."""
    shown = console.ground.account.client("ssm").get_document(Name="runbooks-queue-saturation")
    document = json.loads(shown["Content"])
    automation = f"4105a4fc-f944-11e6-9d32-{time.time_ns() % 10**12:012d}"
    typed = {"queue": console.ground.pilot_outputs["QueueUrl"], "mode": "observe"}
    given = {"automation:EXECUTION_ID": automation}
    for name, parameter in document["parameters"].items():
        given[name] = typed.get(name, parameter.get("default", ""))
        assert re.search(parameter.get("allowedPattern", ""), given[name])
        assert given[name] in parameter.get("allowedValues", [given[name]])
    [step] = document["mainSteps"]
    assert step["action"] == "aws:executeStateMachine"
    inputs = {
        name: re.sub(r"\{\{ *([\w:]+) *\}\}", lambda found: given[found[1]], value)
        for name, value in step["inputs"].items()
    }
    console.ground.account.client("stepfunctions").start_execution(**inputs)
    found = console.until(automation, status="closed")
    assert (found.outcome, found.trigger["by"]) == (
        "observed",
        f"Systems Manager automation {automation}",
    )


@pytest.mark.parametrize("runbook", RUNBOOKS)
def test_a_form_left_empty_gives_what_the_contract_takes(console: Console, runbook: str) -> None:
    described = console.ground.account.client("ssm").describe_document(Name=f"runbooks-{runbook}")
    contract = contracts.load(runbook)
    given = {
        one["Name"]: one.get("DefaultValue", "") for one in described["Document"]["Parameters"]
    }
    assert given.keys() == {*contract.inputs, "mode", "reason"}
    request = contracts.parse_input(contract, {**given, **json.loads(contract.example())})
    assert (request.mode, request.options) == (contract.modes["hand"], {})


def test_text_from_outside_stays_text(console: Console) -> None:
    store = console.ground.store
    plan = {
        "sentence": _HOSTILE,
        "changes": [{"name": _HOSTILE, "before": _HOSTILE, "after": 2, "why": _HOSTILE}],
    }
    new = Incident(
        id=f"hostile-{time.time_ns()}",
        runbook="queue-saturation",
        title=_HOSTILE,
        target=f"arn:aws:sqs:eu-west-1:123456789012:{_HOSTILE}",
        target_name=_HOSTILE,
        mode="ask",
        trigger={"kind": "alarm", "alarm": {"name": _HOSTILE, "arn": _HOSTILE}},
        execution="",
        fence=0,
        happened=_HOSTILE,
        doing=_HOSTILE,
        need=_HOSTILE,
        plan=plan,
        phase="waiting",
        ask={"id": "q", "state": "waiting", "deadline": "2026-11-27T03:00:00.000Z"},
    )
    opened = store.open(new, Entry(id="opened", kind="opened", text=_HOSTILE), timedelta(hours=1))
    run = Run(opened.id, opened.runbook, opened.target, opened.mode, opened.fence)
    seen = console.look()
    assert seen.text.count("<script>alert(1)</script>") >= 6
    assert seen.action("Approve", incident=new.id).payload == {
        "incident": new.id,
        "decision": "approve",
        "ask": "q",
    }
    store.close(run, "failed", _HOSTILE, Entry(id="closed", kind="closed", text=_HOSTILE))
    assert _HOSTILE in console.look().text


def test_armed_alarms_are_counted(console: Console) -> None:
    alarms = console.ground.account.client("cloudwatch")
    seen = console.look().text
    before = int(seen.partition("Alarms armed (")[2].partition(")")[0])
    assert before >= 1  # the pilot's own
    alarms.put_metric_alarm(
        AlarmName="armed-once-more",
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Tags=[
            {"Key": "runbook", "Value": "queue-saturation"},
            {"Key": "runbook:mode", "Value": "observe"},
        ],
    )
    after = console.look().text
    assert f"Alarms armed ({before + 1})" in after
    assert "queue-saturation observe 1" in after


def test_a_scorecard_is_told_when_slack_is_back_and_shown(console: Console) -> None:
    slack, outputs = console.ground.slack, console.ground.outputs
    assert "The first one comes on Monday." in console.look().text
    slack.down()
    written = console.invoke(outputs["ScorecardFunction"], {})
    assert written["lines"] >= 1
    incident = written["incident"]

    def owed() -> bool:
        return bool(console.ground.store.report_state(incident).get("owed"))

    eventually(owed, "the report is owed", 90)
    slack.up()

    def told() -> list[str]:
        try:
            console.invoke(outputs["ReportFunction"], {"incident": incident})
        except AssertionError:
            return []  # the stream's own try holds the claim still
        said = [message.text for message in slack.messages]
        cards = [number for number, text in enumerate(said) if text.startswith("⚪ Scorecard: ")]
        whole = said[cards[0] :] if cards else []
        return whole if "queue-saturation on orders" in "".join(whole[1:]) else []

    header, *lines = eventually(told, "Slack is told, header and lines")
    assert " verified, " in header
    assert not [line for line in lines if "no graph" in line]
    again = console.invoke(outputs["ScorecardFunction"], {})
    assert again["incident"] == incident
    shown = console.look().text
    assert "medians from alarm to relief" in shown
    assert "queue-saturation · " in shown
