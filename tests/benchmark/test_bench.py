"""Figures for `make bench`: each a ratio against a floor that is measured in the same run.

Floors: for reaction, one bare boto3 Lambda behind a rule on an alarm, which makes the same change
and nothing else; for imports, a module that makes one boto3 client. Prices are AWS list prices for
eu-west-1 (Step Functions Standard, Lambda x86): https://aws.amazon.com/step-functions/pricing/ and
https://aws.amazon.com/lambda/pricing/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from local.playground import ROOT, Playground
from local.stories import STORIES
from oncall.times import parse

PRICE_OF_A_TRANSITION = 0.025 / 1000
PRICE_OF_A_GIGABYTE_SECOND = 0.0000166667
PRICE_OF_A_REQUEST = 0.20 / 1_000_000
MEMORY_GIGABYTES = 0.5
IMPORTS = 7
"""Imports are timed so often; the least counts, as other load only adds."""

_BARE = "import boto3; boto3.client('lambda', region_name='eu-west-1')"
_FLOOR_TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Mapping: { Type: String }
Resources:
  Floor:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.13
      Handler: floor.handler
      CodeUri: code
      Environment: { Variables: { MAPPING: !Ref Mapping } }
      Policies:
        - Statement:
            - { Effect: Allow, Action: lambda:UpdateEventSourceMapping, Resource: "*" }
      Events:
        Alarm:
          Type: EventBridgeRule
          Properties:
            Pattern:
              source: [aws.cloudwatch]
              detail: { alarmName: [floor], state: { value: [ALARM] } }
"""
_FLOOR_CODE = """
import os, time
import boto3

client = boto3.client("lambda")

def handler(event, context):
    client.update_event_source_mapping(
        UUID=os.environ["MAPPING"], ScalingConfig={"MaximumConcurrency": 5}
    )
    print("CHANGED", time.time())
"""
console = Console(width=100)


