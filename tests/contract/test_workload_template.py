"""The pilot's template keeps the rules of the product's own template, and some of its own."""

from pathlib import Path
from typing import Any

from tools.checks import template, template_rules

PATH = Path(__file__).parents[2] / "workload/template.yaml"
RAW = template.load(PATH)
TRANSLATED = template.translate(RAW, PATH.parent)
# An alarm with a runbook's tag acts by the account's event rule, not by an action of its own. The
# pilot's payloads and logs hold nothing but made-up orders: the services' own keys are enough.
NOT_FOR_A_PILOT = {"alarm_action", "bucket_encrypted", "log_group_key"}


def tags(resource: str) -> dict[str, Any]:
    found: Any = RAW["Resources"][resource]["Properties"]["Tags"]
    if isinstance(found, dict):
        return found
    return {tag["Key"]: tag["Value"] for tag in found if "Key" in tag}


def test_it_lints_clean_raw_and_translated() -> None:
    assert template.cfn_lint(RAW) == []
    assert template.cfn_lint(TRANSLATED) == []


def test_it_keeps_the_products_rules() -> None:
    guard = template.GuardRules(Path(__file__).parent / "rules").check(TRANSLATED)

    assert {finding.rule for finding in guard} <= NOT_FOR_A_PILOT
    assert template_rules.check_parameters(TRANSLATED) == []
    assert template_rules.check_alarms(TRANSLATED, {}) == []


def test_visibility_is_six_times_every_timeout_that_can_be_chosen() -> None:
    timeouts = RAW["Parameters"]["WorkerTimeoutSeconds"]["AllowedValues"]
    visibility = RAW["Mappings"]["VisibilityTimeoutSeconds"]["ForWorkerTimeout"]

    assert visibility == {str(timeout): 6 * timeout for timeout in timeouts}


def test_runbooks_may_touch_only_what_the_parameter_opts_in() -> None:
    optional = {"Ref": "RunbookAutomation"}
    opted_in = {
        name
        for name, resource in RAW["Resources"].items()
        if "runbook-automation" in str(resource["Properties"].get("Tags"))
    }

    assert opted_in == {
        "OrdersQueue",
        "OrdersDeadLetterQueue",
        "ApiFunction",
        "WorkerFunction",
        "WorkerMapping",
        "BackPressureParameter",
    }
    assert all(tags(name)["runbook-automation"] == optional for name in opted_in)


def test_the_worker_of_the_queue_is_declared_to_bear_a_message_twice() -> None:
    assert tags("OrdersQueue")["runbook:idempotent"] == "yes"


def test_dead_letters_take_at_least_five_receives() -> None:
    assert RAW["Parameters"]["MaxReceiveCount"]["MinValue"] == 5


def test_only_alarms_of_a_deployed_runbook_are_created() -> None:
    alarms = {
        name: (tags(name)["runbook"], resource.get("Condition"))
        for name, resource in RAW["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }

    assert alarms == {
        "BacklogAlarm": ("queue-saturation", None),
        "OldestAgeAlarm": ("queue-saturation", None),
        "DeadLettersAlarm": ("dlq-replay", "HasDlqReplay"),
        "ThrottlesAlarm": ("lambda-throttles", "HasLambdaThrottles"),
        "ApiThrottlesAlarm": ("lambda-throttles", "HasLambdaThrottles"),
    }
