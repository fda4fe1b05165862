"""Roles: the evaluator decides as AWS documents, every rule finds its planted flaw."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.contract.planting import GONE, planted
from tools.checks import iam, iam_rules, template

HERE = Path(__file__).parent / "templates"
CLEAN = template.translate(template.load(HERE / "clean.yaml"), HERE)
QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:consumer"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/runbooks-Table-1"
TAGGED = {"aws:ResourceTag/runbook-automation": "enabled"}


def allow(action: Any = "sqs:SendMessage", resource: Any = QUEUE, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource} | more
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (allow(), True),
        (allow(action="sqs:sendmessage"), True),
        (allow(action="sqs:Send*"), True),
        (allow(action="sqs:SendMessag?"), True),
        (allow(action="sqs:SendMessages"), False),
        (allow(action=["sqs:ReceiveMessage", "sqs:SendMessage"]), True),
        (allow(resource="*"), True),
        (allow(resource=QUEUE[:-1]), False),
        (allow(resource=f"{QUEUE[:-3]}*"), True),
        (allow(resource="arn:aws:sqs:*:orders"), False),
        (allow(resource="arn:aws:sqs:*:*:orders"), True),
        (allow(resource=[f"{QUEUE}-other", QUEUE]), True),
        (allow(Effect="Deny"), False),
        ([allow(), allow(Effect="Deny", Action="*")], False),
        ([allow(), allow(Effect="Deny", Action="sqs:DeleteQueue")], True),
        ({"Statement": {"Effect": "Allow", "NotAction": "sqs:*", "Resource": "*"}}, False),
        ({"Statement": {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}}, True),
        ({"Statement": {"Effect": "Allow", "Action": "*", "NotResource": QUEUE}}, False),
    ],
)
def test_simulate_without_conditions(policy: Any, allowed: bool) -> None:  # noqa: FBT001 -- a parameter of the test, not a switch
    assert iam.simulate(policy, "sqs:SendMessage", QUEUE) is allowed


@pytest.mark.parametrize(
    ("condition", "context", "allowed"),
    [
        ({"StringEquals": {"aws:ResourceTag/x": "on"}}, {"aws:ResourceTag/x": "on"}, True),
        ({"StringEquals": {"aws:ResourceTag/x": "on"}}, {"aws:resourcetag/x": "on"}, True),
        ({"StringEquals": {"aws:ResourceTag/x": "on"}}, {"aws:ResourceTag/x": "On"}, False),
        ({"StringEquals": {"aws:ResourceTag/x": "on"}}, {}, False),
        (
            {"StringEquals": {"aws:ResourceTag/x": ["on", "off"]}},
            {"aws:ResourceTag/x": "off"},
            True,
        ),
        ({"StringEqualsIfExists": {"k": "on"}}, {}, True),
        ({"StringEqualsIfExists": {"k": "on"}}, {"k": "off"}, False),
        ({"StringNotEquals": {"k": "on"}}, {"k": "on"}, False),
        ({"StringNotEquals": {"k": "on"}}, {"k": "off"}, True),
        ({"StringNotEquals": {"k": "on"}}, {}, True),
        ({"StringLike": {"k": "a*"}}, {"k": "abc"}, True),
        ({"StringLike": {"k": "a*"}}, {"k": "cba"}, False),
        ({"StringEquals": {"k": "a*"}}, {"k": "abc"}, False),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:sqs:*:*:o*"}}, {"aws:SourceArn": QUEUE}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:o*"}}, {"aws:SourceArn": QUEUE}, False),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:sns:*:*:o*"}}, {"aws:SourceArn": QUEUE}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, {"aws:SecureTransport": True}, True),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": "false"}, False),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": "true"}}, {"k": "x"}, False),
        ({"StringEquals": {"k": "on", "l": "on"}}, {"k": "on"}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "c"]}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "b"]}, True),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "c"]}, True),
    ],
)
def test_simulate_with_conditions(
    condition: Any,
    context: dict[str, Any],
    allowed: bool,  # noqa: FBT001 -- a parameter of the test, not a switch
) -> None:
    policy = allow(Condition=condition)

    assert iam.simulate(policy, "sqs:SendMessage", QUEUE, context) is allowed


def test_an_unknown_condition_operator_is_refused() -> None:
    policy = allow(Condition={"NumericLessThan": {"k": "1"}})

    with pytest.raises(iam.UnknownConditionError, match="NumericLessThan"):
        iam.simulate(policy, "sqs:SendMessage", QUEUE)


def test_intrinsic_functions_resolve_to_what_was_deployed() -> None:
    value = [
        {"Fn::Sub": "arn:${AWS::Partition}:s3:::${Bucket}/*"},
        {"Fn::Sub": ["${a}/${DeadLetters.Arn}", {"a": {"Ref": "OwnerTag"}}]},
        {"Fn::If": ["HasSlack", {"Ref": "Topic"}, {"Ref": "AWS::NoValue"}]},
        {"Fn::Join": ["/", [{"Fn::GetAtt": ["Table", "Arn"]}, "index"]]},
        {"Fn::GetAtt": ["Table", "StreamArn"]},
    ]
    names = {
        "Bucket": "reports",
        "AWS::Region": "eu-west-1",
        "Topic": "arn:aws:sns:eu-west-1:123456789012:help",
        "DeadLetters": "https://sqs.example.com/123456789012/dead",
    }

    assert iam.resolve(value, CLEAN, names) == [
        "arn:aws:s3:::reports/*",
        "platform/arn:aws:sqs:eu-west-1:123456789012:dead",
        "arn:aws:sns:eu-west-1:123456789012:help",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/*Table*/index",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/*Table*/stream/*",
    ]


@pytest.mark.parametrize(
    "value", [{"Fn::ImportValue": "x"}, {"Ref": "Nothing"}, {"Fn::GetAtt": ["Table", "Colour"]}]
)
def test_what_cannot_be_resolved_is_refused(value: Any) -> None:
    with pytest.raises(iam.UnresolvedError):
        iam.resolve(value, CLEAN, {})


def statement(role: str, policy: int, number: int, *path: str | int) -> tuple[str | int, ...]:
    way = ("Policies", policy, "PolicyDocument", "Statement", number, *path)
    return ("Resources", role, "Properties", *way)


RAISE = ("RaiseLimitRole", 1, 0)
METRICS = ("RaiseLimitRole", 1, 1)
TIDY = ("TidyRole", 0, 0)
ANY_FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:*"

FLAWS: Sequence[tuple[str, Sequence[str | int], Any]] = [
    ("iam-wildcard-action", statement(*TIDY, "Action"), "lambda:Invoke*"),
    ("iam-wildcard-action", statement(*TIDY, "Action"), ["*"]),
    ("iam-star-resource", statement(*TIDY, "Resource"), "*"),
    ("iam-star-resource", statement(*METRICS, "Action"), "cloudwatch:DescribeAlarmHistory"),
    ("iam-star-resource", statement(*METRICS, "Action"), ["cloudwatch:GetMetricData", "sqs:X"]),
    ("iam-write", statement(*RAISE, "Action"), "lambda:TagResource"),
    ("iam-not", statement(*TIDY, "NotResource"), "arn:aws:lambda:::x"),
    ("iam-forbidden", statement(*TIDY, "Action"), "lambda:UpdateFunctionCode"),
    ("iam-forbidden", statement(*TIDY, "Action"), "iam:PassRole"),
    ("iam-forbidden", statement(*TIDY, "Action"), ["iam:SimulatePrincipalPolicy", "iam:GetRole"]),
    ("iam-forbidden", statement(*TIDY, "Action"), ["events:PutRule"]),
    ("iam-forbidden", statement(*TIDY, "Action"), "sqs:*"),
    ("iam-forbidden", statement(*TIDY, "Action"), "sts:AssumeRole"),
    ("iam-forbidden", statement(*TIDY, "Action"), "states:UpdateStateMachine"),
    ("iam-forbidden", statement(*TIDY, "Action"), "sqs:SetQueueAttributes"),
    ("iam-send-task", statement(*METRICS, "Action"), "states:SendTaskSuccess"),
    (
        "iam-send-task",
        statement("ReceiveDecisionRole", 0, 0, "Action"),
        ["states:SendTaskHeartbeat"],
    ),
    ("iam-opt-in", statement(*RAISE, "Condition"), GONE),
    (
        "iam-opt-in",
        statement(*RAISE, "Condition"),
        {"StringEqualsIfExists": {"aws:ResourceTag/runbook-automation": "enabled"}},
    ),
    (
        "iam-opt-in",
        statement(*RAISE, "Condition", "StringEquals", "aws:ResourceTag/runbook-automation"),
        ["enabled", "disabled"],
    ),
    (
        "iam-managed-policy",
        ("Resources", "TidyRole", "Properties", "ManagedPolicyArns"),
        ["arn:aws:iam::aws:policy/AmazonSQSFullAccess"],
    ),
    ("parliament", statement(*TIDY, "Action"), "lambda:InvokeFunctoin"),
    ("parliament", statement(*TIDY, "Resource"), QUEUE),
]


def rules_broken(document: template.Template) -> set[str]:
    return {finding.rule for finding in iam_rules.check_roles(document)}


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: f"{flaw[0]}-{flaw[2]}")
def test_a_planted_flaw_is_found(flaw: tuple[str, Sequence[str | int], Any]) -> None:
    rule, path, value = flaw

    assert rule in rules_broken(planted(CLEAN, path, value))


def test_every_rule_has_a_planted_flaw() -> None:
    source = Path(iam_rules.__file__).read_text("utf-8")
    rules = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))

    recorded = {"iam-missing", "iam-unused", "iam-exception"}
    assert rules - recorded == {rule for rule, _, _ in FLAWS}


def test_clean_roles_are_left_alone() -> None:
    assert iam_rules.check_roles(CLEAN) == []


@pytest.mark.parametrize(
    "resource",
    [
        {"Fn::Sub": "arn:aws:lambda:us-east-1:123456789012:function:${OwnerTag}"},
        {"Fn::GetAtt": ["RaiseLimit", "Arn"]},
    ],
)
def test_a_write_to_a_named_parameter_or_own_resource_needs_no_tag(resource: Any) -> None:
    document = planted(CLEAN, statement(*RAISE, "Condition"), GONE)
    document = planted(document, statement(*RAISE, "Resource"), resource)

    assert rules_broken(document) == set()


@pytest.mark.parametrize("action", sorted(iam_rules.STAR_ACTIONS))
def test_a_star_action_really_knows_no_resource(action: str) -> None:
    assert not iam_rules.knows_resources(action)


@pytest.mark.parametrize("action", sorted(iam_rules.PRODUCTION_WRITES))
def test_a_production_write_exists_and_can_be_held_to_something(action: str) -> None:
    # Metrics can be held to a namespace alone.
    assert iam_rules.knows_resources(action) is (action != "cloudwatch:PutMetricData")
    assert iam_rules.access_level(action) in ("Read", "Write")  # to receive a message hides it


@pytest.mark.parametrize("action", sorted(iam_rules.HARMLESS_WRITES))
def test_a_harmless_write_is_a_write(action: str) -> None:
    assert iam_rules.access_level(action) in ("Write", "Permissions management")


@pytest.mark.parametrize(
    ("condition", "rules"),
    [
        ({"StringEquals": {"cloudwatch:namespace": "Failover"}}, set()),
        ({"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}, {"iam-opt-in"}),
    ],
)
def test_metrics_are_held_to_a_namespace(condition: Any, rules: set[str]) -> None:
    document = planted(CLEAN, statement(*METRICS, "Action"), "cloudwatch:PutMetricData")
    document = planted(document, statement(*METRICS, "Condition"), condition)

    assert rules_broken(document) == rules


def test_what_changes_production_is_told_from_what_is_the_stacks_own() -> None:
    def changes(action: str, resource: str) -> bool:
        raw = {"Action": action, "Resource": resource}
        return iam_rules.changes_production(action, raw, CLEAN)

    assert changes("sqs:DeleteMessage", "arn:<AWS::Partition>:sqs:<AWS::Region>:*")
    assert not changes("sqs:DeleteMessage", "<DeadLetters.Arn>")
    assert not changes("sqs:DeleteMessage", "arn:<AWS::Partition>:sqs:*:*:<AWS::StackName>-x")
    assert not changes("sqs:GetQueueAttributes", "*")


@dataclass(frozen=True)
class Call:
    action: str
    resource: str
    role: str
    tags: Mapping[str, Any] = field(default_factory=dict, hash=False)


def tags_of(call: Any) -> Mapping[str, Any]:
    tags: Mapping[str, Any] = call.tags
    return tags


RAISED = Call("lambda:PutFunctionConcurrency", FUNCTION, "RaiseLimitRole", TAGGED)
READ = Call("dynamodb:GetItem", TABLE, "ReceiveDecisionRole")


def test_permitted_calls_are_left_alone() -> None:
    assert iam_rules.unpermitted([RAISED, READ], CLEAN, context=tags_of) == []


@pytest.mark.parametrize(
    "call",
    [
        Call("lambda:PutFunctionConcurrency", FUNCTION, "RaiseLimitRole"),
        Call("lambda:PutFunctionConcurrency", FUNCTION, "ReceiveDecisionRole", TAGGED),
        Call("lambda:UpdateFunctionCode", FUNCTION, "RaiseLimitRole", TAGGED),
        Call("dynamodb:GetItem", f"{TABLE[:-9]}other", "ReceiveDecisionRole"),
    ],
    ids=["not opted in", "other role", "other action", "other table"],
)
def test_a_call_without_permission_is_found(call: Call) -> None:
    [finding] = iam_rules.unpermitted([READ, call], CLEAN, context=tags_of)

    assert (finding.rule, finding.where) == ("iam-missing", call.role)
    assert call.action in finding.message


def test_deployed_names_narrow_the_patterns() -> None:
    names = {"Table": "incidents"}

    assert iam_rules.unpermitted([READ], CLEAN, names) != []
    assert iam_rules.unpermitted([READ], CLEAN, {"Table": TABLE.split("/")[1]}) == []


def test_calls_are_told_by_the_deployed_role_and_those_of_other_stacks_left_out() -> None:
    deployed = {"TidyRole": "runbooks-TidyRole-1"}
    mine = Call("sqs:SendMessage", QUEUE, "runbooks-TidyRole-1")
    others = Call("sqs:SendMessage", QUEUE, "somebody-else")
    unasked = Call("", "*", "TidyRole")

    [finding] = iam_rules.unpermitted([mine, others, unasked], CLEAN, deployed)

    assert finding.where == "TidyRole"


def test_a_managed_policy_of_the_template_counts_as_the_roles_own() -> None:
    shared = {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"PolicyDocument": allow("sqs:PurgeQueue")},
    }
    document = planted(CLEAN, ("Resources", "Shared"), shared)
    document = planted(
        document, ("Resources", "TidyRole", "Properties", "ManagedPolicyArns"), [{"Ref": "Shared"}]
    )

    assert iam.simulate(iam.role_policies(document)["TidyRole"], "sqs:PurgeQueue", QUEUE)
    assert rules_broken(document) == {"iam-forbidden"}


def test_an_allowed_action_that_nothing_used_is_found() -> None:
    everything = {
        ("RaiseLimitRole", "sqs:SendMessage"): "Lambda sends failed invocations itself",
        ("RaiseLimitRole", "lambda:DeleteFunctionConcurrency"): "x",
        ("RaiseLimitRole", "cloudwatch:GetMetricData"): "x",
        ("ReceiveDecisionRole", "states:SendTaskSuccess"): "x",
        ("ReceiveDecisionRole", "states:SendTaskFailure"): "x",
        ("ReceiveDecisionRole", "dynamodb:UpdateItem"): "x",
        ("TidyRole", "lambda:InvokeFunction"): "the scheduler calls it",
        ("MachineRole", "lambda:InvokeFunction"): "the machine calls it",
    }
    less = {key: why for key, why in everything.items() if key[0] != "TidyRole"}

    assert iam_rules.unused([RAISED, READ], CLEAN, everything) == []
    [finding] = iam_rules.unused([RAISED, READ], CLEAN, less)
    assert (finding.rule, finding.where) == ("iam-unused", "TidyRole")


def test_an_exception_that_is_none_any_more_is_found() -> None:
    key = ("RaiseLimitRole", "lambda:PutFunctionConcurrency")

    findings = iam_rules.unused([RAISED], CLEAN, {key: "outdated"})

    assert "iam-exception" in {finding.rule for finding in findings}
