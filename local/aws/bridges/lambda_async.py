"""Gaps of asynchronous invocation: throttles use up the retries, and DLQs get the wrong body.

AWS: an error is retried `MaximumRetryAttempts` times (2), a throttle or a service error for as long
as `MaximumEventAgeInSeconds` (6 hours) lets it; a dead-letter queue then gets the event itself with
the attributes RequestID, ErrorCode and ErrorMessage, an OnFailure destination an invocation record
(https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html,
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html).
The minutes that AWS waits between attempts are a second or two here.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
import time
from typing import Any

from ministack.core.concurrency import spawn_background
from ministack.core.responses import new_uuid, request_scope
from ministack.services import lambda_svc

from local.aws.bridges import queue_message
from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("lambda_async")
_RETRIES = 2
_AGE_SECONDS = 21_600


@BRIDGE.replace(lambda_svc, "invoke_async_with_retry")
def invoke_async_with_retry(func: dict[str, Any], event: Any) -> None:
    """Invoke in the background and retry as AWS does."""
    spawn_background(_run, func, event, thread_name="ministack-lambda-async")


def _run(func: dict[str, Any], event: Any) -> None:
    config = func.get("config") or func
    account, region = lambda_svc._account_region_from_function_config(config)
    options = (
        func.get("event_invoke_config")
        or (func.get("event_invoke_configs") or {}).get("$LATEST")
        or {}
    )
    retries = options.get("MaximumRetryAttempts", _RETRIES)
    begun, errors, pause = time.monotonic(), 0, lambda_svc._LAMBDA_ASYNC_RETRY_BASE_SECONDS
    with request_scope(account, region):
        while True:
            result = lambda_svc._execute_function(func, event)
            if not result.get("error"):
                return
            errors += 0 if result.get("throttle") else 1
            age = time.monotonic() - begun + pause
            if errors > retries or age > options.get("MaximumEventAgeInSeconds", _AGE_SECONDS):
                break
            time.sleep(pause)
            pause = min(pause * 2, lambda_svc._LAMBDA_ASYNC_RETRY_MAX_SECONDS)
        _give_up(config, options, event, result)


def _give_up(
    config: dict[str, Any], options: dict[str, Any], event: Any, result: dict[str, Any]
) -> None:
    name = config.get("FunctionName", "")
    destinations = options.get("DestinationConfig") or {}
    if destination := (destinations.get("OnFailure") or {}).get("Destination"):
        lambda_svc._route_async_failure(destination, name, event, result)
    elif queue := (config.get("DeadLetterConfig") or {}).get("TargetArn"):
        body = result.get("body")
        message = body.get("errorMessage", "") if isinstance(body, dict) else ""
        attributes: dict[str, str | int] = {
            "RequestID": new_uuid(),
            "ErrorCode": 429 if result.get("throttle") else 200,
            "ErrorMessage": message[:1024],
        }
        if not queue_message.put_message(queue, json.dumps(event), attributes):
            lambda_svc._route_async_failure(queue, name, event, result)
