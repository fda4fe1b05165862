"""Readiness of the stacks: roles, people, switches and secrets in both Regions."""

import json
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest

from oncall import readiness_stack, service, stack_facts
from oncall.readiness_seen import Finding, Inventory, StackSeen
from oncall.service import Service
from oncall.words import UNKNOWN
from tests.unit.test_failover_facts import Aws, refusal
from tests.unit.test_readiness import BY_ALARM, INVENTORY, PEOPLE, SHOP, STACK

RECORDS = replace(SHOP, routing_control=None, health_check=None, stores=())
LONELY = replace(SHOP, approvers=(), stores=())


def found(seen: Inventory = INVENTORY, of: Service = SHOP) -> Mapping[str, Finding]:
    return {one.name: one for one in readiness_stack.findings(of, seen)}


def with_stack(role: Any, **changed: Any) -> Inventory:
    return replace(INVENTORY, stacks={**INVENTORY.stacks, role: replace(STACK, **changed)})


def everywhere(**changed: Any) -> Inventory:
    return replace(INVENTORY, stacks=dict.fromkeys(INVENTORY.stacks, replace(STACK, **changed)))


def tags(number: int, value: Any) -> Inventory:
    named = readiness_stack.tagged(SHOP)[number]
    return replace(INVENTORY, tags={**INVENTORY.tags, named: value})


UNSEEN = ("stack:standby", UNKNOWN)
OFF = {"/runbooks/kill-switch/all": "stop, INC-1"}
CASES: list[tuple[str, str, Inventory, Service, str]] = [
    ("stack:standby", "bad", with_stack("standby", deployed=False), SHOP, "sam deploy"),
    ("stack:primary", "warn", with_stack("primary", deployed=False), SHOP, "not be brought back"),
    ("stack:standby", UNKNOWN, with_stack("standby", deployed=None), SHOP, "was not seen"),
    ("iam:standby", "bad", with_stack("standby", denied=("a:B on c",)), SHOP, "a:B on c"),
    (
        "iam:standby",
        "bad",
        with_stack("standby", denied=tuple("abcde")),
        SHOP,
        "a, b, c and 2 more",
    ),
    ("iam:primary", "warn", with_stack("primary", denied=("a:B on c",)), SHOP, "brought back"),
    ("iam:primary", UNKNOWN, with_stack("primary", denied=None), SHOP, "SimulatePrincipalPolicy"),
    ("switch:standby", "bad", with_stack("standby", switches=OFF), SHOP, "is 'stop, INC-1'"),
    ("switch:standby", "bad", with_stack("standby", switches={"/x": ""}), SHOP, "is 'missing'"),
    ("switch:primary", "warn", with_stack("primary", switches=OFF), SHOP, "put-parameter"),
    ("switch:primary", UNKNOWN, with_stack("primary", switches=None), SHOP, "not read"),
    ("secrets:standby", "bad", with_stack("standby", channels={"slack": "no"}), SHOP, "slack: no"),
    ("secrets:primary", "warn", with_stack("primary", channels={"slack": "no"}), SHOP, "slack: no"),
    ("secrets:standby", "warn", with_stack("standby", channels={}), SHOP, "neither Slack nor"),
    ("secrets:standby", UNKNOWN, with_stack("standby", channels=None), SHOP, "lambda invoke"),
    ("stack:alike", "warn", with_stack("standby", code_sha256="x"), SHOP, "not alike: the code"),
    ("stack:alike", "warn", with_stack("standby", settings={}), SHOP, "alike: PeriodSeconds"),
    ("stack:alike", UNKNOWN, with_stack("standby", settings=None), SHOP, "not read in full"),
    ("approvers", "bad", everywhere(approvers=()), SHOP, "Nobody may approve a failover"),
    ("approvers", "warn", everywhere(approvers=()), replace(SHOP, unattended=True), "Nobody"),
    ("approvers", "warn", everywhere(approvers=("U0A",)), SHOP, "Only U0A"),
    ("approvers", "warn", with_stack("primary", approvers=PEOPLE[1:]), SHOP, "U0SHOPLEAD may not"),
    ("approvers", "warn", everywhere(approvers=("U0A",)), LONELY, "Fewer than two people"),
    ("approvers", "ok", everywhere(approvers=("U0A", "U0B")), LONELY, "people enough"),
    ("approvers", UNKNOWN, everywhere(approvers=None), SHOP, "was not seen"),
    ("approvers", UNKNOWN, with_stack("primary", approvers=None), SHOP, "failback was not seen"),
    ("stack:primary", "warn", with_stack("primary", deployed=False), LONELY, "no stack runbooks"),
    ("opted_in", "bad", tags(0, {}), SHOP, "aws lambda tag-resource --region us-east-1"),
    ("opted_in", "bad", tags(-1, {"runbook-automation": "no"}), SHOP, "function:shop --tags"),
    ("opted_in", UNKNOWN, tags(0, None), SHOP, "was not read"),
]


