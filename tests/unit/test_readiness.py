"""Readiness: what would hinder a failover tonight is found, said once, with what to do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import readiness, readiness_stack, service
from oncall.failover import (
    FAILOVER,
    HEALTH_CHECK,
    RECORDS,
    ROUTING_CONTROL,
    Facts,
    LeverSeen,
    Setting,
    Side,
    StoreSeen,
)
from oncall.readiness_seen import (
    Finding,
    FunctionSeen,
    HealthCheckSeen,
    Inventory,
    StackSeen,
)
from oncall.service import AlarmSignal, Capacity, HealthCheckLever, Service

SHOP = service.load("shop", service.SAMPLE)
NOW = 1_800_000_000.0
LEVER = "aaaaaaaa-1111-2222-3333-444444444444"
PRIMARY_CHECK = "bbbbbbbb-1111-2222-3333-444444444444"
STANDBY_CHECK = "cccccccc-1111-2222-3333-444444444444"
BOTH, STANDBY_CONTROL, PRIMARY_CONTROL = "both", "standby-control", "primary-control"
CONTROLS: Any = SHOP.routing_control
RECORD_SETS: Any = {"primary": "shop-us-east-1", "standby": "shop-eu-west-1"}
MAPPINGS: Mapping[str, str] = {
    role: arns[0].rsplit(":", 1)[-1] for role, arns in SHOP.consumers.items()
}
RESERVED, PROVISIONED = (one.resource for one in SHOP.capacity["standby"])
SETS: Any = {
    role: {
        "Name": "shop.example.com.",
        "Type": "A",
        "SetIdentifier": RECORD_SETS[role],
        "Weight": weight,
        "TTL": 60,
        "HealthCheckId": check,
    }
    for role, weight, check in (("primary", 100, BOTH), ("standby", 0, STANDBY_CONTROL))
}


def control(role: Any) -> HealthCheckSeen:
    return HealthCheckSeen(
        {"Type": "RECOVERY_CONTROL", "RoutingControlArn": CONTROLS.controls[role]}
    )


CHECKS = {
    LEVER: HealthCheckSeen(
        {
            "Type": "HTTPS",
            "FullyQualifiedDomainName": "shop-switch-eu-west-1.s3.eu-west-1.amazonaws.com",
            "ResourcePath": "/failed-over",
            "RequestInterval": 10,
            "FailureThreshold": 3,
            "Inverted": True,
        }
    ),
    PRIMARY_CHECK: HealthCheckSeen({"Type": "HTTPS"}, 1.0),
    STANDBY_CHECK: HealthCheckSeen({"Type": "HTTPS"}, 1.0),
    BOTH: HealthCheckSeen(
        {
            "Type": "CALCULATED",
            "ChildHealthChecks": [PRIMARY_CONTROL, LEVER],
            "HealthThreshold": 2,
        }
    ),
    PRIMARY_CONTROL: control("primary"),
    STANDBY_CONTROL: control("standby"),
}
SHOP_FUNCTION = FunctionSeen("shop", "sha", 512, 30, frozenset({"TABLE", "QUEUE"}))
LIVE = replace(SHOP_FUNCTION, name="shop:live")
PEOPLE = (*SHOP.approvers, "U0SECOND")
STACK = StackSeen(
    deployed=True,
    code_sha256="sha",
    settings={"PeriodSeconds": "60"},
    approvers=PEOPLE,
    denied=(),
    switches={"/runbooks/kill-switch/all": "run"},
    channels={"slack": ""},
)
INVENTORY = Inventory(
    record_sets=tuple(SETS.values()),
    health_checks=CHECKS,
    endpoints=dict.fromkeys(CONTROLS.endpoints, True),
    functions={"primary": (SHOP_FUNCTION, LIVE), "standby": (SHOP_FUNCTION, LIVE)},
    stack="runbooks",
    stacks={"primary": STACK, "standby": STACK},
    tags={arn: {"runbook-automation": "enabled"} for arn in readiness_stack.tagged(SHOP)},
)
WELL = Side(
    checkers={"sa-east-1": True, "us-west-2": True},
    probes={"eu-west-1": True},
    error_share=0.0,
    answered={"cloudwatch": True},
)
FACTS = Facts(
    now=NOW,
    direction=FAILOVER,
    runs_in="eu-west-1",
    primary=replace(WELL, consumers=(Setting(SHOP.consumers["primary"][0], value=True),)),
    standby=replace(
        WELL,
        consumers=(Setting(SHOP.consumers["standby"][0], value=False),),
        capacity=(Setting(RESERVED, 20, room=800), Setting(PROVISIONED, None, room=500)),
    ),
    levers=(
        LeverSeen(
            ROUTING_CONTROL,
            answered=True,
            open={"primary": True, "standby": False},
            endpoint="eu-west-1",
            safe=True,
        ),
        LeverSeen(HEALTH_CHECK, answered=True, open={"primary": True, "standby": True}),
        LeverSeen(RECORDS, answered=True, open={"primary": True, "standby": False}, sets=SETS),
    ),
    stores=(
        StoreSeen("shop-orders", "ACTIVE", 1.0, NOW - 60, source_available=True),
        StoreSeen("shop", "ACTIVE", 1.0, NOW - 60, writer="primary", source_available=True),
    ),
)
SIGNAL = AlarmSignal("shop-failed-over", "Failover", "shop", 1, 0)
BY_ALARM = replace(SHOP, health_check=HealthCheckLever(LEVER, 90, SIGNAL))
ALARM_CHECK = HealthCheckSeen(
    {
        "Type": "CLOUDWATCH_METRIC",
        "AlarmIdentifier": {"Region": "eu-west-1", "Name": "shop-failed-over"},
        "InsufficientDataHealthStatus": "LastKnownStatus",
    }
)
ALARM = {
    "AlarmName": "shop-failed-over",
    "Namespace": "Failover",
    "MetricName": "shop",
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    "Threshold": 1.0,
    "StateValue": "OK",
}
ALARM_INVENTORY = replace(
    INVENTORY,
    health_checks={**CHECKS, LEVER: ALARM_CHECK},
    alarm=ALARM,
)
ONLY_RECORDS = replace(SHOP, routing_control=None, health_check=None)
ONLY_CHECK = replace(SHOP, routing_control=None)


def lever(kind: str, **changed: Any) -> Facts:
    return replace(
        FACTS,
        levers=tuple(replace(one, **changed) if one.kind == kind else one for one in FACTS.levers),
    )


def standby(**changed: Any) -> Facts:
    return replace(FACTS, standby=replace(FACTS.standby, **changed))


def store(name: str, **changed: Any) -> Facts:
    return replace(
        FACTS,
        stores=tuple(replace(one, **changed) if one.name == name else one for one in FACTS.stores),
    )


def inventory(**changed: Any) -> Inventory:
    return replace(INVENTORY, **changed)


def check(name: str, like: Inventory = INVENTORY, **config: Any) -> Inventory:
    seen = like.health_checks[name]
    changed = replace(seen, config={**seen.config, **config})
    return replace(like, health_checks={**like.health_checks, name: changed})


def without(name: str, like: Inventory = INVENTORY) -> Inventory:
    left = {one: seen for one, seen in like.health_checks.items() if one != name}
    return replace(like, health_checks=left)


def sets(role: str = "", **changed: Any) -> Inventory:
    return inventory(
        record_sets=tuple(
            {**one, **changed} if role in {"", name} else one for name, one in SETS.items()
        )
    )


def functions(**changed: Any) -> Inventory:
    other = replace(SHOP_FUNCTION, **changed)
    return inventory(functions={"primary": (SHOP_FUNCTION,), "standby": (other,)})


def found(
    facts: Facts = FACTS, seen: Inventory = INVENTORY, of: Service = SHOP
) -> Mapping[str, Finding]:
    listed = readiness.findings(of, facts, seen)
    by_name = {one.name: one for one in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_of_a_service_that_is_ready_all_is_ok() -> None:
    listed = found()
    assert {name: one.sentence for name, one in listed.items() if one.verdict != "ok"} == {}
    assert list(listed) == [
        "file",
        "traffic",
        "levers",
        "ttl",
        "records",
        "attached:health_check:primary",
        "attached:routing_control:primary",
        "attached:routing_control:standby",
        "endpoints",
        "controls",
        "safety_rule",
        "signal",
        "health_check:lever",
        f"health_check:primary:{PRIMARY_CHECK}",
        f"health_check:standby:{STANDBY_CHECK}",
        "health_check:record:both",
        "health_check:record:primary-control",
        "health_check:record:standby-control",
        "standby",
        "capacity:function:shop",
        "capacity:function:shop:live",
        "data:shop-orders",
        "data:shop",
        f"consumers:primary:{MAPPINGS['primary']}",
        f"consumers:standby:{MAPPINGS['standby']}",
        "drift:shop",
        "drift:shop:live",
        "stack:primary",
        "stack:standby",
        *(f"{what}:primary" for what in ("iam", "switch", "secrets")),
        *(f"{what}:standby" for what in ("iam", "switch", "secrets")),
        "stack:alike",
        "approvers",
        "opted_in",
    ]
    by_alarm = found(seen=ALARM_INVENTORY, of=BY_ALARM)
    assert {one.verdict for one in by_alarm.values()} == {"ok"}
    assert "signal:alarm" in by_alarm


def test_when_nothing_was_seen_nothing_is_ok_but_the_file_and_no_word_is_bad() -> None:
    nothing = replace(
        FACTS,
        primary=Side(),
        standby=Side(),
        stores=(),
        levers=tuple(LeverSeen(one.kind, answered=False) for one in FACTS.levers),
    )
    listed = found(nothing, Inventory())
    verdicts = {name: one.verdict for name, one in listed.items()}
    assert verdicts.pop("file") == "ok"
    assert set(verdicts.values()) == {"unknown"}
    assert {name.partition(":")[0] for name in verdicts} >= {"ttl", "records", "data", "consumers"}


AWAY = {"primary": False, "standby": True}
LONE = {"primary": (FunctionSeen("a"), FunctionSeen("b")), "standby": ()}
ECS = "arn:aws:ecs:eu-west-1:123456789012:service/shop/web"
ON_ECS = replace(
    SHOP, capacity={"primary": (), "standby": (Capacity("ecs-desired-count", ECS, 8),)}
)
CASES: list[tuple[str, str, Facts, Inventory, Service, str]] = [
    # Where traffic is, and by what it moves
    ("traffic", "warn", lever(ROUTING_CONTROL, open=AWAY), INVENTORY, SHOP, "failed over to eu-w"),
    ("levers", "bad", lever(RECORDS, differs="x"), INVENTORY, ONLY_RECORDS, "No lever can be"),
    (
        "levers",
        "warn",
        lever(ROUTING_CONTROL, answered=False),
        INVENTORY,
        SHOP,
        "cannot be reached. I use the health check",
    ),
    (
        "levers",
        "warn",
        replace(FACTS, levers=FACTS.levers[2:]),
        INVENTORY,
        ONLY_RECORDS,
        "whose control plane is in us-east-1, the Region that would be lost",
    ),
    # TTL against the target
    ("ttl", "bad", FACTS, sets("standby", TTL=1000), SHOP, "up to 17 min after the switch"),
    ("ttl", "bad", FACTS, INVENTORY, replace(ONLY_CHECK, rto_seconds=80), "up to 90 s after"),
    ("ttl", "warn", FACTS, INVENTORY, replace(SHOP, rto_seconds=100), "less than half of 100 s"),
    ("ttl", "warn", FACTS, sets(TTL=90), SHOP, "TTL is 90 s, record.ttl_seconds of the file 60"),
    ("ttl", "unknown", FACTS, inventory(record_sets=None), SHOP, "list-resource-record-sets"),
    (
        "ttl",
        "bad",
        FACTS,
        inventory(record_sets=None),
        replace(SHOP, ttl_seconds=1000),
        "Lower the record's TTL",
    ),
    # Record sets
    ("records", "unknown", FACTS, inventory(record_sets=None), SHOP, "were not read"),
    ("records", "bad", FACTS, inventory(record_sets=()), SHOP, "has 0 record sets of type A"),
    (
        "records",
        "bad",
        lever(RECORDS, differs="there is no record set shop-eu-west-1"),
        INVENTORY,
        SHOP,
        "there is no record set shop-eu-west-1",
    ),
    (
        "records",
        "warn",
        lever(RECORDS, sets={**SETS, "standby": {**SETS["standby"], "Weight": 7}}),
        INVENTORY,
        SHOP,
        "The weight of shop-eu-west-1 is 7, at home it should be 0",
    ),
    (
        "records",
        "warn",
        FACTS,
        inventory(
            record_sets=[
                {**one, "AliasTarget": {"EvaluateTargetHealth": role == "primary"}}
                for role, one in SETS.items()
            ]
        ),
        SHOP,
        "One alias evaluates its target's health and another does not",
    ),
    # What the record sets follow
    (
        "attached:health_check:primary",
        "bad",
        FACTS,
        sets("primary", HealthCheckId=PRIMARY_CONTROL),
        SHOP,
        f"would move nothing. Attach the health check to it in your template ({LEVER})",
    ),
    (
        "attached:routing_control:standby",
        "bad",
        FACTS,
        sets("standby", HealthCheckId=PRIMARY_CONTROL),
        SHOP,
        f"RECOVERY_CONTROL on {CONTROLS.controls['standby']}",
    ),
    (
        "attached:routing_control:standby",
        "unknown",
        FACTS,
        without(STANDBY_CONTROL),
        SHOP,
        f"get-health-check --health-check-id {STANDBY_CONTROL}",
    ),
    (
        "attached:health_check:primary",
        "bad",
        FACTS,
        check(BOTH, HealthThreshold=1),
        SHOP,
        f"--health-check-id {BOTH} --no-disabled --no-inverted --health-threshold N`.",
    ),
    ("attached:health_check:primary", "bad", FACTS, check(BOTH, Disabled=True), SHOP, "to be on"),
    (
        "attached:routing_control:primary",
        "unknown",
        FACTS,
        inventory(record_sets=None),
        SHOP,
        "was not read",
    ),
    (
        "attached:routing_control:primary",
        "unknown",
        FACTS,
        without(PRIMARY_CONTROL),
        SHOP,
        f"get-health-check --health-check-id {BOTH}`",
    ),
    # Routing controls
    (
        "endpoints",
        "bad",
        FACTS,
        inventory(endpoints={**INVENTORY.endpoints, "us-west-2": False}),
        SHOP,
        "do not answer: us-west-2",
    ),
    (
        "endpoints",
        "unknown",
        FACTS,
        inventory(endpoints={**INVENTORY.endpoints, "us-west-2": None}),
        SHOP,
        "refuse you: us-west-2",
    ),
    (
        "controls",
        "bad",
        lever(ROUTING_CONTROL, open={"primary": False, "standby": False}),
        INVENTORY,
        SHOP,
        "Neither of the routing controls is on",
    ),
    (
        "controls",
        "warn",
        lever(ROUTING_CONTROL, open={"primary": True, "standby": True}),
        INVENTORY,
        SHOP,
        "Both of the routing controls are on",
    ),
    ("controls", "unknown", lever(ROUTING_CONTROL, answered=False), INVENTORY, SHOP, "not read"),
    ("safety_rule", "warn", lever(ROUTING_CONTROL, safe=False), INVENTORY, SHOP, "create-safety"),
    ("safety_rule", "unknown", lever(ROUTING_CONTROL, safe=None), INVENTORY, SHOP, "list-safety"),
    # The signal, its check and its alarm
    (
        "signal",
        "warn",
        lever(HEALTH_CHECK, open=AWAY),
        INVENTORY,
        SHOP,
        "`aws s3 rm s3://shop-switch-eu-west-1/failed-over --region eu-west-1`",
    ),
    ("signal", "unknown", lever(HEALTH_CHECK, answered=False), INVENTORY, SHOP, "head-object"),
    (
        "signal",
        "warn",
        lever(HEALTH_CHECK, open=AWAY),
        ALARM_INVENTORY,
        BY_ALARM,
        "put-metric-data --region eu-west-1 --namespace Failover --metric-name shop --value 0`",
    ),
    ("health_check:lever", "bad", FACTS, check(LEVER, Inverted=False), SHOP, "--inverted`"),
    ("health_check:lever", "bad", FACTS, check(LEVER, Disabled=True), SHOP, "--no-disabled`"),
    (
        "health_check:lever",
        "bad",
        FACTS,
        check(LEVER, ResourcePath="/other"),
        SHOP,
        "does not watch s3://shop-switch-eu-west-1/failed-over",
    ),
    ("health_check:lever", "warn", FACTS, check(LEVER, RequestInterval=30), SHOP, "after 90 s"),
    ("health_check:lever", "unknown", FACTS, without(LEVER), SHOP, "was not read"),
    (
        "health_check:lever",
        "bad",
        FACTS,
        check(LEVER, ALARM_INVENTORY, InsufficientDataHealthStatus="Healthy"),
        BY_ALARM,
        "--insufficient-data-health-status LastKnownStatus`",
    ),
    (
        "health_check:lever",
        "bad",
        FACTS,
        check(LEVER, ALARM_INVENTORY, AlarmIdentifier={"Name": "other"}),
        BY_ALARM,
        "does not watch the alarm shop-failed-over",
    ),
    ("signal:alarm", "bad", FACTS, replace(ALARM_INVENTORY, alarm={}), BY_ALARM, "There is no al"),
    ("signal:alarm", "unknown", FACTS, replace(ALARM_INVENTORY, alarm=None), BY_ALARM, "not read"),
    (
        "data:shop",
        "unknown",
        store("shop", writer=None),
        INVENTORY,
        SHOP,
        "written in was not read",
    ),
    (
        "signal:alarm",
        "bad",
        FACTS,
        replace(ALARM_INVENTORY, alarm={**ALARM, "StateValue": "ALARM"}),
        BY_ALARM,
        "is in ALARM although its metric is at home",
    ),
    (
        "signal:alarm",
        "ok",
        FACTS,
        replace(ALARM_INVENTORY, alarm={**ALARM, "StateValue": "INSUFFICIENT_DATA"}),
        BY_ALARM,
        "watches the signal's metric",
    ),
    (
        "signal:alarm",
        "bad",
        FACTS,
        replace(ALARM_INVENTORY, alarm={**ALARM, "Threshold": 0.0}),
        BY_ALARM,
        "does not tell 1 from 0",
    ),
    (
        "health_check:lever",
        "bad",
        FACTS,
        replace(ALARM_INVENTORY, alarm={**ALARM, "ComparisonOperator": "LessThanThreshold"}),
        BY_ALARM,
        "not inverted, so it says the contrary",
    ),
    # Of an anomaly detection there is no threshold: nothing tells which way it goes.
    (
        "health_check:lever",
        "ok",
        FACTS,
        replace(ALARM_INVENTORY, alarm={**ALARM, "Threshold": None}),
        BY_ALARM,
        "is there and on",
    ),
    # A check that is off is worse than one that is late.
    (
        "health_check:lever",
        "bad",
        FACTS,
        check(LEVER, Disabled=True, RequestInterval=30),
        SHOP,
        "is disabled",
    ),
    # Health checks of the Regions, and those that records follow
    (
        f"health_check:record:{STANDBY_CONTROL}",
        "bad",
        FACTS,
        check(STANDBY_CONTROL, Disabled=True),
        SHOP,
        "is disabled",
    ),
    (f"health_check:record:{BOTH}", "unknown", FACTS, without(BOTH), SHOP, "was not read"),
    (
        "health_check:standby",
        "warn",
        FACTS,
        INVENTORY,
        replace(SHOP, health_checks={"primary": (PRIMARY_CHECK,), "standby": ()}),
        "Give health_checks.standby",
    ),
    (
        f"health_check:standby:{STANDBY_CHECK}",
        "bad",
        FACTS,
        inventory(health_checks={**CHECKS, STANDBY_CHECK: HealthCheckSeen({})}),
        SHOP,
        "There is no health check",
    ),
    (
        f"health_check:standby:{STANDBY_CHECK}",
        "bad",
        FACTS,
        check(STANDBY_CHECK, Inverted=True),
        SHOP,
        "is inverted, so it says the contrary",
    ),
    (
        f"health_check:standby:{STANDBY_CHECK}",
        "bad",
        FACTS,
        inventory(health_checks={**CHECKS, STANDBY_CHECK: HealthCheckSeen({"Type": "TCP"}, 0.18)}),
        SHOP,
        "get-health-check-status",
    ),
    (
        f"health_check:primary:{PRIMARY_CHECK}",
        "warn",
        FACTS,
        inventory(health_checks={**CHECKS, PRIMARY_CHECK: HealthCheckSeen({"Type": "TCP"}, 0.1)}),
        SHOP,
        "Checkers find",
    ),
    (
        f"health_check:primary:{PRIMARY_CHECK}",
        "unknown",
        FACTS,
        inventory(health_checks={**CHECKS, PRIMARY_CHECK: HealthCheckSeen({"Type": "TCP"})}),
        SHOP,
        "No checker says",
    ),
    # The standby
    (
        "standby",
        "bad",
        standby(checkers={"sa-east-1": False}, probes={"eu-west-1": False}),
        INVENTORY,
        SHOP,
        "`curl -i https://eu-west-1.shop.example.com/health`",
    ),
    ("standby", "unknown", standby(checkers={"sa-east-1": False}), INVENTORY, SHOP, "not agree"),
    (
        "capacity:function:shop",
        "bad",
        standby(capacity=(Setting(RESERVED, 20, room=199),)),
        INVENTORY,
        SHOP,
        "quotas allow 199. See the account's pool with `aws lambda get-account-settings",
    ),
    ("capacity:function:shop", "unknown", standby(capacity=()), INVENTORY, SHOP, "cannot be read"),
    (
        "capacity:function:shop",
        "unknown",
        standby(capacity=(Setting(RESERVED, 20),)),
        INVENTORY,
        SHOP,
        "if quotas allow: they are unknown.",
    ),
    ("capacity:service/shop/web", "unknown", standby(capacity=()), INVENTORY, ON_ECS, "cannot be"),
    (
        "capacity:service/shop/web",
        "warn",
        standby(capacity=(Setting(ECS, 2),)),
        INVENTORY,
        ON_ECS,
        "--service-code fargate",
    ),
    # Data
    (
        "data:shop-orders",
        "bad",
        store("shop-orders", lag_seconds=5.1),
        INVENTORY,
        SHOP,
        "than the 5",
    ),
    (
        "data:shop",
        "bad",
        store("shop", status="CREATING"),
        INVENTORY,
        SHOP,
        "is CREATING and cannot",
    ),
    ("data:shop", "unknown", store("shop", status="unknown"), INVENTORY, SHOP, "was not read"),
    ("data:shop", "unknown", store("shop", lag_seconds=None), INVENTORY, SHOP, "lags was not read"),
    ("data:shop-orders", "warn", store("shop-orders", lag_seconds=None), INVENTORY, SHOP, "nobody"),
    (
        "data:shop-orders",
        "unknown",
        replace(store("shop-orders", lag_seconds=None), primary=Side()),
        INVENTORY,
        SHOP,
        "was not read in us-east-1",
    ),
    ("data:shop", "warn", store("shop", writer="standby"), INVENTORY, SHOP, "away from home"),
    (
        "data:shop",
        "bad",
        store("shop", lag_seconds=4.0),
        INVENTORY,
        replace(SHOP, rpo_seconds=3),
        "more than targets.rpo_seconds, 3 s",
    ),
    # Consumers
    (
        f"consumers:standby:{MAPPINGS['standby']}",
        "bad",
        standby(consumers=(Setting(SHOP.consumers["standby"][0], value=True),)),
        INVENTORY,
        SHOP,
        f"--uuid {MAPPINGS['standby']} --no-enabled`",
    ),
    (
        f"consumers:primary:{MAPPINGS['primary']}",
        "warn",
        replace(
            FACTS,
            primary=replace(
                FACTS.primary, consumers=(Setting(SHOP.consumers["primary"][0], value=False),)
            ),
        ),
        INVENTORY,
        SHOP,
        "--enabled`",
    ),
    (
        f"consumers:standby:{MAPPINGS['standby']}",
        "unknown",
        standby(consumers=()),
        INVENTORY,
        SHOP,
        "get-event-source-mapping",
    ),
    # Drift
    ("drift:shop", "warn", FACTS, functions(code_sha256="other"), SHOP, "Regions: code. Deploy"),
    ("drift:shop", "warn", FACTS, functions(memory_mb=128, timeout_seconds=3), SHOP, "memory, tim"),
    (
        "drift:shop",
        "bad",
        FACTS,
        functions(environment=frozenset({"TABLE"})),
        SHOP,
        "lacks environment variables that the primary's has: QUEUE",
    ),
    (
        "drift:shop",
        "warn",
        FACTS,
        functions(environment=SHOP_FUNCTION.environment | {"MORE"}),  # type: ignore[operator]  # it is a set
        SHOP,
        "Regions: environment.",
    ),
    ("drift:shop", "unknown", FACTS, functions(environment=None), SHOP, "environment of shop was"),
    ("drift:shop", "unknown", FACTS, functions(code_sha256=None), SHOP, "shop was not read"),
    ("drift:other", "ok", FACTS, functions(name="other"), SHOP, "alike"),
    (
        "drift:a",
        "warn",
        FACTS,
        inventory(functions=LONE),
        SHOP,
        "in us-east-1 and of none like it in eu-w",
    ),
    (
        "data:shop-orders",
        "bad",
        store("shop-orders", status="no replica"),
        INVENTORY,
        SHOP,
        "dynamodb",
    ),
    ("data:shop", "bad", store("shop", lag_seconds=9.0), INVENTORY, SHOP, "describe-global-clu"),
]


@pytest.mark.parametrize(
    ("name", "verdict", "facts", "seen", "of", "said"),
    CASES,
    ids=[f"{case[0].partition(':')[0]}-{case[1]}-{n}" for n, case in enumerate(CASES)],
)
def test_each_thing_that_is_not_as_it_should_be_is_found(  # noqa: PLR0917 -- pytest names them
    name: str, verdict: str, facts: Facts, seen: Inventory, of: Service, said: str
) -> None:
    finding = found(facts, seen, of)[name]
    assert said in finding.sentence
    assert finding.verdict == verdict
    assert finding.sentence.endswith(".")


def test_whoever_is_failed_over_has_its_consumers_in_the_standby() -> None:
    facts = replace(
        lever(ROUTING_CONTROL, open=AWAY),
        primary=replace(WELL, consumers=(Setting(SHOP.consumers["primary"][0], value=False),)),
        standby=replace(
            FACTS.standby, consumers=(Setting(SHOP.consumers["standby"][0], value=True),)
        ),
    )
    listed = found(facts)
    here, there = (listed[f"consumers:{role}:{MAPPINGS[role]}"] for role in ("primary", "standby"))
    assert (here.verdict, here.number, here.sentence) == ("ok", 0, "It waits in us-east-1.")
    assert (there.verdict, there.number, there.sentence) == ("ok", 1, "It works in eu-west-1.")


def test_a_broken_file_is_a_finding() -> None:
    finding = readiness.broken_file("runbooks/services/shop.yaml: owner: it is missing.")
    assert (finding.name, finding.verdict) == ("file", "bad")
    assert finding.sentence == "runbooks/services/shop.yaml: owner: it is missing."


# After a failback


def test_what_is_ready_after_a_failback_is_said_to_be_and_asks_for_nothing() -> None:
    said = readiness.after_failback(SHOP, found().values())
    assert said == readiness.AfterFailback("shop is armed again: it could be failed over tonight.")


@pytest.mark.parametrize(
    ("name", "verdict", "told"),
    [
        ("ttl", "warn", False),
        ("drift:shop", "warn", False),
        ("signal", "warn", True),
        ("consumers:primary:one", "warn", True),
        ("ttl", "bad", True),
        ("iam:standby", "unknown", True),
        ("signal", "ok", False),
    ],
)
def test_after_a_failback_what_fails_the_next_or_was_not_put_back_is_told(
    name: str,
    verdict: str,
    told: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    said = readiness.after_failback(SHOP, (Finding(name, verdict, None, "Mend it: `x`."),))
    assert bool(said.lines) is bool(said.need) is told
    if told:
        assert said.lines == (f"{name}, {verdict}: Mend it: `x`.",)
        assert ("could not" if verdict == "bad" else "may not") in said.summary
        assert "runbook doctor shop" in said.need


# What has changed

WORDS = st.sampled_from(["ok", "warn", "bad", "unknown"])
FINDINGS = st.lists(
    st.builds(Finding, st.sampled_from("abcd"), WORDS, st.none() | st.just(1.0), WORDS),
    unique_by=lambda one: one.name,
)


@given(FINDINGS, FINDINGS)
def test_only_what_has_changed_is_told(before: list[Finding], now: list[Finding]) -> None:
    told = readiness.changed(before, now)
    known = {one.name: one for one in before}
    for one in now:
        old = known.get(one.name)
        same = old is not None and (old.verdict, old.sentence) == (one.verdict, one.sentence)
        assert (one in told) is not same
    assert set(told) <= set(now)
    assert readiness.changed(now, now) == ()


@given(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(5.1, 1e6), st.floats(5.1, 1e6)))
def test_a_number_that_moves_by_itself_is_no_news(lags: tuple[float, ...]) -> None:
    before, after, late, later = (found(store("shop-orders", lag_seconds=lag)) for lag in lags)
    assert readiness.changed(before.values(), after.values()) == ()
    assert readiness.changed(late.values(), later.values()) == ()
    (news,) = readiness.changed(after.values(), late.values())
    assert (news.name, news.verdict, news.number) == ("data:shop-orders", "bad", lags[2])


@given(st.integers(1, 86_400), st.integers(1, 86_400))
def test_a_ttl_is_never_well_that_takes_all_the_time_there_is(ttl: int, rto: int) -> None:
    verdict = found(seen=sets(TTL=ttl), of=replace(SHOP, ttl_seconds=ttl, rto_seconds=rto))["ttl"]
    assert (verdict.verdict == "bad") is (ttl > rto)
    assert verdict.number == ttl


DEPTH = st.integers(0, 4)


@given(DEPTH, st.booleans())
def test_calculated_checks_are_followed_and_need_all_their_children(
    depth: int,
    needs_all: bool,  # noqa: FBT001 -- drawn
) -> None:
    checks = dict(CHECKS)
    inner = LEVER
    for level in range(depth):
        name = f"level-{level}"
        threshold = 2 if needs_all else 1
        checks[name] = HealthCheckSeen(
            {
                "Type": "CALCULATED",
                "ChildHealthChecks": [inner, PRIMARY_CHECK],
                "HealthThreshold": threshold,
            }
        )
        inner = name
    seen = replace(sets("primary", HealthCheckId=inner), health_checks=checks)
    finding = found(seen=seen)["attached:health_check:primary"]
    if needs_all or not depth:
        assert finding.verdict == "ok"
    else:
        assert finding.verdict == "bad"
        assert f"--health-check-id {inner} " in finding.sentence


def test_checks_that_contain_each_other_end() -> None:
    loop: Callable[[str], HealthCheckSeen] = lambda other: HealthCheckSeen(  # noqa: E731 -- two alike
        {"Type": "CALCULATED", "ChildHealthChecks": [other], "HealthThreshold": 1}
    )
    checks = {**CHECKS, "one": loop("two"), "two": loop("one")}
    seen = replace(sets("primary", HealthCheckId="one"), health_checks=checks)
    assert found(seen=seen)["attached:health_check:primary"].verdict == "bad"
