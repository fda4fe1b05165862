"""Rules for the roles of the translated template: least privilege, checked and recorded.

Which actions know no resource is AWS's own data (the service authorization reference), read from
the copy that parliament brings.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from tools.checks.finding import Finding
from tools.checks.iam import AWS_MANAGED, Names, resolve, role_policies, simulate
from tools.checks.template import Template, as_list, resources

# Actions that IAM cannot restrict to a resource. `test_iam_rules` compares them with AWS's data.
# Reads, then the task results (a task's token is their secret), then what the logging and tracing
# of state machines and functions takes.
STAR_ACTIONS = frozenset(
    {
        "cloudwatch:DescribeAlarmsForMetric",
        "cloudwatch:GetMetricData",
        "cloudwatch:GetMetricStatistics",
        "cloudwatch:GetMetricWidgetImage",
        "cloudwatch:PutMetricData",
        "lambda:GetAccountSettings",
        "lambda:ListEventSourceMappings",
        "states:SendTaskFailure",
        "states:SendTaskHeartbeat",
        "states:SendTaskSuccess",
        "tag:GetResources",
        "logs:CreateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:GetLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:UpdateLogDelivery",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    }
)
# Actions that know resources but lose what they are asked for when restricted to one.
STAR_WITH_REASON = {
    "cloudwatch:DescribeAlarms": "composite alarms are not returned under a narrower scope",
}
READS_OF_FORBIDDEN = {
    "iam:SimulatePrincipalPolicy": "says what a role is allowed, and allows nothing",
}
# Whoever holds one of these can give itself the rest, or change what runs under another role.
FORBIDDEN_ACTIONS = (
    "cloudformation:*",
    "events:DeleteRule",
    "events:DisableRule",
    "events:Put*",
    "events:RemoveTargets",
    "iam:*",
    "kms:CreateGrant",
    "kms:PutKeyPolicy",
    "lambda:AddPermission",
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:PublishVersion",
    "lambda:UpdateAlias",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "s3:PutBucketPolicy",
    "scheduler:*",
    "sns:SetTopicAttributes",
    "sqs:AddPermission",
    "sqs:DeleteQueue",
    "sqs:PurgeQueue",
    "sqs:SetQueueAttributes",
    "states:CreateStateMachine",
    "states:DeleteStateMachine",
    "states:UpdateStateMachine",
    "sts:AssumeRole*",
)
# Changes to what the runbooks protect. Here or below has to stand
# each write that is not of the stack's own resources.
PRODUCTION_WRITES = frozenset(
    {
        "application-autoscaling:RegisterScalableTarget",
        "cloudwatch:PutMetricData",
        "ecs:UpdateService",
        "lambda:DeleteFunctionConcurrency",
        "lambda:DeleteProvisionedConcurrencyConfig",
        "lambda:InvokeFunction",
        "lambda:PutFunctionConcurrency",
        "lambda:PutProvisionedConcurrencyConfig",
        "lambda:UpdateEventSourceMapping",
        "rds:FailoverGlobalCluster",
        "rds:SwitchoverGlobalCluster",
        "route53-recovery-cluster:UpdateRoutingControlState",
        "route53-recovery-cluster:UpdateRoutingControlStates",
        "route53:ChangeResourceRecordSets",
        "route53:UpdateHealthCheck",
        "s3:DeleteObject",
        "s3:PutObject",
        "sqs:CancelMessageMoveTask",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
        "sqs:StartMessageMoveTask",
        "ssm:DeleteParameter",
        "ssm:PutParameter",
    }
)
# Writes, by AWS's own classes, that change nothing that a runbook protects.
HARMLESS_WRITES = {
    "kms:Decrypt": "reads; AWS counts it as a write",
    "kms:GenerateDataKey": "makes a key to encrypt with and stores nothing",
    "logs:CreateLogDelivery": "the logs of the stack's own machines",
    "logs:DeleteLogDelivery": "the logs of the stack's own machines",
    "logs:PutResourcePolicy": "the logs of the stack's own machines",
    "logs:UpdateLogDelivery": "the logs of the stack's own machines",
    "states:SendTaskFailure": "answers the stack's own runs; whoever has no token can answer none",
    "states:SendTaskHeartbeat": "as above",
    "states:SendTaskSuccess": "as above",
    "states:StopExecution": "the stack's own runs; the sweeper puts back what they have changed",
    "xray:PutTelemetryRecords": "traces",
    "xray:PutTraceSegments": "traces",
}
OPT_IN_TAG = "aws:ResourceTag/runbook-automation"
OPT_IN_VALUE = "enabled"
_SEND_TASK = "states:SendTask"


class Call(Protocol):
    """One API call that was made, as the embedded AWS records it."""

    @property
    def action(self) -> str:
        """The IAM action, e.g. `sqs:SendMessage`; empty where IAM does not ask."""

    @property
    def resource(self) -> str:
        """The ARN that IAM checks, or `*`."""

    @property
    def role(self) -> str:
        """The name of the caller's role."""