@pytest.mark.parametrize(("name", "verdict", "seen", "of", "said"), CASES)
def test_what_is_wrong_with_a_stack_is_found_once_with_what_to_do(
    name: str, verdict: str, seen: Inventory, of: Service, said: str
) -> None:
    listed = found(seen, of)
    assert listed[name].verdict == verdict, listed[name]
    assert said in listed[name].sentence
    others = {one: it.verdict for one, it in listed.items() if it.verdict != "ok" and one != name}
    # Who may approve is not known of a stack that was not seen.
    assert others == ({"approvers": UNKNOWN} if (name, verdict) == UNSEEN else {})


def test_of_what_needs_no_tag_none_is_asked_for() -> None:
    bare = replace(SHOP, consumers=dict.fromkeys(SHOP.consumers, ()), capacity={
        "primary": (), "standby": (),
    })  # fmt: skip
    assert "opted_in" not in found(of=bare)


def needed(of: Service, role: Any) -> set[tuple[str, str]]:
    return {(a, one.resource) for one in readiness_stack.needs(of, role) for a in one.actions}


def test_a_failover_needs_what_the_file_names_and_no_more() -> None:
    account = "123456789012"
    cluster = "arn:aws:rds:{}:" + account + ":cluster:shop"
    controls: Any = SHOP.routing_control
    mappings = [SHOP.consumers[role][0] for role in service.ROLES]
    databases = [
        f"arn:aws:rds::{account}:global-cluster:shop",
        cluster.format("us-east-1"),
        cluster.format("eu-west-1"),
    ]
    both = {
        *(("route53-recovery-cluster:UpdateRoutingControlStates", one)
          for one in controls.controls.values()),
        ("s3:PutObject", "arn:aws:s3:::shop-switch-eu-west-1/failed-over"),
        ("s3:DeleteObject", "arn:aws:s3:::shop-switch-eu-west-1/failed-over"),
        ("s3:GetObject", "arn:aws:s3:::shop-switch-eu-west-1/failed-over"),
        ("s3:ListBucket", "arn:aws:s3:::shop-switch-eu-west-1"),
        ("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z0000000EXAMPLE"),
        *(("rds:SwitchoverGlobalCluster", one) for one in databases),
        *(("lambda:UpdateEventSourceMapping", one) for one in mappings),
    }  # fmt: skip
    reserved, provisioned = (one.resource for one in SHOP.capacity["standby"])
    assert needed(SHOP, "primary") == both
    assert needed(SHOP, "standby") == both | {
        *(("rds:FailoverGlobalCluster", one) for one in databases),
        ("lambda:PutFunctionConcurrency", reserved),
        ("lambda:PutProvisionedConcurrencyConfig", provisioned),
    }
    by_alarm = [one for one in readiness_stack.needs(BY_ALARM, "standby") if one.resource == "*"]
    assert [(one.actions, dict(one.context)) for one in by_alarm] == [
        (("cloudwatch:PutMetricData",), {"cloudwatch:namespace": "Failover"})
    ]


def test_outside_the_aws_partition_arns_are_that_partitions() -> None:
    regions: Any = {"primary": "cn-north-1", "standby": "cn-northwest-1"}
    away = readiness_stack.needs(replace(RECORDS, regions=regions), "standby")
    assert away[0].resource == "arn:aws-cn:route53:::hostedzone/Z0000000EXAMPLE"


# Reading


def configuration(**changed: Any) -> Any:
    variables = {"APPROVERS": "U0A,U0B", "PERIOD_SECONDS": "60", "SLACK_SECRET_ARN": "arn:slack"}
    return {
        "CodeSha256": "sha", "Role": "arn:aws:iam::123456789012:role/x",
        "Environment": {"Variables": variables}, **changed,
    }  # fmt: skip


