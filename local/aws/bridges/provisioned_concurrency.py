"""Gap: provisioned concurrency is accepted whatever it is, ready at once, and cannot be listed.

A function with the words in its own name can be invoked only: any other call is taken for one about
provisioned concurrency.

AWS: it belongs to an alias or a published version, one configuration a version; it cannot exceed
the function's reservation, nor leave the account less than its floor; an alias with weights cannot
have its configuration changed. Allocation takes minutes: the status is IN_PROGRESS, then READY, or
FAILED with a reason; when an alias moves, it starts again on the new version
(https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html,
https://docs.aws.amazon.com/lambda/latest/api/API_PutProvisionedConcurrencyConfig.html,
https://docs.aws.amazon.com/lambda/latest/api/API_ListProvisionedConcurrencyConfigs.html).
The minutes are a second here. `account_concurrency` says what invocations it leaves room for.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import re
import threading
from typing import Any
from urllib.parse import unquote

from ministack.core.responses import error_response_json, get_account_id, json_response
from ministack.services import lambda_svc

from local.aws.bridges import account_concurrency
from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("provisioned_concurrency")
SECONDS: dict[str, float] = {}
"""How long an allocation takes, by account."""
FAILURES: dict[str, list[str]] = {}
"""Why the next allocations fail, by account."""
_SECONDS = 1.0
_PAGE = 50
_PATH = re.compile(r"/functions/([^/]+)/provisioned-concurrency/?$")
_OK = 200

type _Refusal = tuple[str, str, int]


def reset() -> None:
    """Forget all accounts' settings."""
    SECONDS.clear()
    FAILURES.clear()


@BRIDGE.replace(lambda_svc, "handle_request")
async def handle_request(
    method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
) -> Any:
    """Answer ListProvisionedConcurrencyConfigs, which MiniStack takes for a Get.

    And let it tell calls about provisioned concurrency by the path's end.
    """
    plain = unquote(path)
    listed = _PATH.search(plain)
    if method == "GET" and listed and "List" in query:
        return _list(lambda_svc._resolve_request_scoped_name(listed[1]), query)
    return await _handle(method, path if listed else _OfFunction(plain), headers, body, query)


class _OfFunction(str):
    """A path that is not about provisioned concurrency, whatever a function is called."""

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        return part != "provisioned-concurrency" and str.__contains__(self, str(part))


def _list(name: str, query: dict[str, Any]) -> Any:
    if error := lambda_svc._validate_function_qualifier_exists(name, None):
        return error
    first = int(lambda_svc._qp_first(query, "Marker", "0"))
    last = first + int(lambda_svc._qp_first(query, "MaxItems", str(_PAGE)))
    found = account_concurrency.provisioned_configs(lambda_svc._functions[name]).items()
    arn = lambda_svc._func_arn(name)
    items = [{"FunctionArn": f"{arn}:{qualifier}", **config} for qualifier, config in found]
    answer: dict[str, Any] = {"ProvisionedConcurrencyConfigs": items[first:last]}
    if last < len(items):
        answer["NextMarker"] = str(last)
    return json_response(answer)


@BRIDGE.replace(lambda_svc, "_get_provisioned_concurrency")
def _get_provisioned_concurrency(name: str, qualifier: str | None) -> Any:
    if error := _unknown(name, qualifier):
        return error
    found = account_concurrency.provisioned_configs(lambda_svc._functions[name]).get(str(qualifier))
    return (
        json_response(found)
        if found
        else error_response_json(
            "ProvisionedConcurrencyConfigNotFoundException",
            "No Provisioned Concurrency Config found for this function",
            404,
        )
    )


@BRIDGE.replace(lambda_svc, "_put_provisioned_concurrency")
def _put_provisioned_concurrency(name: str, qualifier: str | None, data: dict[str, Any]) -> Any:
    qualifier = qualifier or "$LATEST"
    wanted = int(data.get("ProvisionedConcurrentExecutions", 0))
    if error := lambda_svc._validate_function_qualifier_exists(name, qualifier):
        return error
    if refusal := _refusal(name, qualifier, wanted):
        return error_response_json(*refusal)
    return json_response(_allocate(lambda_svc._functions[name], qualifier, wanted), 202)


@BRIDGE.replace(lambda_svc, "_delete_provisioned_concurrency")
def _delete_provisioned_concurrency(name: str, qualifier: str | None) -> Any:
    return _unknown(name, qualifier) or _delete(name, qualifier)


