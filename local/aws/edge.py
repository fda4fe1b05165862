"""The one door through which API calls reach MiniStack: they are recorded and faults are met."""
# ruff: noqa: SLF001 -- works on MiniStack's internals

import asyncio
import json
import re
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator, router
from ministack.core.responses import get_account_id

from local.aws import faults, workers
from local.aws.bridges import iam
from local.aws.recorder import CALLS, Call

calls = CALLS

_original = app._dispatch_service_request
_XML_CODE = re.compile(rb"<Code>([^<]+)</Code>")

type _Response = tuple[int, dict[str, str], Any]


class LostReplyError(ConnectionError):
    """Ends a request without an answer; the server turns it into an empty 500."""


def install() -> None:
    """Put the door in place."""
    app._dispatch_service_request = _dispatch


def reset() -> None:
    """Forget calls and faults."""
    calls.clear()
    faults.reset()


async def _dispatch(  # noqa: PLR0917 -- MiniStack's signature
    method: str, path: str, headers: dict[str, str], body: bytes, query: Any, request_id: str
) -> _Response:
    service, operation, needs, principal = _identify(method, path, headers, body, query)
    account, region = get_account_id(), router.extract_region(headers)
    action, _ = needs[0]
    fault = faults.take(account, region, service, action, operation, principal)

    def record(status: int, error: str) -> None:
        for needed, resource in needs:
            calls.add(
                Call(
                    account, region, service, operation, needed, resource, principal, status, error
                )
            )

    match fault.kind if fault else "":
        case "throttle" | "error" if fault:
            record(fault.status, fault.code)
            _, reply_headers, reply = iam_actions.access_denied_response(
                service, action, "", request_id, error_code=fault.code,
                message=f"{fault.code} (planned fault)", headers=headers,
            )  # fmt: skip
            return fault.status, reply_headers, reply
        case "timeout" | "blocked" if fault:
            record(0, "")
            await asyncio.sleep(fault.seconds)
            raise LostReplyError(action)
        case "crash_before":
            record(0, "")
            workers.kill(router.extract_access_key_id(headers, query))
            raise LostReplyError(action)
    status, reply_headers, reply = await _original(method, path, headers, body, query, request_id)
    record(status, _error_code(status, reply_headers, reply))
    if fault and fault.kind == "crash_after":
        workers.kill(router.extract_access_key_id(headers, query))
    if fault and fault.kind in ("crash_after", "lost_reply"):
        raise LostReplyError(action)
    return status, reply_headers, reply


def _identify(
    method: str, path: str, headers: dict[str, str], body: bytes, query: Any
) -> tuple[str, str, list[tuple[str, str]], str]:
    """Return service, operation, the IAM actions with their resources, and the principal."""
    params = app._routing_params(method, path, headers, body, query)
    service = router.detect_service(method, path, headers, params)
    if service != "s3":
        body = app._decompress_request_body(body, headers)
    operation = iam.api_operation(service, method, path, headers, body, params) or ""
    action = iam_actions.extract_iam_action(service, method, path, headers, body, params) or ""
    region, account = router.extract_region(headers), get_account_id()
    # A DynamoDB transaction is no action; each of its items is checked as what it does.
    items = iam_actions.dynamodb_transaction_checks(action, body, region, account)
    resource = iam_actions.extract_resource_arn(
        service, method, path, headers, body, params, router.extract_region(headers),
        get_account_id(),
    )  # fmt: skip
    identity = iam_evaluator.resolve_caller_identity(router.extract_access_key_id(headers, query))
    switched = iam.switched_clusters(service, params, account)
    items = items or [(action, arn) for arn in switched]
    needs = list(dict.fromkeys(items)) or [(action, resource)]
    name = operation.partition(":")[2]
    return service, name, needs, (identity or {}).get("userArn", "")


def _error_code(status: int, headers: dict[str, str], body: Any) -> str:
    if status < 400 or not isinstance(body, bytes):  # noqa: PLR2004 -- HTTP: errors start at 400
        return ""
    kind = next((v for k, v in headers.items() if k.lower() == "x-amzn-errortype"), "")
    if not kind and (found := _XML_CODE.search(body)):
        kind = found[1].decode()
    if not kind and body.startswith(b"{"):
        kind = str(json.loads(body).get("__type", ""))
    return kind.rpartition("#")[2].partition(":")[0] or str(status)
