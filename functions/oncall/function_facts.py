"""Read a function, the account's concurrency and their metrics: the I/O before ``throttles``."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from oncall import contract as contracts
from oncall import metrics
from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE
from oncall.metrics import Window
from oncall.throttles import Facts, Provisioned, User, attempts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mypy_boto3_lambda.type_defs import (
        EventSourceMappingConfigurationTypeDef,
        ProvisionedConcurrencyConfigListItemTypeDef,
    )

    from oncall.services import Services

_RECENT_PERIODS = 2
"""CloudWatch shows a minute late what Lambda has counted."""
_USERS = 4
_THROTTLED = 10
_NOT_FOUND = "ResourceNotFoundException"
_STILL = frozenset({"Disabled", "Disabling", "Deleting"})


def read_facts(aws: Services, runbook: str, arn: str) -> Facts:
    """Read all the facts of the function ``arn`` now, as a diagnosis needs them."""
    rules = contracts.load(runbook).verification
    window = Window.latest(aws, rules["window_periods"])
    aliases = _aliases(aws, arn)
    configuration = aws.client("lambda").get_function_configuration(FunctionName=arn)
    shifting = [alias for alias, shifts in aliases.items() if shifts]
    return replace(
        _state(aws, arn, window, shifting),
        shifting=shifting,
        updating=configuration.get("LastUpdateStatus") == "InProgress",
        users=_users(aws, arn, window),
        **_callers(aws, arn, aliases, window),
        **_usual(aws, arn, window.before(aws, rules["baseline_periods"])),
    )


def look_again(aws: Services, runbook: str, arn: str) -> Facts:
    """Read what a look after the plan judges by: neither who invokes nor what is usual."""
    rules = contracts.load(runbook).verification
    return _state(aws, arn, Window.latest(aws, rules["window_periods"]))


def _state(aws: Services, arn: str, window: Window, shifting: Sequence[str] = ()) -> Facts:
    functions = aws.client("lambda")
    account = functions.get_account_settings()["AccountLimit"]
    reserved = functions.get_function_concurrency(FunctionName=arn)
    name = arn.rsplit(":", 1)[-1]
    return Facts(
        function=name,
        function_arn=arn,
        period_seconds=aws.settings.period_seconds,
        reserved=reserved.get("ReservedConcurrentExecutions"),
        account_limit=account["ConcurrentExecutions"],
        unreserved=account["UnreservedConcurrentExecutions"],
        account_floor=aws.settings.account_floor,
        provisioned=_provisioned(aws, arn, shifting, window),
        **_recent(aws, name),
        **metrics.read(aws, _queries(name), window),  # type: ignore[arg-type]  # series by field
    )


def _queries(name: str) -> dict[str, metrics.Query]:
    """Return the metrics of the function and of the account.

    Lambda Developer Guide, "Types of metrics for Lambda functions" (monitoring-metrics-types).
    """
    return {
        "invocations": _of(name, "Invocations", "Sum"),
        "errors": _of(name, "Errors", "Sum"),
        "throttles": _of(name, "Throttles", "Sum"),
        "concurrency": _of(name, "ConcurrentExecutions", "Maximum"),
        "duration": _of(name, "Duration", "p50"),
        "mean_duration": _of(name, "Duration", "Average"),
        "slowest": _of(name, "Duration", "p99"),
        "recursions": _of(name, "RecursiveInvocationsDropped", "Sum"),
        "account_concurrency": metrics.query("AWS/Lambda", "ConcurrentExecutions", "Maximum"),
        "account_unreserved": metrics.query(
            "AWS/Lambda", "UnreservedConcurrentExecutions", "Maximum"
        ),
    }


def _of(name: str, metric: str, statistic: str) -> metrics.Query:
    return metrics.query("AWS/Lambda", metric, statistic, FunctionName=name)


def _recent(aws: Services, name: str) -> dict[str, Any]:
    """Read who was throttled just now, the function and others."""
    recent = Window.latest(aws, _RECENT_PERIODS)
    asked = {
        "throttled": _of(name, "Throttles", "Sum"),
        "invoked": _of(name, "Invocations", "Sum"),
    }
    found = metrics.read(aws, asked, recent)
    throttled = metrics.greatest(aws, "SUM", "Throttles", recent, _THROTTLED)
    return {
        "throttled_recently": sum(found["throttled"]),
        "invoked_recently": sum(found["invoked"]),
        "neighbours": [other for other, v in throttled.items() if sum(v) > 0 and other != name],
    }


def _usual(aws: Services, arn: str, before: Window) -> dict[str, Any]:
    """Read what is usual: the median period before the window."""
    name = arn.rsplit(":", 1)[-1]
    usual = {"invocations", "throttles", "concurrency", "duration"}
    asked = {key: one for key, one in _queries(name).items() if key in usual}
    found = metrics.read(aws, asked, before)
    return {
        "usual_duration": _median(found["duration"]),
        "usual_attempts": _median(attempts(found["invocations"], found["throttles"])),
        "usual_concurrency": _median(found["concurrency"]),
    }


def _median(series: Sequence[float]) -> float | None:
    return median(series) if series else None


def _provisioned(
    aws: Services, arn: str, shifting: Sequence[str], window: Window
) -> list[Provisioned]:
    """Read provisioned concurrency (Lambda ``ListProvisionedConcurrencyConfigs``) and its use."""
    pages = (
        aws.client("lambda")
        .get_paginator("list_provisioned_concurrency_configs")
        .paginate(FunctionName=arn)
    )
    return [
        _one_provisioned(aws, config, shifting, window)
        for page in pages
        for config in page["ProvisionedConcurrencyConfigs"]
    ]


def _one_provisioned(
    aws: Services,
    config: ProvisionedConcurrencyConfigListItemTypeDef,
    shifting: Sequence[str],
    window: Window,
) -> Provisioned:
    function, _, qualifier = config["FunctionArn"].rpartition(":")
    name = function.rsplit(":", 1)[-1]
    dimensions = {"FunctionName": name, "Resource": f"{name}:{qualifier}"}
    asked = {
        "spilled": metrics.query(
            "AWS/Lambda", "ProvisionedConcurrencySpilloverInvocations", "Sum", **dimensions
        ),
        "used": metrics.query(
            "AWS/Lambda", "ProvisionedConcurrencyUtilization", "Maximum", **dimensions
        ),
    }
    found = metrics.read(aws, asked, window)
    return Provisioned(
        qualifier=qualifier,
        arn=config["FunctionArn"],
        requested=config["RequestedProvisionedConcurrentExecutions"],
        available=config.get("AvailableProvisionedConcurrentExecutions", 0),
        status=config["Status"],
        reason=config.get("StatusReason", ""),
        spilled=sum(found["spilled"]),
        utilization=max(found["used"], default=None),
        shifting=qualifier in shifting,
    )


def _aliases(aws: Services, arn: str) -> dict[str, bool]:
    """Return the aliases by name, and whether each shifts weights (Lambda ``ListAliases``)."""
    pages = aws.client("lambda").get_paginator("list_aliases").paginate(FunctionName=arn)
    return {
        alias["Name"]: bool(alias.get("RoutingConfig", {}).get("AdditionalVersionWeights"))
        for page in pages
        for alias in page["Aliases"]
    }


def _callers(aws: Services, arn: str, aliases: Iterable[str], window: Window) -> dict[str, Any]:
    """Read who invokes the function, by any of its names, as far as its configuration says."""
    names = [arn, *(f"{arn}:{alias}" for alias in aliases)]
    mappings = {m["UUID"]: m for name in names for m in _mappings(aws, name)}.values()
    caps = [
        mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 0)
        for mapping in mappings
        if ":sqs:" in mapping.get("EventSourceArn", "")
    ]
    sources = [_source(mapping) for mapping in mappings]
    others = sorted({service for name in names for service in _permitted(aws, name)})
    others += [f"URL of {url}" for url in _urls(aws, arn)]
    asked = {"events": _of(arn.rsplit(":", 1)[-1], "AsyncEventsReceived", "Sum")}
    if sum(metrics.read(aws, asked, window)["events"]) > 0:
        others.append("asynchronous calls")
    return {
        "mapping_caps": sum(caps),
        "only_queues": bool(caps) and all(caps) and len(caps) == len(mappings) and not others,
        "invokers": [*sources, *others],
    }


def _mappings(aws: Services, name: str) -> list[EventSourceMappingConfigurationTypeDef]:
    """Return the event source mappings that poll."""
    pages = (
        aws.client("lambda").get_paginator("list_event_source_mappings").paginate(FunctionName=name)
    )
    return [
        mapping
        for page in pages
        for mapping in page["EventSourceMappings"]
        if mapping["State"] not in _STILL
    ]


def _source(mapping: EventSourceMappingConfigurationTypeDef) -> str:
    source = mapping.get("EventSourceArn", "").rsplit(":", 1)[-1] or "an event source"
    cap = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
    return f"{source} (at most {cap} at once)" if cap else source


def _permitted(aws: Services, name: str) -> set[str]:
    """Return whom the resource policy lets invoke the function (Lambda ``GetPolicy``)."""
    try:
        policy = json.loads(aws.client("lambda").get_policy(FunctionName=name)["Policy"])
    except ClientError as error:
        if error.response["Error"]["Code"] == _NOT_FOUND:
            return set()
        raise
    found: set[str] = set()
    for statement in policy["Statement"]:
        principal = statement.get("Principal", {})
        named = principal.values() if isinstance(principal, dict) else [principal]
        for one in named:
            found |= {one} if isinstance(one, str) else set(one)
    return found


def _urls(aws: Services, arn: str) -> list[str]:
    pages = (
        aws.client("lambda").get_paginator("list_function_url_configs").paginate(FunctionName=arn)
    )
    return [
        config["FunctionArn"].split(":", 6)[-1]
        for page in pages
        for config in page["FunctionUrlConfigs"]
    ]


def _users(aws: Services, arn: str, window: Window) -> list[User]:
    """Return the functions besides that use the most of the account's concurrency."""
    prefix, _, name = arn.rpartition(":")
    most = metrics.greatest(aws, "MAX", "ConcurrentExecutions", window, _USERS + 1)
    found = [
        _user(aws, other, f"{prefix}:{other}", max(series))
        for other, series in most.items()
        if other != name and series
    ]
    return [user for user in found if user][:_USERS]


def _user(aws: Services, name: str, arn: str, concurrency: float) -> User | None:
    functions = aws.client("lambda")
    try:
        reserved = functions.get_function_concurrency(FunctionName=arn)
        tags = functions.list_tags(Resource=arn)["Tags"]
    except ClientError as error:
        if error.response["Error"]["Code"] == _NOT_FOUND:  # deleted, its metrics are still there
            return None
        raise
    return User(
        name=name,
        arn=arn,
        concurrency=concurrency,
        reserved=reserved.get("ReservedConcurrentExecutions"),
        opted_in=tags.get(OPT_IN_TAG) == OPT_IN_VALUE,
    )