@pytest.fixture(scope="module", params=["queue-saturation", "lambda-throttles"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Play a runbook's story once, cold, then let the floor react to an alarm of its own."""
    told = STORIES[request.param]
    with Playground(pilot_parameters=told.pilot) as ground:
        stop = threading.Event()
        load = ground.load(stop=stop)
        threading.Thread(target=lambda: told.steady.send(load, 90), daemon=True).start()
        time.sleep(6)
        threading.Thread(target=lambda: told.trouble.send(load, 60), daemon=True).start()
        words = told.runbook.split("-")
        machine = ground.outputs["".join(map(str.capitalize, words)) + "Machine"]
        states = ground.account.client("stepfunctions")
        execution = _ended(states, machine)
        stop.set()
        incident = ground.store.load(execution.rsplit(":", 1)[-1])
        fired = parse(incident.trigger["alarm"]["changed_at"])
        changed = next(entry.at for entry in incident.entries if entry.kind == "changed")
        history = states.get_paginator("get_execution_history").paginate(executionArn=execution)
        entered = [
            event
            for page in history
            for event in page["events"]
            if event["type"].endswith("StateEntered")
        ]
        return {
            "id": told.id,
            "outcome": incident.outcome,
            "reaction": (parse(changed) - fired).total_seconds(),
            "floor": _floor(ground, tmp_path_factory.mktemp("floor")),
            "transitions": len(entered),
            "lambda": _billed(ground),
            "looks": sum(
                "Look" in str(event.get("stateEnteredEventDetails", {}).get("name"))
                for event in entered
            ),
        }


def _ended(states: Any, machine: str) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = states.list_executions(stateMachineArn=machine)["executions"]
        if found and found[0]["status"] != "RUNNING":
            return str(found[0]["executionArn"])
        time.sleep(0.3)
    raise TimeoutError(f"no run ended in 90 s: {found}")


def _floor(ground: Playground, folder: Path) -> float:
    """Return the seconds from an alarm's transition to the same change by a bare Lambda."""
    (folder / "code").mkdir()
    (folder / "template.yaml").write_text(_FLOOR_TEMPLATE, encoding="utf-8")
    (folder / "code" / "floor.py").write_text(_FLOOR_CODE, encoding="utf-8")
    aws = ground.account
    aws.deploy("floor", folder / "template.yaml", {"Mapping": ground.pilot.worker_mapping_id})
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="floor",
        Namespace="Bench",
        MetricName="Level",
        Statistic="Maximum",
        Period=1,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
    )
    time.sleep(2)
    cloudwatch.put_metric_data(Namespace="Bench", MetricData=[{"MetricName": "Level", "Value": 9}])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for group in aws.client("logs").describe_log_groups()["logGroups"]:
            if "loor" not in group["logGroupName"]:
                continue
            events = aws.client("logs").filter_log_events(logGroupName=group["logGroupName"])
            for event in events["events"]:
                said = re.search(r"CHANGED ([\d.]+)", event["message"])
                if said:
                    alarm = cloudwatch.describe_alarms(AlarmNames=["floor"])["MetricAlarms"][0]
                    return float(said[1]) - alarm["StateTransitionedTimestamp"].timestamp()
        time.sleep(0.2)
    raise TimeoutError("the floor's Lambda did not run in 20 s")


def _billed(ground: Playground) -> tuple[int, int]:
    """Return how many invocations there were and their billed milliseconds."""
    logs = ground.account.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/runbooks/runbooks")
    billed = [
        int(found[1])
        for page in pages
        for event in page["events"]
        for found in [re.search(r"Billed Duration: (\d+) ms", event["message"])]
        if found
    ]
    return len(billed), sum(billed)


def test_reaction(story: dict[str, Any]) -> None:
    ratio = story["reaction"] / story["floor"]
    console.print(
        f"\n{story['id']}: alarm → first change: {story['reaction']:.2f} s cold, a bare Lambda "
        f"{story['floor']:.2f} s, so {ratio:.1f} times the floor"
    )
    assert story["outcome"] == "resolved"
    assert story["reaction"] > 0
    assert story["floor"] > 0


def test_price_of_an_incident(story: dict[str, Any]) -> None:
    transitions = story["transitions"]
    count, milliseconds = story["lambda"]
    workflow = transitions * PRICE_OF_A_TRANSITION
    compute = milliseconds / 1000 * MEMORY_GIGABYTES * PRICE_OF_A_GIGABYTE_SECOND
    total = workflow + compute + count * PRICE_OF_A_REQUEST
    console.print(
        f"\n{story['id']}: an incident with {story['looks']} looks: {transitions} transitions "
        f"(${workflow:.5f}), {count} invocations of {milliseconds} ms at "
        f"{MEMORY_GIGABYTES * 1024:.0f} MB (${total - workflow:.5f}): ${total:.5f} in all"
    )
    assert transitions > 0
    assert milliseconds > 0


def test_imports_and_sizes() -> None:
    floor = _import_seconds(_BARE, ROOT / "functions")
    table = Table("function", "import", "floor", "ratio")
    verbs = sorted(path.stem for path in (ROOT / "functions").glob("*.py"))
    for verb in verbs:
        seconds = _import_seconds(f"{_BARE}; import {verb}", ROOT / "functions")
        table.add_row(
            verb, f"{seconds * 1000:.0f} ms", f"{floor * 1000:.0f} ms", f"{seconds / floor:.2f}"
        )
    console.print(table)
    built = ROOT / ".aws-sam" / "build" / "OpenIncidentFunction"
    if built.is_dir():
        archive = shutil.make_archive(str(ROOT / "build" / "package"), "zip", built)
        console.print(f"package: {Path(archive).stat().st_size / 1e6:.1f} MB zipped, one for all")
    else:
        console.print("package: run `make build` first to have it weighed")
    assert verbs


def _import_seconds(statement: str, folder: Path) -> float:
    """Return the least CPU seconds that a fresh interpreter takes for a statement."""
    code = f"import time; t = time.process_time()\n{statement}\nprint(time.process_time() - t)"
    environment = {
        "PYTHONPATH": str(folder),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "STACK_NAME": "bench",
        "PATH": "/usr/bin:/bin",
    }
    runs = [
        subprocess.run(  # noqa: S603 -- our own interpreter and code
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(IMPORTS)
    ]
    return min(float(run.stdout) for run in runs)
