"""What the health checkers know, and the status that follows from it.

Endpoint checks have one checker a Region, which `data_plane` lets probe, or which a test sets. The
others are computed when somebody asks: an alarm's check from the alarm's metric data ("Route 53
monitors the data stream for the corresponding alarm instead of monitoring the alarm state", so
SetAlarmState moves none,
https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html),
a calculated one from its children, a routing control's from the control's state.
"""
# ruff: noqa: SLF001 -- works on MiniStack's stores

import time
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import get_account_id, request_scope
from ministack.services import cloudwatch, route53

from local.aws.cloudwatch import alarms
from local.aws.cloudwatch.evaluation import Verdict
from local.aws.route53 import health, routing_controls

ENDPOINT_TYPES = frozenset({"HTTP", "HTTPS", "HTTP_STR_MATCH", "HTTPS_STR_MATCH", "TCP"})
REGIONS = (
    "us-east-1", "us-west-1", "us-west-2", "eu-west-1", "ap-southeast-1", "ap-southeast-2",
    "ap-northeast-1", "sa-east-1",
)  # fmt: skip
"""Where the checkers are (HealthCheckRegion of the API)."""
_DEEPEST = 8  # calculated checks of calculated checks


@dataclass(frozen=True, slots=True)
class Observation:
    """What the checker of a Region last saw: Route 53's text, and when in epoch seconds."""

    healthy: bool
    status: str
    at: float


_observed: dict[str, dict[str, Observation]] = {}  # by health check and Region
_set: dict[tuple[str, str], bool] = {}  # by health check and Region: set by a test
_last_known: dict[str, bool] = {}  # of checks that follow an alarm


def regions(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the Regions that check an endpoint: all unless the check names some."""
    return tuple(config.get("Regions") or REGIONS)


def observe(check_id: str, region: str, seen: Observation) -> None:
    """Note what a Region's checker sees."""
    _observed.setdefault(check_id, {})[region] = seen


def set_health(check_id: str, healthy: bool | None, region: str = "") -> None:  # noqa: FBT001 -- its one value
    """Let the checkers, or that of one Region, report this; None lets them probe again."""
    for where in (region,) if region else REGIONS:
        if healthy is None:
            _set.pop((check_id, where), None)
        else:
            _set[check_id, where] = healthy


def observations(check_id: str, config: dict[str, Any]) -> dict[str, Observation]:
    """Return what the checkers of an endpoint report, by Region."""
    found = dict(_observed.get(check_id, {}))
    for region in regions(config):
        if (healthy := _set.get((check_id, region))) is not None:
            status = "Success: HTTP Status Code 200, OK" if healthy else _FAILED
            found[region] = Observation(healthy, status, time.time())
    return {region: found[region] for region in regions(config) if region in found}


_FAILED = "Failure: HTTP Status Code 503, Service Unavailable"


def is_healthy(check_id: str, depth: int = _DEEPEST) -> bool:
    """Return the status of a check of the current account; one that is gone counts as healthy."""
    check = route53._health_checks.get(check_id)
    if check is None or not depth:
        return True
    config = check["config"]
    match config.get("Type"):
        case "CLOUDWATCH_METRIC":
            raw = _by_alarm(check_id, config)
        case "CALCULATED":
            children = [is_healthy(child, depth - 1) for child in config["ChildHealthChecks"]]
            raw = health.calculated(children, int(config.get("HealthThreshold", 0)))
        case "RECOVERY_CONTROL":
            raw = routing_controls.is_on(config.get("RoutingControlArn", ""))
        case _:
            raw = health.endpoint(
                [seen.healthy for seen in observations(check_id, config).values()]
            )
    return health.reported(config, raw)


def _by_alarm(check_id: str, config: dict[str, Any]) -> bool:
    state = alarm_state(config["AlarmIdentifier"])
    insufficient = config.get("InsufficientDataHealthStatus", "LastKnownStatus")
    if state == "IGNORED":  # the alarm keeps its state, and so does the check
        state, insufficient = "INSUFFICIENT_DATA", "LastKnownStatus"
    healthy = health.alarm(state, insufficient, _last_known.get(check_id))
    if state != "INSUFFICIENT_DATA":
        _last_known[check_id] = healthy
    return healthy


def alarm_state(named: dict[str, str]) -> str:
    """Return what the data of an alarm (Name, Region) says; INSUFFICIENT_DATA for no alarm."""
    with request_scope(get_account_id(), named["Region"]):
        alarm = cloudwatch._alarms.get(named["Name"])
        if alarm is None:
            return "INSUFFICIENT_DATA"
        outcome = alarms.assess(alarm, int(time.time()))
    if outcome is None:
        return "IGNORED"
    return str(outcome.state) if isinstance(outcome, Verdict) else "INSUFFICIENT_DATA"


def forget(check_id: str) -> None:
    """Drop what is known about a deleted check."""
    _observed.pop(check_id, None)
    _last_known.pop(check_id, None)
    set_health(check_id, None)


def reset() -> None:
    """Forget all."""
    _observed.clear()
    _set.clear()
    _last_known.clear()