def check_roles(template: Template) -> list[Finding]:
    """Apply every rule to the roles of a translated template."""
    policies = role_policies(template, managed=False)
    findings = list(_send_task(policies))
    for role, properties in resources(template, "AWS::IAM::Role").items():
        findings += _managed(role, properties, template)
    for role, statements in _statements(template).items():
        for raw, resolved in statements:
            if resolved["Effect"] == "Allow":
                findings += _allow(role, raw, resolved, template)
    # Parliament wants ARNs: a parameter that the deployer gives may be any.
    given = {
        name: "*"
        for name, parameter in template.get("Parameters", {}).items()
        if not parameter.get("Default")
    }
    for role, documents in role_policies(template, given, managed=False).items():
        for document in documents:
            findings += _parliament(role, document)
    return sorted(set(findings))


def _statements(
    template: Template,
) -> dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Pair each statement as written with its resolved form."""
    raw = role_policies(template, Verbatim(), managed=False)
    resolved = role_policies(template, managed=False)
    return {
        role: [
            pair
            for before, after in zip(raw[role], resolved[role], strict=True)
            for pair in zip(before["Statement"], after["Statement"], strict=True)
        ]
        for role in resolved
    }


class Verbatim(dict[str, str]):
    """Resolves every reference to its own name in angle brackets."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str)

    def __getitem__(self, key: str) -> str:
        return f"<{key}>"

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 -- dict's signature
        """Return it for every name."""
        return self[key]


def _allow(
    role: str, raw: Mapping[str, Any], resolved: Mapping[str, Any], template: Template
) -> Iterator[Finding]:
    if "NotAction" in resolved or "NotResource" in resolved:
        yield Finding("iam-not", role, "an Allow says what, not what not")
        return
    actions = [str(action) for action in as_list(resolved["Action"])]
    star = "*" in as_list(resolved["Resource"])
    for action in actions:
        if "*" in action or "?" in action:
            yield Finding("iam-wildcard-action", role, f"{action}: name each action")
        elif star and action not in STAR_ACTIONS | STAR_WITH_REASON.keys():
            yield Finding("iam-star-resource", role, f"{action} can be restricted to a resource")
        forbidden = action not in READS_OF_FORBIDDEN and any(
            _overlap(action, one) for one in FORBIDDEN_ACTIONS
        )
        if forbidden:
            yield Finding("iam-forbidden", role, f"{action}: no role needs this at run time")
        if action in PRODUCTION_WRITES and not _opted_in(raw, template):
            yield Finding(
                "iam-opt-in", role, f"{action} lacks the condition {OPT_IN_TAG}: {OPT_IN_VALUE}"
            )
        if not forbidden and not _is_listed(action, raw, template):
            yield Finding(
                "iam-write", role, f"{action} writes: say in PRODUCTION_WRITES or HARMLESS_WRITES"
            )


