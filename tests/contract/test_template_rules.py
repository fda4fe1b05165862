"""Every rule for the template finds its planted flaw and leaves a clean template alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.planting import GONE, planted
from tools.checks import template, template_rules

HERE = Path(__file__).parent
RAW = template.load(HERE / "templates/clean.yaml")
CLEAN = template.translate(RAW, HERE / "templates")
GUARD = template.GuardRules(HERE / "rules")


def at(resource: str, *path: str | int) -> tuple[str | int, ...]:
    return ("Resources", resource, "Properties", *path)


POLICY = at("DeadLettersPolicy", "PolicyDocument", "Statement", 0, "Principal")
TRUST = at("TidyRole", "AssumeRolePolicyDocument", "Statement", 0, "Principal")
PRIVATE = at("Bucket", "PublicAccessBlockConfiguration")
FLAGS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
RETRY = at("AlarmRule", "Targets", 0, "RetryPolicy")
ENCRYPTION = at("Bucket", "BucketEncryption", "ServerSideEncryptionConfiguration", 0)

GUARD_FLAWS: Sequence[tuple[str, Sequence[str | int], Any]] = [
    ("function_log_group", at("RaiseLimit", "LoggingConfig", "LogGroup"), GONE),
    ("function_log_group", at("RaiseLimit", "LoggingConfig"), GONE),
    ("function_runtime", at("RaiseLimit", "Runtime"), "python3.12"),
    ("function_runtime", at("RaiseLimit", "Architectures"), ["arm64"]),
    ("function_runtime", at("RaiseLimit", "Architectures"), GONE),
    ("function_tracing", at("RaiseLimit", "TracingConfig"), GONE),
    ("function_reservation", at("RaiseLimit", "ReservedConcurrentExecutions"), 1),
    (
        "function_reservation",
        at("RaiseLimit", "ReservedConcurrentExecutions"),
        {"Fn::If": ["HasSlack", 5, 1]},
    ),
    ("function_url_auth", at("ReceiveDecisionUrl", "TargetFunctionArn"), {"Ref": "RaiseLimit"}),
    ("permission_source", at("AlarmRulePermission", "SourceArn"), GONE),
    ("stream_failures", at("RaiseLimitRecords", "DestinationConfig"), GONE),
    ("stream_failures", at("RaiseLimitRecords", "MaximumRetryAttempts"), GONE),
    ("stream_failures", at("RaiseLimitRecords", "MaximumRetryAttempts"), -1),
    ("machine_logging", at("Machine", "LoggingConfiguration"), GONE),
    ("machine_logging", at("Machine", "LoggingConfiguration", "Level"), "OFF"),
    ("machine_logging", at("Machine", "LoggingConfiguration", "IncludeExecutionData"), True),
    ("machine_logging", at("Machine", "LoggingConfiguration", "Destinations"), []),
    ("machine_tracing", at("Machine", "TracingConfiguration"), GONE),
    ("log_group_retention", at("MachineLogs", "RetentionInDays"), GONE),
    ("log_group_key", at("MachineLogs", "KmsKeyId"), GONE),
    ("target_dead_letters", at("AlarmRule", "Targets", 0, "DeadLetterConfig"), GONE),
    ("target_retry", RETRY, GONE),
    ("target_retry", (*RETRY, "MaximumRetryAttempts"), GONE),
    (
        "target_retry",
        at("RaiseLimitAlarms", "Targets", 0, "RetryPolicy", "MaximumEventAgeInSeconds"),
        GONE,
    ),
    ("schedule_dead_letters", at("Tidy", "Target", "DeadLetterConfig"), GONE),
    ("schedule_dead_letters", at("Tidy", "Target", "RetryPolicy"), GONE),
    ("alarm_missing_data", at("QueueAlarm", "TreatMissingData"), GONE),
    ("alarm_action", at("QueueAlarm", "AlarmActions"), GONE),
    ("alarm_action", at("QueueAlarm", "AlarmActions"), []),
    ("alarm_description", at("QueueAlarm", "AlarmDescription"), GONE),
    ("queue_encrypted", at("DeadLetters", "KmsMasterKeyId"), GONE),
    ("trust_principal", TRUST, {"Service": "lambda.amazonaws.com", "AWS": "123456789012"}),
    ("table_encrypted", at("Table", "SSESpecification"), GONE),
    ("table_recovery", at("Table", "PointInTimeRecoverySpecification"), GONE),
    ("bucket_encrypted", at("Bucket", "BucketEncryption"), GONE),
    (
        "bucket_encrypted",
        (*ENCRYPTION, "ServerSideEncryptionByDefault"),
        {"SSEAlgorithm": "AES256"},
    ),
    ("bucket_private", PRIVATE, GONE),
    *(("bucket_private", (*PRIVATE, flag), False) for flag in FLAGS),
    ("bucket_lifecycle", at("Bucket", "LifecycleConfiguration"), GONE),
    ("topic_encrypted", at("Topic", "KmsMasterKeyId"), GONE),
    ("key_rotation", at("Key", "EnableKeyRotation"), GONE),
    ("key_principal", at("Key", "KeyPolicy", "Statement", 0, "Principal"), {"AWS": "*"}),
    ("key_principal", at("Key", "KeyPolicy", "Statement", 0, "Principal"), "*"),
    ("key_principal", at("Key", "KeyPolicy", "Statement", 0, "Principal"), {"AWS": ["1", "*"]}),
    ("policy_principal", POLICY, "*"),
    ("policy_principal", POLICY, {"AWS": "*"}),
    ("policy_principal", POLICY, {"AWS": ["123456789012", "*"]}),
    ("trust_principal", TRUST, {"AWS": "arn:aws:iam::123456789012:root"}),
    ("trust_principal", TRUST, "*"),
]

RULE_FLAWS: Sequence[tuple[str, Sequence[str | int], Any]] = [
    ("parameter-group", ("Parameters", "Extra"), {"Type": "String"}),
    ("parameter-group", ("Parameters", "OwnerTag"), GONE),
    (
        "parameter-group",
        ("Metadata", "AWS::CloudFormation::Interface", "ParameterGroups", 0, "Parameters"),
        ["OwnerTag", "ReportDays", "SlackBotToken", "OwnerTag"],
    ),
    ("parameter-description", ("Parameters", "OwnerTag", "Description"), GONE),
    ("parameter-bound", ("Parameters", "OwnerTag", "AllowedPattern"), GONE),
    ("parameter-secret", ("Parameters", "SlackBotToken", "NoEcho"), GONE),
    ("alarm-metric", at("QueueAlarm", "MetricName"), "ApproximateNumberOfMessageVisible"),
    ("alarm-metric", at("QueueAlarm", "Namespace"), "AWS/SQ"),
    ("alarm-dimensions", at("QueueAlarm", "Dimensions", 0, "Name"), "QueueNam"),
    ("alarm-dimensions", at("QueueAlarm", "Dimensions"), GONE),
    (
        "alarm-dimensions",
        at("MathAlarm", "Metrics", 0, "MetricStat", "Metric", "Dimensions", 0, "Name"),
        "StateMachineName",
    ),
    (
        "alarm-dimension-value",
        at("QueueAlarm", "Dimensions", 0, "Value"),
        {"Ref": "DeadLetters"},
    ),
    (
        "alarm-dimension-value",
        at("QueueAlarm", "Dimensions", 0, "Value"),
        {"Fn::GetAtt": ["DeadLetters", "Arn"]},
    ),
    ("alarm-dimension-value", at("QueueAlarm", "Dimensions", 0, "Value"), {"Ref": "Table"}),
]

# What cfn-lint and its serverless rules are trusted with, on the translated form.
LINTER_FLAWS: Sequence[tuple[str, Sequence[str | int], Any]] = [
    (
        "W3037",
        at("RaiseLimitRole", "Policies", 0, "PolicyDocument", "Statement", 0, "Action"),
        ["lambda:PutFunctionConcurency"],
    ),
    ("ES1007", ("Resources", "RaiseLimitEventInvokeConfig"), GONE),
    ("ES4000", at("AlarmRule", "Targets", 0, "DeadLetterConfig"), GONE),
    ("I3011", ("Resources", "Table", "UpdateReplacePolicy"), GONE),
    ("E3002", at("Table", "BillingMod"), "PAY_PER_REQUEST"),
]


def name(flaw: tuple[str, Sequence[str | int], Any]) -> str:
    return f"{flaw[0]}-{'.'.join(map(str, flaw[1][1:]))}"


@pytest.mark.parametrize("flaw", GUARD_FLAWS, ids=name)
def test_guard_finds_the_planted_flaw(flaw: tuple[str, Sequence[str | int], Any]) -> None:
    rule, path, value = flaw

    assert {found.rule for found in GUARD.check(planted(CLEAN, path, value))} == {rule}


def test_every_guard_rule_has_a_planted_flaw() -> None:
    written = re.findall(
        r"^rule (\w+)", (HERE / "rules/product.guard").read_text("utf-8"), re.MULTILINE
    )

    assert set(written) == {rule for rule, _, _ in GUARD_FLAWS}


def rules_broken(document: template.Template) -> set[str]:
    findings = template_rules.check_parameters(document)
    findings += template_rules.check_alarms(document, {})
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("flaw", RULE_FLAWS, ids=name)
def test_a_planted_flaw_is_found(flaw: tuple[str, Sequence[str | int], Any]) -> None:
    rule, path, value = flaw

    assert rule in rules_broken(planted(CLEAN, path, value))


def test_every_rule_has_a_planted_flaw() -> None:
    source = Path(template_rules.__file__).read_text("utf-8")

    assert set(re.findall(r'Finding\(\s*"([a-z-]+)"', source)) == {r for r, _, _ in RULE_FLAWS}


def test_an_own_metric_is_known_when_the_caller_says_so() -> None:
    document = planted(CLEAN, at("QueueAlarm", "Namespace"), "Runbooks")
    document = planted(document, at("QueueAlarm", "MetricName"), "ReportsFailed")
    own = {"Runbooks": {"ReportsFailed": {frozenset({"QueueName"})}}}

    assert {f.rule for f in template_rules.check_alarms(document, {})} == {"alarm-metric"}
    assert template_rules.check_alarms(document, own) == []


def test_the_linter_finds_what_it_is_trusted_with() -> None:
    document = CLEAN
    for _, path, value in LINTER_FLAWS:
        document = planted(document, path, value)

    found = {finding.rule for finding in template.cfn_lint(document)}

    assert {rule for rule, _, _ in LINTER_FLAWS} <= found


def test_a_clean_template_is_left_alone() -> None:
    assert template.cfn_lint(RAW) == []
    assert template.cfn_lint(CLEAN) == []
    assert GUARD.check(CLEAN) == []
    assert rules_broken(CLEAN) == set()


def test_translation_inlines_the_machine_and_keeps_its_substitutions() -> None:
    machine = CLEAN["Resources"]["Machine"]["Properties"]

    assert "${RaiseLimitArn}" in str(machine["DefinitionString"])
    assert machine["DefinitionSubstitutions"].keys() == {"RaiseLimitArn"}
