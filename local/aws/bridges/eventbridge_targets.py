"""Gaps of EventBridge targets: no dead-letter queue, and Lambda targets are not invoked as events.

AWS: an event for a target that is gone, or that EventBridge may not invoke, goes straight to the
target's dead-letter queue with the attributes RULE_ARN, TARGET_ARN, ERROR_CODE, ERROR_MESSAGE and
RETRY_ATTEMPTS, always 0 here and so without EXHAUSTED_RETRY_CONDITION; without a queue it is
dropped (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html).
Functions are invoked asynchronously, so Lambda's own retries and dead-letter queue apply
(https://docs.aws.amazon.com/lambda/latest/dg/with-eventbridge-scheduler.html), and only where the
function's policy lets events.amazonaws.com
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html).
`RetryPolicy` is kept and returned; nothing here fails in a way that EventBridge would retry.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
from fnmatch import fnmatchcase
from typing import Any

from ministack.services import eventbridge, lambda_svc, sns, sqs, stepfunctions

from local.aws.bridges import queue_message
from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("eventbridge_targets")
_EVENTS = "events.amazonaws.com"


@BRIDGE.replace(eventbridge, "_invoke_target")
def _invoke_target(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
    arn, rule_arn = target.get("Arn", ""), rule.get("Arn", "")
    code, message = _obstacle(arn, rule_arn)
    if not code:
        _invoke(target, event, rule, view)
    elif queue := (target.get("DeadLetterConfig") or {}).get("Arn"):
        view = view or eventbridge._pattern_event_view(event)
        attributes: dict[str, str | int] = {
            "RULE_ARN": rule_arn,
            "TARGET_ARN": arn,
            "ERROR_CODE": code,
            "ERROR_MESSAGE": message,
            "RETRY_ATTEMPTS": "0",
        }
        queue_message.put_message(queue, json.dumps(view.event_with_detail()), attributes)


@BRIDGE.replace(eventbridge, "_dispatch_to_lambda")
def _dispatch_to_lambda(arn: str, payload: str) -> None:
    func, config, _ = lambda_svc._get_func_record_for_ref(arn)
    record = lambda_svc._execution_record_for_config(func, config)
    lambda_svc.invoke_async_with_retry(record, json.loads(payload))


def _obstacle(arn: str, rule_arn: str) -> tuple[str, str]:
    """Return EventBridge's error code and message for a target that cannot be invoked."""
    service = arn.split(":")[2] if arn.startswith("arn:") else ""
    match service:
        case "lambda":
            func, config, _ = lambda_svc._get_func_record_for_ref(arn)
            if func and config and not _allows(func, rule_arn):
                return "NO_PERMISSIONS", f"{_EVENTS} is not authorized to invoke {arn}"
            exists = bool(func and config)
        case "sqs":
            exists = sqs._queue_by_arn(arn) is not None
        case "sns":
            exists = arn in sns._topics
        case "states":
            exists = stepfunctions._resolve_state_machine_arn(arn) is not None
        case _:
            exists = True
    return ("", "") if exists else ("NO_RESOURCE", f"{arn} does not exist.")


def _allows(func: dict[str, Any], rule_arn: str) -> bool:
    policy = func.get("policy") or {}
    policy = json.loads(policy) if isinstance(policy, str) else policy
    return any(_permits(statement, rule_arn) for statement in policy.get("Statement", []))


def _permits(statement: dict[str, Any], rule_arn: str) -> bool:
    principal = statement.get("Principal")
    named = principal.get("Service") if isinstance(principal, dict) else principal
    if statement.get("Effect") != "Allow" or named not in (_EVENTS, "*"):
        return False
    for keys in (statement.get("Condition") or {}).values():
        for key, wanted in keys.items():
            if key.lower() == "aws:sourcearn" and not fnmatchcase(rule_arn, str(wanted)):
                return False
    return True


_invoke = BRIDGE.original(eventbridge, "_invoke_target")