def _overlap(action: str, forbidden: str) -> bool:
    one = {"Statement": {"Effect": "Allow", "Action": forbidden, "Resource": "*"}}
    other = {"Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}
    return simulate(one, action, "*") or simulate(other, forbidden, "*")


def changes_production(action: str, raw: Mapping[str, Any], template: Template) -> bool:
    """Tell whether a statement, references verbatim, lets a role change what runbooks protect."""
    return action in PRODUCTION_WRITES and not _is_own(raw, template)


def _is_listed(action: str, raw: Mapping[str, Any], template: Template) -> bool:
    try:
        level = access_level(action)
    except KeyError:
        return True  # there is no such action, which parliament says
    listed = action in PRODUCTION_WRITES or action in HARMLESS_WRITES
    return listed or level in ("List", "Read") or _is_own(raw, template)


def _is_own(raw: Mapping[str, Any], template: Template) -> bool:
    """Tell whether a statement speaks of the stack's resources alone, or of what bears its name."""
    return _names(raw, [*template["Resources"], "AWS::StackName"])


def _opted_in(raw: Mapping[str, Any], template: Template) -> bool:
    """Tell whether a write is held to a tag, a namespace, parameters or the stack itself."""
    equal = raw.get("Condition", {}).get("StringEquals", {})
    wanted = equal.get(OPT_IN_TAG)
    if wanted is not None and as_list(wanted) == [OPT_IN_VALUE]:
        return True
    if as_list(raw["Action"]) == ["cloudwatch:PutMetricData"] and "cloudwatch:namespace" in equal:
        return True
    return _names(raw, template.get("Parameters", {}).keys() | template["Resources"].keys())


def _names(raw: Mapping[str, Any], named: Iterable[str]) -> bool:
    """Tell whether each resource of a statement is one of those that are named."""
    names = list(named)
    return all(
        any(f"<{name}>" in arn or f"<{name}." in arn for name in names)
        for arn in map(str, as_list(raw["Resource"]))
    )


def _send_task(policies: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[Finding]:
    holders = sorted(
        role
        for role, documents in policies.items()
        if any(simulate(documents, f"{_SEND_TASK}{end}", "*") for end in ("Success", "Failure"))
    )
    if len(holders) != 1:
        yield Finding("iam-send-task", ", ".join(holders) or "no role", "exactly one role decides")


def _managed(role: str, properties: Mapping[str, Any], template: Template) -> Iterator[Finding]:
    for arn in properties.get("ManagedPolicyArns", ()):
        if isinstance(arn, Mapping) and arn.get("Ref") in template["Resources"]:
            continue  # its statements are judged like the role's own
        said = str(resolve(arn, template, {}))
        if not said.endswith(tuple(f":policy/{name}" for name in AWS_MANAGED)):
            yield Finding("iam-managed-policy", role, f"{said}: write out what the role needs")


@cache
def _linter() -> ModuleType:
    """Import parliament 1.6.4 past what is old about it.

    It finds its data files by `pkg_resources`, which setuptools has dropped, and its regular
    expressions make Python warn when it is compiled for the first time.
    """
    stand_in = ModuleType("pkg_resources")

    def resource_filename(package: str, name: str) -> str:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(package)
        return str(Path(spec.origin).parent / name)

    vars(stand_in)["resource_filename"] = resource_filename
    sys.modules["pkg_resources"] = stand_in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            return importlib.import_module("parliament")
    finally:
        del sys.modules["pkg_resources"]


def _parliament(role: str, document: Mapping[str, Any]) -> Iterator[Finding]:
    analysed = _linter().analyze_policy_string(json.dumps(document))
    for found in analysed.findings:
        # A star resource is judged by the list above. AWS's data marks express executions and map
        # runs as required beside standard ones and machines (e.g. of states:DescribeExecution,
        # states:ListExecutions); either will do.
        either = found.issue == "RESOURCE_MISMATCH" and all(
            any(kind in lacking["required_format"] for kind in (":express:", ":mapRun:"))
            for lacking in found.detail
        )
        if found.issue != "RESOURCE_STAR" and not either:
            yield Finding("parliament", role, f"{found.issue} {found.detail}")


def knows_resources(action: str) -> bool:
    """Tell from AWS's data whether an action can be restricted to resources.

    Raises KeyError for an action that does not exist.
    """
    return any(kind["resource_type"] for kind in _privilege(action)["resource_types"])


def access_level(action: str) -> str:
    """Return AWS's class of an action: List, Read, Write, Tagging or Permissions management.

    Raises KeyError for an action that does not exist.
    """
    return str(_privilege(action)["access_level"])


@cache
def _privilege(action: str) -> Mapping[str, Any]:
    prefix, _, name = action.partition(":")
    for service in _linter().iam_definition:
        if service["prefix"] == prefix:
            for privilege in service["privileges"]:
                if privilege["privilege"].lower() == name.lower():
                    found: Mapping[str, Any] = privilege
                    return found
    raise KeyError(action)


def unpermitted(
    calls: Iterable[Call],
    template: Template,
    names: Names | None = None,
    context: Callable[[Call], Mapping[str, Any]] = lambda _: {},
) -> list[Finding]:
    """Return the calls that the role they were made under does not allow.

    `names` are the deployed names (see `role_policies`): those of roles tell which role a call was
    made under, for which a logical id will do as well. `context` gives the condition keys that AWS
    would have filled in for a call, e.g. `{"aws:ResourceTag/team": "a"}`. Calls under roles of
    other stacks are left out.
    """
    policies = role_policies(template, names)
    logical = _logical(policies, names)
    return sorted(
        {
            Finding("iam-missing", logical[call.role], f"{call.action} on {call.resource}")
            for call in calls
            if call.action and call.role in logical
            if not simulate(policies[logical[call.role]], call.action, call.resource, context(call))
        }
    )


def _logical(roles: Iterable[str], names: Names | None) -> dict[str, str]:
    return {role: role for role in roles} | {
        name: role for role in roles if (name := (names or {}).get(role)) is not None
    }


def unused(
    calls: Iterable[Call],
    template: Template,
    exceptions: Mapping[tuple[str, str], str],
    names: Names | None = None,
) -> list[Finding]:
    """Return the allowed actions that no call used, and the exceptions that are none any more.

    `exceptions` maps (role's logical id, action) to the reason why no call shows it.
    """
    policies = role_policies(template, managed=False)
    logical = _logical(policies, names)
    used = {(logical.get(call.role), call.action.lower()) for call in calls}
    idle = {
        (role, str(action))
        for role, documents in policies.items()
        for document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        if (role, str(action).lower()) not in used
    }
    return sorted(
        [
            Finding("iam-unused", role, f"{action} is allowed, but nothing used it")
            for role, action in idle - exceptions.keys()
        ]
        + [
            Finding("iam-exception", role, f"{action} needs no exception any more")
            for role, action in exceptions.keys() - idle
        ]
    )
