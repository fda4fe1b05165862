import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws import AwsAccount
from oncall import counterpart, service
from oncall.failover import FAILBACK, FAILOVER
from oncall.services import Services, Settings

SHOP = service.load("shop", service.SAMPLE)
OWN = "arn:aws:states:eu-west-1:{account}:execution:runbooks-route53-failover:own"
_WAIT = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}}


@pytest.fixture(autouse=True)
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample as a service of this deployment."""
    load = service.load
    monkeypatch.setattr(service, "load", lambda name: load(name, service.SAMPLE))


@pytest.fixture
def states(aws: AwsAccount) -> Iterator[Any]:
    """Step Functions of us-east-1, with both machines of a stack `runbooks`."""
    aws.client("iam").create_role(RoleName="machines", AssumeRolePolicyDocument="{}")
    client: Any = aws.for_account(aws.account, "us-east-1").client("stepfunctions")
    for runbook in ("route53-failover", "route53-failback"):
        client.create_state_machine(
            name=f"runbooks-{runbook}",
            definition=json.dumps(_WAIT),
            roleArn=f"arn:aws:iam::{aws.account}:role/machines",
        )
    yield client
    aws.faults.clear()
    for machine in client.list_state_machines()["stateMachines"]:
        arn = machine["stateMachineArn"]
        for one in client.list_executions(stateMachineArn=arn, statusFilter="RUNNING")[
            "executions"
        ]:
            client.stop_execution(executionArn=one["executionArn"])


def start(states: Any, aws: AwsAccount, runbook: str, **given: str) -> str:
    machine = f"arn:aws:states:us-east-1:{aws.account}:stateMachine:runbooks-{runbook}"
    started = states.start_execution(stateMachineArn=machine, input=json.dumps(given))
    return str(started["executionArn"])


def found(aws: AwsAccount, direction: str = FAILOVER, stack: str = "runbooks") -> str:
    settings = Settings(
        table="incidents",
        stack=stack,
        kill_switch="/runbooks/kill-switch",
        period_seconds=1,
        calendars=(),
        runs_per_hour=100,
        approvers=(),
        account_floor=100,
        region="eu-west-1",
    )
    there = Services(settings, aws.session()).within("us-east-1")
    return counterpart.running(there, SHOP, direction, OWN.format(account=aws.account))


def test_only_a_run_on_the_same_service_the_other_way_is_one(aws: AwsAccount, states: Any) -> None:
    start(states, aws, "route53-failback", name="another")
    start(states, aws, "route53-failback", name="shop", mode="observe")
    start(states, aws, "route53-failback", nonsense="x")
    same_way = start(states, aws, "route53-failover", name="shop")
    assert found(aws) == ""
    assert found(aws, FAILBACK) == same_way
    # By its record or by its file's name: it is the same service.
    other = start(states, aws, "route53-failback", name="shop.example.com")
    assert found(aws) == other
    states.stop_execution(executionArn=other)
    assert found(aws) == ""


def test_a_region_without_such_a_stack_runs_none_and_one_that_is_silent_does_not_say(
    aws: AwsAccount, states: Any
) -> None:
    start(states, aws, "route53-failback", name="shop")
    assert found(aws, stack="others") == ""
    aws.faults.block(region="us-east-1")
    with pytest.raises(ClientError):
        found(aws)