def answered(payload: Any, **more: Any) -> Any:
    return lambda **_: {"Payload": BytesIO(json.dumps(payload).encode()), **more}


def read(functions: Any, **others: Any) -> StackSeen:
    aws: Any = Aws({"eu-west-1": {"lambda": functions, **others}})
    return stack_facts.read_stack(aws, RECORDS, "standby", "runbooks")


def test_a_stack_is_read_by_its_functions_and_what_iam_says_of_them() -> None:
    asked: list[Any] = []

    def simulate(**given: Any) -> Any:
        asked.append(given)
        zone = given["ResourceArns"][0].startswith("arn:aws:route53")
        return {
            "EvaluationResults": [
                {"EvalActionName": one, "EvalDecision": "implicitDeny" if zone else "allowed"}
                for one in given["ActionNames"]
            ]
        }

    seen = read(
        {
            "get_function_configuration": lambda **_: configuration(),
            "invoke": answered({"channels": {"slack": ""}}),
        },
        iam={"simulate_principal_policy": simulate},
        ssm={
            "get_parameters": lambda **_: {
                "Parameters": [{"Name": "/runbooks/kill-switch/all", "Value": "run"}]
            }
        },
    )
    assert seen == StackSeen(
        deployed=True,
        code_sha256="sha",
        settings={
            "Approvers": "U0A,U0B",
            "PeriodSeconds": "60",
            "RunsPerHour": "",
            "AccountConcurrencyFloor": "",
            "SlackChannel": "",
            "SlackMention": "",
            "SlackSecretArn": "given",
            "PagerDutySecretArn": "",
        },
        approvers=("U0A", "U0B"),
        denied=(
            "route53:ChangeResourceRecordSets on arn:aws:route53:::hostedzone/Z0000000EXAMPLE",
        ),
        switches={
            "/runbooks/kill-switch/all": "run",
            "/runbooks/kill-switch/route53-failover": "",
        },
        channels={"slack": ""},
    )
    tagged = next(one for one in asked if one["ActionNames"] == ["lambda:UpdateEventSourceMapping"])
    assert tagged["ContextEntries"] == [
        {
            "ContextKeyName": "aws:ResourceTag/runbook-automation",
            "ContextKeyType": "string",
            "ContextKeyValues": ["enabled"],
        }
    ]


def test_a_stack_that_is_not_there_is_told_from_one_that_does_not_answer() -> None:
    gone = {"get_function_configuration": refusal("ResourceNotFoundException", 404)}
    refused = {"get_function_configuration": refusal("AccessDeniedException", 403)}
    assert read(gone) == StackSeen(deployed=False)
    assert read(refused) == read({}) == StackSeen()


def test_a_report_that_fails_and_variables_that_are_locked_leave_their_part_unknown() -> None:
    seen = read(
        {
            "get_function_configuration": lambda **_: configuration(Environment={"Error": {}}),
            "invoke": answered({"errorMessage": "x"}, FunctionError="Unhandled"),
        }
    )
    assert seen == StackSeen(deployed=True, code_sha256="sha")


def test_tags_of_an_alias_are_its_functions_and_of_a_service_ecs_tells_them() -> None:
    asked: list[str] = []

    def listed(Resource: str) -> Any:  # noqa: N803 -- boto3's name
        asked.append(Resource)
        return {"Tags": {"a": "b"}}

    there = {
        "lambda": {"list_tags": listed},
        "ecs": {"list_tags_for_resource": lambda **_: {"tags": [{"key": "c", "value": "d"}]}},
    }
    aws: Any = Aws({"eu-west-1": there})
    start = "arn:aws:lambda:eu-west-1:123456789012"
    assert stack_facts.read_tags(aws, f"{start}:function:shop:live") == {"a": "b"}
    assert stack_facts.read_tags(aws, f"{start}:event-source-mapping:1") == {"a": "b"}
    assert asked == [f"{start}:function:shop", f"{start}:event-source-mapping:1"]
    assert stack_facts.read_tags(aws, "arn:aws:ecs:eu-west-1:1:service/shop/web") == {"c": "d"}
    assert stack_facts.read_tags(aws, "arn:aws:ecs:us-east-1:1:service/shop/web") is None
