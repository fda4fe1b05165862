"""Whether a cluster accepts a change of routing control states: pure.

An assertion rule holds when, after the change, as many of its controls are On as its configuration
asks for; a gating rule lets its target controls be changed only while its gating controls, as they
are, satisfy it
(https://docs.aws.amazon.com/r53recovery/latest/dg/routing-control.safety-rules.html). Within
WaitPeriodMs of a change every other one of the same controls fails, to prevent flapping
(https://docs.aws.amazon.com/recovery-cluster/latest/api/safetyrule.html). Rules named as overridden
are skipped
(https://docs.aws.amazon.com/r53recovery/latest/dg/routing-control.override-safety-rule.html).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

type States = Mapping[str, str]
"""On or Off, by the routing control's ARN."""
type Rule = Mapping[str, Any]
"""An AssertionRule or a GatingRule of the API."""


def blocking(
    rules: Sequence[Rule],
    states: States,
    wanted: States,
    overridden: Collection[str],
    changed_ms_ago: Mapping[str, float],
) -> tuple[Rule, str] | None:
    """Return the first rule that forbids the change, and why; None where all allow it.

    `changed_ms_ago`: how long ago each control last changed, where it ever did.
    """
    changing = {arn for arn, state in wanted.items() if states.get(arn) != state}
    after = {**states, **wanted}
    for rule in rules:
        if rule["SafetyRuleArn"] in overridden:
            continue
        gated = "GatingControls" in rule
        about = set(rule["TargetControls"] if gated else rule["AssertedControls"])
        if not changing & about:
            continue
        if any(
            changed_ms_ago.get(arn, rule["WaitPeriodMs"]) < rule["WaitPeriodMs"] for arn in about
        ):
            return rule, "its wait period has not passed yet"
        watched = rule["GatingControls"] if gated else rule["AssertedControls"]
        if not holds(rule["RuleConfig"], watched, states if gated else after):
            return rule, "its condition would not be met"
    return None


def holds(config: Mapping[str, Any], controls: Sequence[str], states: States) -> bool:
    """Evaluate a RuleConfig (Type ATLEAST, AND or OR, Threshold, Inverted) over controls."""
    on = sum(states.get(arn) == "On" for arn in controls)
    needed = {"ATLEAST": config["Threshold"], "AND": len(controls), "OR": 1}[config["Type"]]
    enough: bool = on >= needed
    return enough != bool(config["Inverted"])
