"""`sam remote invoke`, unmodified, on the embedded AWS: a machine and a function of the stack."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from local.aws import EmbeddedAws
from local.playground import FAST, REGION, ROOT, STACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.aws import AwsAccount

SAM = ROOT / "tools/sam-cli/.venv/bin/sam"


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsAccount]:
    with EmbeddedAws(region=REGION) as aws:
        aws.deploy(STACK, ROOT / "template.yaml", FAST)
        aws.client("sqs").create_queue(QueueName="orders", tags={"runbook-automation": "enabled"})
        yield aws


def invoke(resource: str, *event: str) -> Any:
    """Invoke a resource of the stack that samconfig.toml names; return the answer."""
    ran = subprocess.run(  # noqa: S603 -- our own SAM CLI; the AWS_* variables are the emulator's
        [SAM, "remote", "invoke", resource, *event],
        cwd=ROOT,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(ran.stdout)


def test_a_runbook_runs_to_its_end(aws: AwsAccount) -> None:
    answer = invoke("QueueSaturationMachine", "--event", '{"queue": "orders", "mode": "observe"}')
    assert (answer["outcome"], answer["good"]) == ("observed", True)
    states = aws.client("stepfunctions")
    machines = states.list_state_machines()["stateMachines"]
    arn = next(one["stateMachineArn"] for one in machines if one["name"].endswith("-saturation"))
    [ran] = states.list_executions(stateMachineArn=arn)["executions"]
    assert ran["status"] == "SUCCEEDED"


def test_a_function_takes_its_event(aws: AwsAccount) -> None:
    opened = invoke("OpenIncidentFunction", "--event-file", "events/open_incident.json")
    dynamodb = aws.client("dynamodb")
    [table] = [one for one in dynamodb.list_tables()["TableNames"] if one.startswith(STACK)]
    key = {"pk": {"S": f"INCIDENT#{opened['run']['incident']}"}, "sk": {"S": "RECORD"}}
    assert dynamodb.get_item(TableName=table, Key=key)["Item"]["status"] == {"S": "open"}


def test_a_run_that_fails_is_told_though_sam_exits_with_0(aws: AwsAccount) -> None:
    del aws  # it has to be there
    answer = invoke("QueueSaturationMachine", "--event", '{"queu": "orders"}')
    assert answer["Error"] == "BadInput"
    assert 'Give {"queue": "orders"}' in answer["Cause"]