@BRIDGE.replace(lambda_svc, "_update_alias")
def _update_alias(name: str, alias: str, data: dict[str, Any]) -> Any:
    record = lambda_svc._functions.get(name) or {"aliases": {}}
    before = account_concurrency.provisioned_version(record, alias)
    answer = _update(name, alias, data)
    config = account_concurrency.provisioned_configs(record).get(alias)
    moved = account_concurrency.provisioned_version(record, alias) != before
    if answer[0] == _OK and config and moved:
        _allocate(record, alias, config["RequestedProvisionedConcurrentExecutions"])
    return answer


@BRIDGE.replace(lambda_svc, "_delete_alias")
def _delete_alias(name: str, alias: str) -> Any:
    answer = _delete_it(name, alias)
    if record := lambda_svc._functions.get(name):
        record["provisioned_concurrency"].pop(alias, None)
    return answer


def _unknown(name: str, qualifier: str | None) -> Any:
    if error := lambda_svc._validate_function_qualifier_exists(name, qualifier):
        return error
    if qualifier in (None, "$LATEST"):
        return error_response_json(
            "InvalidParameterValueException",
            "The function resource provided must be an alias or a published version.",
            400,
        )
    return None


def _refusal(name: str, qualifier: str, wanted: int) -> _Refusal | None:
    record = lambda_svc._functions[name]
    version = account_concurrency.provisioned_version(record, qualifier)
    total = account_concurrency.requested(record, but=qualifier) + wanted
    reserved = account_concurrency.reservation(record, record["config"])
    floor = account_concurrency.floor()
    if wanted < 1:
        message = (
            f"1 validation error detected: Value '{wanted}' at 'provisionedConcurrentExecutions' "
            "failed to satisfy constraint: Member must have value greater than or equal to 1"
        )
        return "ValidationException", message, 400
    if version == "$LATEST":
        message = (
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        )
    elif record["aliases"].get(qualifier, {}).get("RoutingConfig"):
        message = "Alias with weights can not be used with Provisioned Concurrency"
    elif reserved is not None and total > reserved:
        message = (
            "Requested Provisioned Concurrency should not be greater than the "
            "reservedConcurrentExecution for function"
        )
    elif reserved is None and account_concurrency.unreserved(but=name) - total < floor:
        message = (
            "Specified ConcurrentExecutions for function decreases account's "
            f"UnreservedConcurrentExecution below its minimum value of [{floor}]."
        )
    else:
        return _conflict(record, qualifier, version)
    return "InvalidParameterValueException", message, 400


def _conflict(record: dict[str, Any], qualifier: str, version: str) -> _Refusal | None:
    """Refuse a second configuration of one version."""
    others = set(account_concurrency.provisioned_configs(record)) - {qualifier}
    if version not in {account_concurrency.provisioned_version(record, each) for each in others}:
        return None
    message = (
        "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned "
        "version"
        if qualifier in record["aliases"]
        else "Version is pointed by a Provisioned Concurrency alias"
    )
    return "ResourceConflictException", message, 409


def _allocate(record: dict[str, Any], qualifier: str, wanted: int) -> dict[str, Any]:
    """Begin an allocation; return it as it is now, with what was allocated before."""
    before = account_concurrency.provisioned_configs(record).get(qualifier, {})
    allocated = before.get("AllocatedProvisionedConcurrentExecutions", 0)
    config = {
        "RequestedProvisionedConcurrentExecutions": wanted,
        "AvailableProvisionedConcurrentExecutions": allocated,
        "AllocatedProvisionedConcurrentExecutions": allocated,
        "Status": "IN_PROGRESS",
        "LastModified": lambda_svc._now_iso(),
    }
    record["provisioned_concurrency"][qualifier] = config
    begun = dict(config)
    end: dict[str, Any] = {
        "Status": "READY",
        "AvailableProvisionedConcurrentExecutions": wanted,
        "AllocatedProvisionedConcurrentExecutions": wanted,
    }
    if reasons := FAILURES.get(get_account_id()):
        end = {"Status": "FAILED", "StatusReason": reasons.pop(0)}
    timer = threading.Timer(SECONDS.get(get_account_id(), _SECONDS), config.update, [end])
    timer.daemon = True
    timer.start()
    return begun


_handle = BRIDGE.original(lambda_svc, "handle_request")
_delete = BRIDGE.original(lambda_svc, "_delete_provisioned_concurrency")
_update = BRIDGE.original(lambda_svc, "_update_alias")
_delete_it = BRIDGE.original(lambda_svc, "_delete_alias")
