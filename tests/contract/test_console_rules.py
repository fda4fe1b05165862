"""Every rule for dashboards and Systems Manager's documents finds its planted flaw."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.planting import GONE, planted
from tools.checks import dashboards, forms

ROOT = Path(__file__).parents[2]
OWN = {"Runbooks": {"RunsClosed": {frozenset({"service", "Outcome"})}}}
CONTRACT = yaml.safe_load((ROOT / "runbooks/dlq-replay.yaml").read_text("utf-8"))

BODY: dict[str, Any] = {
    "start": "-P7D",
    "widgets": [
        {
            "type": "custom",
            "x": 0,
            "y": 0,
            "width": 24,
            "height": 6,
            "properties": {"endpoint": "${Show.Arn}", "updateOn": {"refresh": True}},
        },
        {
            "type": "alarm",
            "x": 0,
            "y": 6,
            "width": 12,
            "height": 3,
            "properties": {"alarms": ["${Late.Arn}"], "sortBy": "stateUpdatedTimestamp"},
        },
        {
            "type": "metric",
            "x": 12,
            "y": 6,
            "width": 12,
            "height": 6,
            "properties": {
                "title": "Runs",
                "region": "${AWS::Region}",
                "metrics": [
                    ["AWS/Lambda", "Errors", "FunctionName", "${Show}", {"label": "show"}],
                    [
                        {
                            "id": "closed",
                            "expression": "SEARCH('{Runbooks,service,Outcome} "
                            'MetricName="RunsClosed" service="${AWS::StackName}"\', \'Sum\', 60)',
                        }
                    ],
                ],
            },
        },
    ],
}
W = ("widgets",)
METRIC = (*W, 2, "properties")


def template(body: Any) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "Resources": {
            "Show": {"Type": "AWS::Lambda::Function"},
            "Late": {"Type": "AWS::CloudWatch::Alarm"},
            "Board": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {"DashboardBody": {"Fn::Sub": text}},
            },
        }
    }


def found(body: Any) -> set[str]:
    return {one.rule for one in dashboards.check_dashboards(template(body), OWN)}


FLAWS: dict[str, tuple[str, tuple[str | int, ...], Any]] = {
    "no widgets": ("dashboard-schema", W, GONE),
    "unknown widget": ("dashboard-schema", (*W, 0, "type"), "customs"),
    "no endpoint": ("dashboard-schema", (*W, 0, "properties", "endpoint"), GONE),
    "misspelt property": ("dashboard-schema", (*METRIC, "periods"), 60),
    "no Region": ("dashboard-schema", (*METRIC, "region"), GONE),
    "too wide": ("dashboard-place", (*W, 2, "width"), 13),
    "one on another": ("dashboard-place", (*W, 2, "x"), 8),
    "unknown metric": ("dashboard-metric", (*METRIC, "metrics", 0, 1), "Error"),
    "misspelt dimension": ("dashboard-metric", (*METRIC, "metrics", 0, 2), "Function"),
    "search by a dimension that there is not": (
        "dashboard-metric",
        (*METRIC, "metrics", 1, 0, "expression"),
        "SEARCH('{Runbooks,service} MetricName=\"RunsClosed\"', 'Sum', 60)",
    ),
    "an expression that is no search": (
        "dashboard-metric",
        (*METRIC, "metrics", 1, 0, "expression"),
        "m1 + m2",
    ),
    "a function that there is not": (
        "dashboard-unknown",
        (*W, 0, "properties", "endpoint"),
        "${Shown.Arn}",
    ),
    "an alarm that is none": (
        "dashboard-unknown",
        (*W, 1, "properties", "alarms"),
        ["${Late.Arn}", "${Show.Arn}"],
    ),
    "an alarm that is not shown": ("dashboard-alarm", (*W, 1), BODY["widgets"][0] | {"y": 12}),
}


def test_a_clean_dashboard_breaks_no_rule() -> None:
    assert found(BODY) == set()


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_dashboards_planted_flaw_is_found(flaw: str) -> None:
    rule, path, value = FLAWS[flaw]
    assert found(planted(BODY, path, value)) == {rule}


def test_a_body_that_is_no_json_is_found() -> None:
    assert found("{") == {"dashboard-json"}


# Documents

FORM = forms.content(CONTRACT, "Machine", "Role")
DEPLOYED: dict[str, Any] = {
    "Resources": {
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {"StateMachineName": {"Fn::Sub": "${AWS::StackName}-dlq-replay"}},
        },
        "Form": {
            "Type": "AWS::SSM::Document",
            "Properties": {
                "Name": {"Fn::Sub": "${AWS::StackName}-dlq-replay"},
                "DocumentType": "Automation",
                "Content": FORM,
            },
        },
    }
}
PROPERTIES = ("Resources", "Form", "Properties")
FORM_FLAWS: dict[str, tuple[set[str], tuple[str | int, ...], Any]] = {
    "no form": ({"document-missing"}, ("Resources", "Form"), GONE),
    "a form of nothing": (
        {"document-missing", "document-unknown"},
        (*PROPERTIES, "Name"),
        "replay",
    ),
    "a command": ({"document-type"}, (*PROPERTIES, "DocumentType"), "Command"),
    "a pattern of its own": (
        {"document-differs"},
        (*PROPERTIES, "Content", "parameters", "dlq", "allowedPattern"),
        ".*",
    ),
    "another role": ({"document-differs"}, (*PROPERTIES, "Content", "assumeRole"), "arn"),
    "a parameter that there is not": (
        {"document-differs", "document-name"},
        (*PROPERTIES, "Content", "mainSteps", 0, "inputs", "input"),
        "{{ queue }}",
    ),
}


def form_findings(deployed: Any) -> set[str]:
    findings = forms.check_documents({"dlq-replay": CONTRACT}, deployed, "Role")
    return {one.rule for one in findings}


def test_a_clean_form_breaks_no_rule() -> None:
    assert form_findings(DEPLOYED) == set()


@pytest.mark.parametrize("flaw", FORM_FLAWS)
def test_a_forms_planted_flaw_is_found(flaw: str) -> None:
    rules, path, value = FORM_FLAWS[flaw]
    assert form_findings(planted(DEPLOYED, path, value)) == rules


@pytest.mark.parametrize(
    ("module", "seen"),
    [
        (dashboards, {rule for rule, _, _ in FLAWS.values()} | {"dashboard-json"}),
        (forms, {rule for rules, _, _ in FORM_FLAWS.values() for rule in rules}),
    ],
    ids=["dashboards", "documents"],
)
def test_every_rule_has_a_planted_flaw(module: Any, seen: set[str]) -> None:
    source = Path(module.__file__).read_text("utf-8")
    assert set(re.findall(r'Finding\(\s*"([a-z-]+)"', source)) == seen


@pytest.mark.parametrize("typed", ['"', "\\", "{{ x }}", "a\nb"])
def test_a_reason_cannot_leave_its_json(typed: str) -> None:
    pattern = FORM["parameters"]["reason"]["allowedPattern"]
    assert re.fullmatch(pattern, "Orders wait, said support.")
    assert not re.fullmatch(pattern, typed)
