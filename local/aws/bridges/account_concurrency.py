"""Gap: one Lambda concurrency limit for all accounts together, fixed at import.

AWS: the limit (1,000 by default, 10 in new accounts) is per account and Region, and a function's
reservation is taken from it, so unreserved functions share what is left
(https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).
"""
# ruff: noqa: SLF001 -- works on MiniStack's internals

import json
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import error_response_json, get_account_id, get_region
from ministack.services import lambda_svc

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("account_concurrency")
LIMITS: dict[str, int] = {}


@dataclass
class _Default:
    limit: int = 1000


DEFAULT = _Default()


def limit_of(account: str) -> int:
    """Return the account's limit."""
    return LIMITS.get(account, DEFAULT.limit)


@BRIDGE.replace(lambda_svc, "_acquire_execution_slot")
def _acquire_execution_slot(
    func: dict[str, Any], config: dict[str, Any]
) -> tuple[str | None, str | None]:
    key: str = lambda_svc._inflight_key(config)
    account, region, name = key.split(":", 2)
    # An asynchronous invocation carries a copy of the record; the reservation is read as it is now.
    live = lambda_svc._functions.get_scoped(account, region, name) or func
    reserved = lambda_svc._reserved_concurrency(live, config)
    with lambda_svc._inflight_lock:
        mine = lambda_svc._inflight.get(key, 0)
        if reserved is not None and mine >= reserved:
            return None, "function"
        if reserved is None:
            limit, used = limit_of(account), 0
            for record in _functions(account, region):
                taken = lambda_svc._reserved_concurrency(record, record["config"])
                if taken is not None:
                    limit -= taken
                else:
                    used += lambda_svc._inflight.get(_key(account, region, record), 0)
            if used >= limit:
                return None, "account"
        lambda_svc._inflight[key] = mine + 1
        lambda_svc._inflight_total += 1
    return key, None


def _functions(account: str, region: str) -> list[dict[str, Any]]:
    return [
        record
        for (owner, place, _), record in lambda_svc._functions.all_items()
        if (owner, place) == (account, region)
    ]


def _key(account: str, region: str, record: dict[str, Any]) -> str:
    return f"{account}:{region}:{record['config'].get('FunctionName', '?')}"


@BRIDGE.replace(lambda_svc, "_get_account_settings")
def _get_account_settings() -> Any:
    status, headers, body = _settings()
    settings = json.loads(body)
    limit = limit_of(get_account_id())
    settings["AccountLimit"]["ConcurrentExecutions"] = limit
    settings["AccountLimit"]["UnreservedConcurrentExecutions"] = limit - _reserved()
    return status, headers, json.dumps(settings).encode()


@BRIDGE.replace(lambda_svc, "_put_function_concurrency")
def _put_function_concurrency(name: str, data: dict[str, Any]) -> Any:
    wanted = int(data.get("ReservedConcurrentExecutions", 0))
    left = limit_of(get_account_id()) - _reserved(but=name) - wanted
    if name in lambda_svc._functions and wanted and left < _floor():
        return error_response_json(
            "InvalidParameterValueException",
            f"Specified ReservedConcurrentExecutions for function decreases account's "
            f"UnreservedConcurrentExecution below its minimum value of [{_floor()}].",
            400,
        )
    return _put(name, data)


_settings = BRIDGE.original(lambda_svc, "_get_account_settings")
_put = BRIDGE.original(lambda_svc, "_put_function_concurrency")


def _floor() -> int:
    """Return the concurrency that reservations must leave: 100, or all of a new account's 10."""
    return min(100, limit_of(get_account_id()))


def _reserved(but: str = "") -> int:
    return sum(
        lambda_svc._reserved_concurrency(record, record["config"]) or 0
        for record in _functions(get_account_id(), get_region())
        if record["config"].get("FunctionName") != but
    )
