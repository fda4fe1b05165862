"""Whether Route 53 counts a health check as healthy: pure.

https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html
and https://docs.aws.amazon.com/Route53/latest/APIReference/API_HealthCheckConfig.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

# "If more than 18% of health checkers report that an endpoint is healthy, Route 53 considers it
# healthy."
_HEALTHY_SHARE = 0.18


def endpoint(checkers: Sequence[bool]) -> bool:
    """Aggregate what the checkers say; a new check without any result counts as healthy."""
    return not checkers or sum(checkers) / len(checkers) > _HEALTHY_SHARE


def alarm(state: str, insufficient: str, last_known: bool | None) -> bool:  # noqa: FBT001 -- a fact, not a switch
    """Judge by an alarm's state (OK, ALARM, INSUFFICIENT_DATA) and InsufficientDataHealthStatus."""
    if state != "INSUFFICIENT_DATA":
        return state == "OK"
    if insufficient in ("Healthy", "Unhealthy"):
        return insufficient == "Healthy"
    return last_known is not False


def calculated(children: Sequence[bool], threshold: int) -> bool:
    """Compare the healthy children with HealthThreshold: 0 is always, too many never healthy."""
    return sum(children) >= threshold


def reported(config: Mapping[str, Any], healthy: bool) -> bool:  # noqa: FBT001 -- a fact, not a switch
    """Apply Disabled ("always healthy") and Inverted."""
    return bool(config.get("Disabled")) or healthy != bool(config.get("Inverted"))


class Checker:
    """One checker's view of an endpoint: it changes after FailureThreshold results in a row."""

    def __init__(self) -> None:
        self.healthy = True
        self._against = 0

    def add(self, success: bool, threshold: int) -> bool:  # noqa: FBT001 -- a fact, not a switch
        """Count one result; return whether the checker holds the endpoint for healthy."""
        self._against = 0 if success == self.healthy else self._against + 1
        if self._against >= threshold:
            self.healthy, self._against = success, 0
        return self.healthy
