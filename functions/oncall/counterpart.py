"""The run that would undo this one: a failback beside a failover, in the other Region's stack.

Each Region's stack has locks of its own, so neither keeps the other's runs away. A run opens its
incident, and then looks for its counterpart: of two that begin together at least one sees the
other, but for the seconds that ListExecutions may be late (Step Functions API Reference: it is
eventually consistent). Both stacks have to bear the same name, as samconfig.toml has it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from oncall import contract as contracts
from oncall import service as services_files
from oncall.errors import BadInput
from oncall.failover import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_stepfunctions.client import SFNClient

    from oncall.service import Service
    from oncall.services import Services


def running(aws: Services, service: Service, direction: str, execution: str) -> str:
    """Return the ARN of a run on the service in the other direction, ``""`` where there is none.

    ``aws`` is of the other Region, ``execution`` the ARN of the run that asks. A run that only
    observes is none, and neither is a Region without such a stack. Raises ``ClientError`` or
    ``BotoCoreError`` where the Region does not tell.
    """
    _, partition, _, _, account, *_ = execution.split(":")
    runbook = next(name for name, goal in DIRECTIONS.items() if goal != direction)
    machine = (
        f"arn:{partition}:states:{aws.settings.region}:{account}:stateMachine:"
        f"{aws.settings.stack}-{runbook}"
    )
    return next(
        (
            arn
            for arn in _executions(aws, machine)
            if _is_about(aws.client("stepfunctions"), arn, runbook, service)
        ),
        "",
    )


def _executions(aws: Services, machine: str) -> Iterator[str]:
    pages = aws.client("stepfunctions").get_paginator("list_executions")
    try:
        for page in pages.paginate(stateMachineArn=machine, statusFilter="RUNNING"):
            yield from (one["executionArn"] for one in page["executions"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "StateMachineDoesNotExist":
            raise


def _is_about(client: SFNClient, arn: str, runbook: str, service: Service) -> bool:
    given = json.loads(client.describe_execution(executionArn=arn).get("input", "{}"))
    try:
        request = contracts.parse_input(contracts.load(runbook), given)
        about = services_files.load(request.target)
    except BadInput:
        # That run has been refused with the same sentence, or is about to be.
        return False
    return request.mode != "observe" and about.record == service.record
