"""The clusters, control panels, routing controls and safety rules of all accounts.

Shapes are the API's (botocore: route53-recovery-control-config, route53-recovery-cluster). A
resource belongs to the account in its ARN.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from local.aws.route53 import safety_rules

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")
"""Where every cluster has an endpoint
(https://docs.aws.amazon.com/r53recovery/latest/dg/security_iam_region_switch_arc_routing.html)."""


@dataclass
class _Store:
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)


STORE = _Store()
LOCK = threading.RLock()


class BlockedError(Exception):
    """A safety rule forbids the change."""

    def __init__(self, rule: safety_rules.Rule, why: str) -> None:
        self.rule_arn = str(rule["SafetyRuleArn"])
        super().__init__(f"Safety rule {self.rule_arn} ({rule['Name']}) blocks the request: {why}.")


def is_on(arn: str) -> bool:
    """Tell whether a routing control is On; a new one is Off."""
    return STORE.states.get(arn) == "On"


def panel_of(control_arn: str) -> str:
    """Return the ARN of a control's panel."""
    return control_arn.partition("/routingcontrol/")[0]


def update(wanted: dict[str, str], overridden: list[str]) -> None:
    """Set the states of these controls at once, or raise BlockedError and set none."""
    with LOCK:
        panels = {panel_of(arn) for arn in wanted}
        rules = [rule for rule in STORE.rules.values() if rule["ControlPanelArn"] in panels]
        now = time.monotonic()
        ago = {arn: (now - at) * 1000 for arn, at in STORE.changed.items()}
        if found := safety_rules.blocking(rules, STORE.states, wanted, overridden, ago):
            raise BlockedError(*found)
        for arn, state in wanted.items():
            if STORE.states[arn] != state:
                STORE.states[arn], STORE.changed[arn] = state, now


def reset() -> None:
    """Forget all."""
    with LOCK:
        for kind in vars(STORE).values():
            kind.clear()
