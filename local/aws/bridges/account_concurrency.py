"""Gap: one Lambda concurrency limit for all accounts together, fixed at import.

AWS: the limit (1,000 by default, 10 in new accounts) is per account and Region, and a function's
reservation is taken from it, so unreserved functions share what is left
(https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).

Provisioned concurrency counts towards the function's reservation, or towards the account's limit
where there is none; a reservation cannot be lower; and where it is all provisioned, $LATEST and
every other version without a share of it is throttled
(https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html).
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


def reservation(func: dict[str, Any], config: dict[str, Any]) -> int | None:
    """Return the function's reservation as it is now.

    Versions do not know it, and an asynchronous invocation carries an old copy of it.
    """
    record = _live(func, lambda_svc._inflight_key(config))
    found: int | None = lambda_svc._reserved_concurrency(record, config)
    return found


def provisioned_configs(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the function's provisioned concurrency by alias or version, without what is gone."""
    known = record.get("provisioned_concurrency") or {}
    qualifiers = {*record.get("aliases", ()), *record.get("versions", ())}
    return {name: config for name, config in known.items() if name in qualifiers}


def provisioned_version(record: dict[str, Any], qualifier: str) -> str:
    """Return the version that a qualifier means: itself, unless it is an alias."""
    return str(record["aliases"].get(qualifier, {}).get("FunctionVersion", qualifier))


def requested(record: dict[str, Any], but: str = "") -> int:
    """Return how much provisioned concurrency was asked for, leaving out one qualifier."""
    return sum(
        int(config["RequestedProvisionedConcurrentExecutions"])
        for qualifier, config in provisioned_configs(record).items()
        if qualifier != but
    )


def unreserved(but: str = "") -> int:
    """Return what is left of the account's limit, leaving out what one function takes."""
    others = (
        record
        for record in _functions(get_account_id(), get_region())
        if record["config"].get("FunctionName") != but
    )
    return limit_of(get_account_id()) - sum(map(_taken, others))


def floor() -> int:
    """Return the concurrency that must stay unreserved: 100, or all of a new account's 10."""
    return min(100, limit_of(get_account_id()))


@BRIDGE.replace(lambda_svc, "_acquire_execution_slot")
def _acquire_execution_slot(
    func: dict[str, Any], config: dict[str, Any]
) -> tuple[str | None, str | None]:
    key: str = lambda_svc._inflight_key(config)
    account, region, _ = key.split(":", 2)
    record = _live(func, key)
    reserved = lambda_svc._reserved_concurrency(record, config)
    with lambda_svc._inflight_lock:
        mine = lambda_svc._inflight.get(key, 0)
        if reserved is not None and (mine >= reserved or _is_left_out(record, config, reserved)):
            return None, "function"
        if reserved is None and mine >= _allocated(record):
            limit, used = limit_of(account), 0
            for other in _functions(account, region):
                taken = lambda_svc._reserved_concurrency(other, other["config"])
                if taken is None:
                    taken = _allocated(other)
                    running = lambda_svc._inflight.get(_key(account, region, other), 0)
                    used += max(0, running - taken)
                limit -= taken
            if used >= limit:
                return None, "account"
        lambda_svc._inflight[key] = mine + 1
        lambda_svc._inflight_total += 1
    return key, None


def _live(func: dict[str, Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = lambda_svc._functions.get_scoped(*key.split(":", 2)) or func
    return found


def _is_left_out(record: dict[str, Any], config: dict[str, Any], reserved: int) -> bool:
    """Tell whether all that is reserved is provisioned, and nothing of it for this version."""
    versions = {provisioned_version(record, name) for name in provisioned_configs(record)}
    return _allocated(record) >= reserved and config.get("Version") not in versions


def _allocated(record: dict[str, Any]) -> int:
    configs = provisioned_configs(record).values()
    return sum(int(config["AllocatedProvisionedConcurrentExecutions"]) for config in configs)


def _taken(record: dict[str, Any]) -> int:
    """Return what a function takes from its account's limit."""
    reserved = lambda_svc._reserved_concurrency(record, record["config"])
    return requested(record) if reserved is None else int(reserved)


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
    settings["AccountLimit"]["ConcurrentExecutions"] = limit_of(get_account_id())
    settings["AccountLimit"]["UnreservedConcurrentExecutions"] = unreserved()
    return status, headers, json.dumps(settings).encode()


@BRIDGE.replace(lambda_svc, "_put_function_concurrency")
def _put_function_concurrency(name: str, data: dict[str, Any]) -> Any:
    wanted = int(data.get("ReservedConcurrentExecutions", 0))
    record = lambda_svc._functions.get(name)
    if record and wanted and unreserved(but=name) - wanted < floor():
        return error_response_json(
            "InvalidParameterValueException",
            f"Specified ReservedConcurrentExecutions for function decreases account's "
            f"UnreservedConcurrentExecution below its minimum value of [{floor()}].",
            400,
        )
    if record and wanted < requested(record):
        return error_response_json(
            "InvalidParameterValueException",
            f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total "
            f"provisioned concurrency [{requested(record)}].",
            400,
        )
    return _put(name, data)


_settings = BRIDGE.original(lambda_svc, "_get_account_settings")
_put = BRIDGE.original(lambda_svc, "_put_function_concurrency")
