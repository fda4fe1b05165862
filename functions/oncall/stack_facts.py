"""Read the stack of runbooks in a Region: roles, settings, switches, secrets, and opt-in tags.

As in ``failover_facts``, a read that fails leaves its part unknown and ends nothing.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall.readiness_seen import StackSeen
from oncall.readiness_stack import CHANGES, needs
from oncall.targets import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.service import Role, Service
    from oncall.services import Services

logger = logging.getLogger(__name__)

REPORT = "report"
_ALIKE: Mapping[str, Mapping[str, str]] = {
    CHANGES: {
        "APPROVERS": "Approvers",
        "PERIOD_SECONDS": "PeriodSeconds",
        "RUNS_PER_HOUR": "RunsPerHour",
        "ACCOUNT_CONCURRENCY_FLOOR": "AccountConcurrencyFloor",
    },
    REPORT: {"SLACK_CHANNEL": "SlackChannel", "SLACK_MENTION": "SlackMention"},
}
"""By function, its variables that no Region has for itself, with the parameters that they show."""
_GIVEN: Mapping[str, str] = {
    "SLACK_SECRET_ARN": "SlackSecretArn",
    "PAGERDUTY_SECRET_ARN": "PagerDutySecretArn",
}
"""What each Region has its own of, or none has one."""


def read_or[T, U](read: Callable[[], T], otherwise: U) -> T | U:
    """Return what was read, or what stands for unknown where AWS has not told."""
    try:
        return read()
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        return otherwise


def read_stack(aws: Services, service: Service, role: Role, stack: str) -> StackSeen:
    """Read the stack in the Region of ``role``."""
    there = aws.within(service.regions[role])
    try:
        runs = _function(there, stack, CHANGES)
    except ClientError as error:
        if error.response["Error"]["Code"] in MISSING:
            return StackSeen(deployed=False)
        logger.warning("Not read: %s", error)
        return StackSeen()
    except BotoCoreError as error:
        logger.warning("Not read: %s", error)
        return StackSeen()
    tells = read_or(partial(_function, there, stack, REPORT), None)
    return StackSeen(
        deployed=True,
        code_sha256=runs["CodeSha256"],
        settings=_settings(runs, tells),
        approvers=_approvers(runs),
        denied=read_or(partial(_denied, there, service, role, stack), None),
        switches=read_or(partial(_switches, there, stack, role), None),
        channels=read_or(partial(_channels, aws, service.regions[role], stack), None),
    )


def has_function(aws: Services, name: str) -> bool:
    """Return whether there is a function of that name; raises what else AWS says."""
    try:
        aws.client("lambda").get_function_configuration(FunctionName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in MISSING:
            return False
        raise
    return True


def _function(aws: Services, stack: str, name: str) -> Mapping[str, Any]:
    return aws.client("lambda").get_function_configuration(FunctionName=f"{stack}-{name}")


def _variables(function: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    environment = (function or {"Environment": {"Error": {}}}).get("Environment", {})
    return None if "Error" in environment else environment.get("Variables", {})


def _settings(runs: Mapping[str, Any], tells: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    by_function = {CHANGES: _variables(runs), REPORT: _variables(tells)}
    found: dict[str, str] = {}
    for function, names in _ALIKE.items():
        variables = by_function[function]
        if variables is None:
            return None
        found |= {parameter: variables.get(name, "") for name, parameter in names.items()}
    given = by_function[REPORT] or {}
    return found | {
        parameter: "given" if given.get(name) else "" for name, parameter in _GIVEN.items()
    }


def _approvers(runs: Mapping[str, Any]) -> tuple[str, ...] | None:
    variables = _variables(runs)
    if variables is None:
        return None
    return tuple(one for one in variables.get("APPROVERS", "").split(",") if one)


def _denied(aws: Services, service: Service, role: Role, stack: str) -> tuple[str, ...]:
    """Return what the functions' roles are not allowed (IAM ``SimulatePrincipalPolicy``).

    It knows nothing of the request but what is given it, and no tags of the resource by itself.
    """
    roles: dict[str, str] = {}
    found = []
    for need in needs(service, role):
        if need.function not in roles:
            roles[need.function] = _function(aws, stack, need.function)["Role"]
        answer = aws.client("iam").simulate_principal_policy(
            PolicySourceArn=roles[need.function],
            ActionNames=list(need.actions),
            ResourceArns=[need.resource],
            ContextEntries=[
                {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
                for key, value in need.context.items()
            ],
        )
        found += [
            f"{one['EvalActionName']} on {need.resource}"
            for one in answer["EvaluationResults"]
            if one["EvalDecision"] != "allowed"
        ]
    return tuple(found)


def _switches(aws: Services, stack: str, role: Role) -> Mapping[str, str]:
    runbook = "route53-failover" if role == "standby" else "route53-failback"
    names = [f"/{stack}/kill-switch/{name}" for name in ("all", runbook)]
    answer = aws.client("ssm").get_parameters(Names=names)
    found = {item["Name"]: item["Value"] for item in answer["Parameters"]}
    return {name: found.get(name, "") for name in names}


def _channels(aws: Services, region: str, stack: str) -> Mapping[str, str] | None:
    """Have the report look at its own secrets: nobody else may read them.

    Its Region answers, so it is waited for as long as a function takes that has to start first.
    """
    answer = aws.client("lambda", region).invoke(
        FunctionName=f"{stack}-{REPORT}", Payload=json.dumps({"check": "channels"})
    )
    said = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        logger.warning("Not read: %s", said)
        return None
    channels: Mapping[str, str] = said["channels"]
    return channels


def read_tags(aws: Services, arn: str) -> Mapping[str, str] | None:
    """Return the tags of a mapping, a function or an ECS service, by its ARN."""
    return read_or(partial(_tags, arn, aws.within(arn.split(":")[3])), None)


def _tags(arn: str, aws: Services) -> Mapping[str, str]:
    parts = arn.split(":")
    if parts[2] == "ecs":
        listed = aws.client("ecs").list_tags_for_resource(resourceArn=arn)["tags"]
        return {one["key"]: one["value"] for one in listed}
    # A version or alias has its function's tags.
    return aws.client("lambda").list_tags(Resource=":".join(parts[:7]))["Tags"]
