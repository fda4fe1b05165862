"""Failover and failback: each refusal told apart, data before traffic, never both Regions off."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from oncall import failover, failover_checks, failover_plan, service
from oncall.failover import (
    FAILBACK,
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
from oncall.plans import Plan
from oncall.service import Service
from tools.checks.commands import check_commands

SHOP = service.load("shop", service.SAMPLE)
HOME, AWAY = "us-east-1", "eu-west-1"
NOW = 1_800_000_000.0
RULES: dict[str, float] = {
    "signals": 2,
    "checkers_share": 0.18,
    "probes_share": 0.5,
    "probe_places": 2,
    "error_share": 0.2,
    "deploy_seconds": 3600,
}
LIMITS: dict[str, float] = {"drain_seconds": 300}

CHECKERS = ("us-west-2", "eu-west-1", "ap-southeast-1", "sa-east-1")
WELL = Side(
    checkers=dict.fromkeys(CHECKERS, True),
    probes={"eu-west-1": True, "us-west-2": True},
    error_share=0.001,
    deployed_at=NOW - 86_400,
    answered={"lambda": True, "rds": True},
    well_since=NOW - 7200,
)
SICK = replace(
    WELL,
    checkers=dict.fromkeys(CHECKERS, False),
    probes={"eu-west-1": False, "us-west-2": False},
    error_share=0.9,
    well_since=None,
)
SETS: dict[Any, dict[str, Any]] = {
    role: {
        "Name": "shop.example.com.",
        "Type": "A",
        "SetIdentifier": f"shop-{region}",
        "Weight": weight,
        "TTL": 60,
        "ResourceRecords": [{"Value": value}],
        "HealthCheckId": "aaaaaaaa-1111-2222-3333-444444444444",
    }
    for role, region, weight, value in (
        ("primary", HOME, 100, "192.0.2.1"),
        ("standby", AWAY, 0, "192.0.2.2"),
    )
}


def consumers(role: Any, *, enabled: bool) -> tuple[Setting, ...]:
    return tuple(Setting(arn, enabled) for arn in SHOP.consumers[role])


CAPACITY = (
    Setting(SHOP.capacity["standby"][0].resource, 20, room=800),
    Setting(SHOP.capacity["standby"][1].resource, None, room=500),
)
CONTROLS = LeverSeen(
    ROUTING_CONTROL,
    answered=True,
    open={"primary": True, "standby": False},
    endpoint="eu-west-1",
    safe=True,
)
CHECK = LeverSeen(HEALTH_CHECK, answered=True, open={"primary": True, "standby": True})
WEIGHTS = LeverSeen(RECORDS, answered=True, open={"primary": True, "standby": False}, sets=SETS)
STORES = (
    StoreSeen("shop-orders", "ACTIVE", 1.0, NOW - 60, NOW - 50, None, source_available=True),
    StoreSeen("shop", "ACTIVE", 1.0, NOW - 60, NOW - 50, "primary", source_available=True),
)
OUTAGE = Facts(
    now=NOW,
    direction=FAILOVER,
    runs_in=AWAY,
    primary=replace(SICK, consumers=consumers("primary", enabled=True)),
    standby=replace(WELL, consumers=consumers("standby", enabled=False), capacity=CAPACITY),
    levers=(CONTROLS, CHECK, WEIGHTS),
    stores=STORES,
    sick_since=NOW - 120,
)
"""The primary is sick for two minutes, its APIs answer, and all else is as it should be."""

AWAY_CONTROLS = replace(CONTROLS, open={"primary": False, "standby": True}, endpoint="us-west-2")
CALM = replace(
    OUTAGE,
    direction=FAILBACK,
    runs_in=HOME,
    primary=replace(WELL, consumers=consumers("primary", enabled=False)),
    standby=replace(WELL, consumers=consumers("standby", enabled=True)),
    levers=(AWAY_CONTROLS, CHECK, WEIGHTS),
    stores=(STORES[0], replace(STORES[1], writer="standby")),
    sick_since=None,
)
"""Failed over by routing control; two hours later the primary is well and in step."""


def the(like: Facts = OUTAGE, **changed: Any) -> Facts:
    return replace(like, **changed)


def side(like: Side, **changed: Any) -> Side:
    return replace(like, **changed)


def lever(like: Facts, kind: str, **changed: Any) -> Facts:
    return replace(
        like,
        levers=tuple(replace(one, **changed) if one.kind == kind else one for one in like.levers),
    )


def store(like: Facts, name: str, **changed: Any) -> Facts:
    return replace(
        like,
        stores=tuple(replace(one, **changed) if one.name == name else one for one in like.stores),
    )


def like_shop(**changed: Any) -> Service:
    return replace(SHOP, **changed)


def cause(facts: Facts, of: Service = SHOP) -> str:
    return failover.diagnose(of, facts, RULES).cause


def plan(facts: Facts, of: Service = SHOP) -> Plan:
    found = failover.diagnose(of, facts, RULES)
    return failover_plan.plan(of, found, facts, LIMITS, RULES)


def steps(facts: Facts, of: Service = SHOP) -> list[Mapping[str, Any]]:
    return list(plan(facts, of).order["steps"])


def verbs(facts: Facts, of: Service = SHOP) -> list[str]:
    return [step["verb"] for step in steps(facts, of)]


LOST_PRIMARY = store(
    store(
        the(primary=side(SICK, answered={"lambda": False, "rds": False}, error_share=None)),
        "shop",
        source_available=False,
    ),
    "shop-orders",
    source_available=False,
)
"""Nothing in the primary answers."""
ONLY_RECORDS = like_shop(routing_control=None, health_check=None)
ONLY_CHECK = like_shop(routing_control=None, records=None)


# Facts and signals


def test_facts_survive_a_state_machine() -> None:
    read = failover.facts_from(json.loads(json.dumps(asdict(OUTAGE))))
    assert json.dumps(asdict(read)) == json.dumps(asdict(OUTAGE))
    assert read.levers == OUTAGE.levers
    assert read.stores == OUTAGE.stores


def test_silence_is_never_taken_for_health() -> None:
    assert failover.signals(Side(), RULES) == {}
    assert failover.health(Side(), RULES) == "undecided"
    one_place = Side(probes={"eu-west-1": True})
    assert failover.health(one_place, RULES) == "undecided"
    assert failover.health(side(SICK, checkers={}, probes={}), RULES) == "undecided"


def test_checkers_are_judged_as_route_53_judges_them() -> None:
    seen = dict.fromkeys(map(str, range(100)), False)
    eighteen = side(Side(), checkers={**seen, **dict.fromkeys(map(str, range(18)), True)})
    nineteen = side(Side(), checkers={**seen, **dict.fromkeys(map(str, range(19)), True)})
    assert failover.signals(eighteen, RULES) == {"checkers": "sick"}
    assert failover.signals(nineteen, RULES) == {"checkers": "well"}


def test_a_region_that_nobody_reaches_may_find_itself_well() -> None:
    cut_off = side(SICK, error_share=0.0)
    assert failover.health(cut_off, RULES) == "sick"
    assert not failover.agree(cut_off, RULES)
    assert failover.agree(SICK, RULES)


# Diagnosis of a failover

DEPLOYED = side(SICK, deployed_at=NOW - 600)
REFUSALS: list[tuple[str, Facts, str]] = [
    ("wrong_region", the(runs_in=HOME), "I run in us-east-1, the Region that traffic leaves."),
    ("wrong_region", the(runs_in="ap-south-1"), "I run in ap-south-1, neither of its Regions."),
    (
        "already",
        lever(OUTAGE, ROUTING_CONTROL, open={"primary": False, "standby": True}),
        "shop is failed over already, in eu-west-1.",
    ),
    (
        "lever_differs",
        lever(OUTAGE, RECORDS, differs="there are three records"),
        "shop's lever (records) is not as its file says: there are three records.",
    ),
    (
        "lever_differs",
        lever(OUTAGE, RECORDS, open={"primary": False, "standby": False}),
        "off for both Regions",
    ),
    (
        "other_run",
        the(
            other_run="arn:aws:states:us-east-1:123456789012:execution:runbooks-route53-failback:x"
        ),
        "A failback of shop runs in us-east-1 and would undo this: arn:aws:states:us-east-1",
    ),
    ("no_lever", the(levers=()), "None of shop's levers answers"),
    ("both_sick", the(standby=SICK), "shop is sick in both Regions"),
    ("standby_sick", the(primary=WELL, standby=SICK), "standby in eu-west-1 is sick itself"),
    ("standby_sick", the(primary=Side(), standby=SICK), "standby in eu-west-1 is sick itself"),
    ("standby_undecided", the(standby=Side()), "Nothing from outside says that shop is well"),
    ("primary_well", the(primary=WELL), "shop is well in us-east-1, seen from outside"),
    (
        "undecided",
        the(primary=side(SICK, checkers=WELL.checkers)),
        "probes and errors says sick, checkers says well",
    ),
    ("undecided", the(primary=Side()), "that is not 2 signals that agree"),
    ("deploy", the(primary=DEPLOYED), "was deployed in us-east-1 10 min ago. Roll that back"),
]


@pytest.mark.parametrize(("word", "facts", "said"), REFUSALS)
def test_each_reason_not_to_fail_over_is_told_apart(word: str, facts: Facts, said: str) -> None:
    found = failover.diagnose(SHOP, facts, RULES)
    assert found.cause == word
    assert said in found.sentence
    made = plan(facts)
    assert not made.acts
    assert said in made.sentence
    assert made.action == ("watch" if word == "already" else "human")


def test_the_wrong_region_says_where_to_start() -> None:
    sentence = failover.diagnose(SHOP, the(runs_in=HOME), RULES).sentence
    assert "aws stepfunctions start-execution --region eu-west-1" in sentence
    assert '{"name": "shop.example.com"}' in sentence


def test_a_person_may_say_that_it_is_not_the_deployment() -> None:
    assert cause(the(primary=DEPLOYED, not_the_deploy=True)) == "primary_sick"
    assert cause(the(primary=side(DEPLOYED, deployed_at=NOW - 3600))) == "primary_sick"


def test_evidence_tells_what_is_unknown() -> None:
    lines = "\n".join(failover.evidence(SHOP, the(primary=Side(), stores=(), levers=())))
    assert "us-east-1 (primary): none checker Regions" in lines
    assert "shop (aurora): unknown, lag unknown" in lines
    lines = "\n".join(failover.evidence(SHOP, LOST_PRIMARY))
    assert "us-east-1: APIs that do not answer: lambda, rds; last deployment 24.0 h ago" in lines
    assert "shop (aurora): ACTIVE, lag 1.0 s when last measured, 60 s ago, written in us-east" in (
        lines
    )


def test_the_lever_that_makes_a_record_unhealthy_outweighs_weights() -> None:
    assert failover.points_to(OUTAGE) == "primary"
    assert failover.points_to(CALM) == "standby"
    signal_away = lever(
        lever(OUTAGE, ROUTING_CONTROL, answered=False), HEALTH_CHECK, open={"primary": False}
    )
    assert failover.points_to(signal_away) == "standby"
    assert failover.points_to(the(levers=())) is None


# Pre-checks, data and lever


def checked(facts: Facts, of: Service = SHOP) -> dict[str, str]:
    return {one.name: one.verdict for one in failover_checks.checks(of, facts, RULES)}


def test_all_checks_of_a_ready_standby_are_ok() -> None:
    found = failover_checks.checks(SHOP, OUTAGE, RULES)
    assert [check.name.partition(":")[0] for check in found] == [
        "standby",
        "capacity",
        "capacity",
        "data",
        "data",
        "levers",
        "safety_rule",
        "ttl",
    ]
    assert {check.verdict for check in found} == {"ok"}
    assert all(check.sentence.endswith((".", "wins.")) for check in found)


@pytest.mark.parametrize(
    ("seen", "verdict", "said"),
    [
        (Setting("", 20, room=199), "no", "200 are needed, and quotas allow 199"),
        (Setting("", 20), "ask", "if quotas allow: they are unknown"),
        (Setting("", None), "ok", "bound by no reservation"),
        (Setting("", 200), "ok", "is 200; 200 are needed"),
        (None, "ask", "cannot be read"),
    ],
)
def test_capacity_is_there_can_be_raised_or_forbids(
    seen: Setting | None, verdict: str, said: str
) -> None:
    arn = SHOP.capacity["standby"][0].resource
    rest = CAPACITY[1:]
    capacity = rest if seen is None else (replace(seen, resource=arn), *rest)
    facts = the(standby=side(OUTAGE.standby, capacity=capacity))
    found = {c.name: c for c in failover_checks.checks(SHOP, facts, RULES)}[f"capacity:{arn}"]
    assert found.verdict == verdict
    assert said in found.sentence
    assert plan(facts).acts == (verdict != "no")


@pytest.mark.parametrize(
    ("lag", "lag_at", "written", "loss"),
    [
        (1.0, NOW - 60, NOW - 50, 11.0),
        (1.0, NOW - 60, None, 61.0),
        (1.0, None, None, 1.0),
        (5.0, NOW - 60, NOW - 600, 0.0),
        (1.0, NOW - 60, NOW + 600, 61.0),
        (None, NOW, NOW, None),
    ],
)
def test_the_loss_is_what_was_written_since_what_has_arrived(
    lag: float | None, lag_at: float | None, written: float | None, loss: float | None
) -> None:
    facts = store(
        LOST_PRIMARY, "shop-orders", lag_seconds=lag, lag_at=lag_at, last_write_at=written
    )
    assert failover_checks.data_loss_seconds(facts, SHOP.stores[0]) == loss


def test_aurora_is_switched_over_if_it_can_be_and_else_failed_over_by_two_people() -> None:
    assert failover_checks.promotion(SHOP, OUTAGE) == "switchover"
    assert failover_checks.promotion(SHOP, LOST_PRIMARY) == "failover"
    assert failover_checks.promotion(SHOP, store(OUTAGE, "shop", lag_seconds=6)) == "failover"
    assert failover_checks.promotion(SHOP, store(OUTAGE, "shop", writer="standby")) == ""
    assert plan(LOST_PRIMARY).action == "failover_with_loss"
    promote = next(step for step in steps(LOST_PRIMARY) if step["verb"] == "promote")
    assert promote["detail"] == {
        "operation": "FailoverGlobalCluster",
        "parameters": {
            "GlobalClusterIdentifier": "shop",
            "TargetDbClusterIdentifier": "arn:aws:rds:eu-west-1:123456789012:cluster:shop",
            "AllowDataLoss": True,
        },
    }
    assert promote["region"] == AWAY
    assert not promote["undo"]
    assert "lost" in promote["no_undo_because"]


def test_one_database_that_is_lost_makes_the_region_lost_to_all() -> None:
    second = replace(SHOP.stores[1], name="billing")
    two = like_shop(stores=(*SHOP.stores, second))
    facts = the(
        stores=(*STORES, replace(STORES[1], name="billing", source_available=False)),
    )
    said = {s["detail"]["operation"] for s in steps(facts, two) if s["verb"] == "promote"}
    assert said == {"FailoverGlobalCluster"}


def test_levers_are_tried_in_order_and_the_reason_is_said() -> None:
    assert failover_checks.choose(SHOP, OUTAGE).kind == ROUTING_CONTROL
    assert failover_checks.choose(SHOP, OUTAGE).sentence == (
        "I use the routing controls; that depends on ARC's data plane, by the cluster endpoint "
        "in eu-west-1."
    )
    silent = lever(OUTAGE, ROUTING_CONTROL, answered=False)
    chosen = failover_checks.choose(SHOP, silent)
    assert chosen.kind == HEALTH_CHECK
    assert chosen.depends_on == "S3 in eu-west-1 and Route 53's health checking, a data plane"
    assert "The routing controls cannot be reached." in chosen.sentence
    assert checked(silent)["levers"] == "ask"
    last = lever(silent, HEALTH_CHECK, holds=False)
    assert failover_checks.choose(SHOP, last).kind == RECORDS
    assert "us-east-1" in failover_checks.choose(SHOP, last).depends_on
    none = lever(last, RECORDS, answered=False)
    assert failover_checks.choose(SHOP, none).kind == ""
    assert not plan(none).acts


def test_a_lower_lever_is_not_pulled_against_a_routing_control_that_is_off() -> None:
    odd = lever(OUTAGE, ROUTING_CONTROL, differs="its name is another")
    assert failover_checks.choose(SHOP, odd).kind == ""
    assert "would leave both Regions off" in failover_checks.choose(SHOP, odd).sentence


SILENT_CONTROLS = lever(OUTAGE, ROUTING_CONTROL, answered=False)
AT_HOME = lever(CALM, ROUTING_CONTROL, open={"primary": True, "standby": True})
RED: list[tuple[str, str, Facts, Service, str]] = [
    ("standby", "no", the(standby=Side()), SHOP, "shop is undecided in eu-west-1"),
    (
        "capacity",
        "no",
        the(standby=side(OUTAGE.standby, capacity=(replace(CAPACITY[0], room=1), CAPACITY[1]))),
        SHOP,
        "200 are needed, and quotas allow 1",
    ),
    (
        "data",
        "no",
        store(OUTAGE, "shop-orders", status="CREATING"),
        SHOP,
        "copy is CREATING and cannot be used",
    ),
    ("data", "no", store(OUTAGE, "shop", status="stopped"), SHOP, "copy is stopped and cannot"),
    (
        "data",
        "ask",
        store(OUTAGE, "shop", source_available=False),
        SHOP,
        "shop has to be failed over with data loss",
    ),
    (
        "data",
        "ask",
        store(OUTAGE, "shop-orders", lag_seconds=600),
        SHOP,
        "of writes are not there yet (30 s are allowed)",
    ),
    ("data", "no", store(CALM, "shop", lag_seconds=60), SHOP, "shop lags 60 s, 5 s are allowed"),
    (
        "data",
        "no",
        store(CALM, "shop", source_available=False),
        SHOP,
        "shop cannot be switched over as it is",
    ),
    (
        "levers",
        "no",
        lever(OUTAGE, HEALTH_CHECK, holds=False),
        ONLY_CHECK,
        "not set to LastKnownStatus: it would forget the switch",
    ),
    (
        "levers",
        "no",
        lever(OUTAGE, RECORDS, sets={"primary": SETS["primary"]}),
        ONLY_RECORDS,
        "The records could not be read in full",
    ),
    (
        "levers",
        "ask",
        SILENT_CONTROLS,
        SHOP,
        "cannot be seen; if they do not, both would be off",
    ),
    (
        "levers",
        "no",
        lever(CALM, HEALTH_CHECK, answered=False),
        SHOP,
        "The health check cannot be reached. All have to be home",
    ),
    ("levers", "no", AT_HOME, SHOP, "No lever of the file keeps traffic away"),
]


@pytest.mark.parametrize(("name", "verdict", "facts", "of", "said"), RED)
def test_each_pre_check_that_is_red_refuses_or_asks(
    name: str, verdict: str, facts: Facts, of: Service, said: str
) -> None:
    seen = the(facts, levers=tuple(one for one in facts.levers if getattr(of, one.kind)))
    red = [one for one in failover_checks.checks(of, seen, RULES) if one.verdict == verdict]
    found = [one for one in red if one.name.partition(":")[0] == name]
    assert said in " ".join(one.sentence for one in found)
    made = plan(seen, of)
    if verdict == "no":
        assert not made.acts
        assert made.action in {"human", "watch"}
    else:
        assert said in made.sentence
        assert made.order["needs_yes"]
        assert made.action == ("failover_with_loss" if name == "data" else "failover")


def test_there_is_no_pre_check_but_those_that_were_seen_red_and_those_that_only_tell() -> None:
    names = {
        one.name.partition(":")[0]
        for facts in (OUTAGE, CALM)
        for one in failover_checks.checks(SHOP, facts, RULES)
    }
    assert names == {name for name, *_ in RED} | {"safety_rule", "ttl"}
    for safe in (None, False):
        seen = lever(OUTAGE, ROUTING_CONTROL, safe=safe)
        assert checked(seen)["safety_rule"] == "ok"
        assert "I set both in one call" in plan_of_checks(seen)["safety_rule"]
    slow = like_shop(ttl_seconds=3600)
    assert "Clients move that late" in plan_of_checks(OUTAGE, slow)["ttl"]


def plan_of_checks(facts: Facts, of: Service = SHOP) -> dict[str, str]:
    return {one["name"]: one["sentence"] for one in plan(facts, of).order["checks"]}


# The plan of a failover


def test_a_failover_goes_from_data_to_traffic() -> None:
    assert verbs(OUTAGE) == [
        "fence",
        "drain",
        "raise",
        "raise",
        "promote",
        "enable",
        "shift",
        "verify",
    ]
    made = plan(OUTAGE)
    assert made.action == "failover"
    assert made.goal == "failover"
    assert made.order["from"] == HOME
    assert made.order["to"] == AWAY
    assert made.order["loss_seconds"] == 11
    assert made.order["needs_yes"]
    assert made.predicted_seconds is not None
    assert made.sentence.startswith("Fail over shop.example.com from us-east-1 to eu-west-1: stop")


def test_the_plan_fits_the_record_and_its_hash_covers_the_order() -> None:
    found = failover.diagnose(SHOP, OUTAGE, RULES)
    document = plan(OUTAGE).document(found, failover_plan.seen(SHOP, OUTAGE))
    assert json.loads(json.dumps(document)) == document
    other = plan(LOST_PRIMARY).document(found, failover_plan.seen(SHOP, LOST_PRIMARY))
    assert document["hash"] != other["hash"]
    assert len(json.dumps(document)) < 30_000  # beside all else in 256 KiB


def test_both_routing_controls_change_in_one_call() -> None:
    shift = next(step for step in steps(OUTAGE) if step["verb"] == "shift")
    assert [e["RoutingControlState"] for e in shift["detail"]["entries"]] == ["On", "Off"]
    assert [e["RoutingControlState"] for e in shift["detail"]["entries_before"]] == ["Off", "On"]
    words = shlex.split(shift["by_hand"])
    assert words[2] == "update-routing-control-states"
    assert json.loads(words[4]) == shift["detail"]["entries"]
    assert words[-1] == "https://33333333.route53-recovery-cluster.eu-west-1.amazonaws.com/v1"


def test_the_signal_of_the_health_check_is_changed_and_back() -> None:
    shift = next(
        step for step in steps(the(levers=(CHECK,)), ONLY_CHECK) if step["verb"] == "shift"
    )
    assert shift["detail"]["call"]["operation"] == "PutObject"
    assert shift["detail"]["undo_call"]["operation"] == "DeleteObject"
    assert shift["by_hand"] == (
        "aws s3api put-object --bucket shop-switch-eu-west-1 --key failed-over --region eu-west-1"
    )
    assert shift["region"] == AWAY


def test_an_alarm_is_moved_by_its_metric() -> None:
    check = SHOP.health_check
    assert check is not None
    alarm = service.AlarmSignal("shop-failed-over", "Failover", "shop", 1, 0)
    of = replace(ONLY_CHECK, health_check=replace(check, signal=alarm))
    shift = next(step for step in steps(the(levers=(CHECK,)), of) if step["verb"] == "shift")
    assert shift["detail"]["call"]["parameters"]["MetricData"] == [
        {"MetricName": "shop", "Value": 1}
    ]
    assert "--value 0 " in shift["undo"]


def test_records_change_in_one_batch_that_compares_with_what_the_plan_saw() -> None:
    facts = the(levers=(WEIGHTS,))
    shift = next(step for step in steps(facts, ONLY_RECORDS) if step["verb"] == "shift")
    changes = shift["detail"]["change_batch"]["Changes"]
    assert [one["Action"] for one in changes] == ["DELETE", "DELETE", "CREATE", "CREATE"]
    assert [one["ResourceRecordSet"] for one in changes[:2]] == [SETS["primary"], SETS["standby"]]
    assert [one["ResourceRecordSet"]["Weight"] for one in changes[2:]] == [0, 100]
    back = json.loads(shlex.split(shift["undo"])[-1])["Changes"]
    assert [one["ResourceRecordSet"] for one in back[2:]] == [SETS["primary"], SETS["standby"]]


def test_failover_records_swap_their_roles() -> None:
    records = service.Records(
        "failover", {"primary": "a", "standby": "b"}, {"primary": 100, "standby": 0}
    )
    sets: dict[Any, Any] = {
        "primary": {"SetIdentifier": "a", "Failover": "PRIMARY"},
        "standby": {"SetIdentifier": "b", "Failover": "SECONDARY"},
    }
    of = replace(ONLY_RECORDS, records=records)
    facts = the(levers=(replace(WEIGHTS, sets=sets),))
    shift = next(step for step in steps(facts, of) if step["verb"] == "shift")
    made = [one["ResourceRecordSet"] for one in shift["detail"]["change_batch"]["Changes"][2:]]
    assert [one["Failover"] for one in made] == ["SECONDARY", "PRIMARY"]


def test_a_failover_takes_weighted_steps_where_the_file_says_so() -> None:
    of = replace(ONLY_RECORDS, shift=replace(SHOP.shift, on_failover=True))
    facts = the(levers=(WEIGHTS,))
    shares = [s["detail"]["share"]["standby"] for s in steps(facts, of) if s["verb"] == "shift"]
    assert shares == [10, 50, 100]
    waits = [s["detail"]["wait_seconds"] for s in steps(facts, of) if s["verb"] == "shift"]
    assert waits == [120, 120, 0]


def test_whether_the_other_region_runs_the_other_way_may_be_unknown_only_in_an_outage() -> None:
    assert (
        "Whether a failback runs in us-east-1 cannot be seen." in plan(the(other_run=None)).sentence
    )
    assert plan(the(other_run=None)).acts
    calm = plan(the(CALM, other_run=None))
    assert calm.action == "human"
    assert "Whether a failover runs in eu-west-1 cannot be seen." in calm.sentence


def test_what_cannot_be_reached_is_left_and_said() -> None:
    made = plan(LOST_PRIMARY)
    assert "fence" not in verbs(LOST_PRIMARY)
    assert "drain" not in verbs(LOST_PRIMARY)
    assert "1 of 1 consumers in us-east-1 cannot be read" in made.sentence


def test_a_plan_made_anew_goes_on_where_the_last_one_ended() -> None:
    halfway = store(
        the(
            primary=side(SICK, consumers=consumers("primary", enabled=False)),
            standby=side(
                WELL,
                consumers=consumers("standby", enabled=True),
                capacity=(
                    replace(CAPACITY[0], value=200),
                    replace(CAPACITY[1], value=50),
                ),
            ),
        ),
        "shop",
        writer="standby",
    )
    assert verbs(halfway) == ["drain", "shift", "verify"]


def test_a_target_that_will_be_missed_is_said_beforehand() -> None:
    assert "past the target of 15 min" in plan(the(sick_since=NOW - 900)).sentence
    assert "past the target" not in plan(replace(OUTAGE, sick_since=None)).sentence


# Who has to say yes

UNATTENDED = like_shop(unattended=True)


def test_unattended_takes_the_declaration_agreement_and_safe_data() -> None:
    assert plan(OUTAGE).action == "failover"
    assert plan(OUTAGE, UNATTENDED).action == "failover_unattended"
    assert not plan(OUTAGE, UNATTENDED).order["needs_yes"]
    disagreeing = the(primary=side(OUTAGE.primary, error_share=0.0))
    assert plan(disagreeing, UNATTENDED).action == "failover"
    assert plan(LOST_PRIMARY, UNATTENDED).action == "failover_with_loss"
    unknown = store(OUTAGE, "shop-orders", lag_seconds=None)
    assert plan(unknown, UNATTENDED).action == "failover_with_loss"
    silent = lever(OUTAGE, ROUTING_CONTROL, answered=False)
    assert plan(silent, UNATTENDED).action == "failover"


def test_a_game_day_is_for_test_records_and_loses_no_data() -> None:
    game = like_shop(game_day=True, unattended=True)
    well = the(primary=side(WELL, consumers=consumers("primary", enabled=True)))
    assert cause(well, game) == "game_day"
    assert plan(well, game).action == "failover"
    lossy = store(well, "shop", source_available=False)
    assert plan(lossy, game).action == "human"
    assert cause(the(primary=WELL, standby=SICK), game) == "standby_sick"


# Failback

NOT_BACK: list[tuple[str, Facts, str]] = [
    ("wrong_region", the(CALM, runs_in=AWAY), "I run in eu-west-1, the Region that traffic leaves"),
    (
        "already",
        lever(CALM, ROUTING_CONTROL, open={"primary": True, "standby": True}),
        "shop is back already, in us-east-1.",
    ),
    ("other_run", the(CALM, other_run="arn:x"), "A failover of shop runs in eu-west-1"),
    ("primary_sick", the(CALM, primary=SICK), "shop is still sick in us-east-1"),
    ("undecided", the(CALM, primary=Side()), "Nothing from outside says"),
    ("serving_sick", the(CALM, standby=SICK), "A failback is for calm days"),
    ("deploy", the(CALM, primary=side(WELL, deployed_at=NOW - 60)), "let that settle first"),
    ("data_behind", store(CALM, "shop-orders", lag_seconds=60), "shop-orders lags 60 s, 5 s are"),
    ("data_behind", store(CALM, "shop", lag_seconds=None), "How far shop's copy lags is unknown"),
    ("data_behind", store(CALM, "shop", status="CREATING"), "shop's copy is CREATING"),
    (
        "soaking",
        the(CALM, primary=side(WELL, well_since=NOW - 60)),
        "for 60 s, and it soaks for 60",
    ),
    (
        "soaking",
        the(CALM, primary=side(WELL, well_since=None)),
        "Since when shop is well in us-east-1",
    ),
]


@pytest.mark.parametrize(("word", "facts", "said"), NOT_BACK)
def test_each_reason_not_to_fail_back_is_told_apart(word: str, facts: Facts, said: str) -> None:
    found = failover.diagnose(SHOP, facts, RULES)
    assert found.cause == word
    assert said in found.sentence
    assert not plan(facts).acts


def test_a_failback_holds_weights_opens_the_primary_and_ramps() -> None:
    made = plan(CALM)
    assert made.action == "failback"
    assert made.order["needs_yes"]
    assert made.order["approvers"] == list(SHOP.approvers)
    assert verbs(CALM) == [
        "fence",
        "drain",
        "promote",
        "enable",
        *["shift"] * 5,
        "verify",
    ]
    moves = [step["detail"] for step in steps(CALM) if step["verb"] == "shift"]
    assert [(move["lever"], move["percent"]) for move in moves] == [
        (RECORDS, 0),
        (ROUTING_CONTROL, 0),
        (RECORDS, 10),
        (RECORDS, 50),
        (RECORDS, 100),
    ]
    assert [e["RoutingControlState"] for e in moves[1]["entries"]] == ["On", "On"]
    last = [one["ResourceRecordSet"] for one in moves[-1]["change_batch"]["Changes"][2:]]
    assert last == [SETS["primary"], SETS["standby"]]


def test_a_failback_without_weights_moves_all_at_once() -> None:
    of = like_shop(records=None, health_check=None, shift=service.Shift())
    moves = [step["detail"] for step in steps(CALM, of) if step["verb"] == "shift"]
    assert [move["percent"] for move in moves] == [100]
    assert [e["RoutingControlState"] for e in moves[0]["entries"]] == ["On", "Off"]


def test_a_failback_of_records_ramps_from_where_they_are() -> None:
    gone: dict[Any, Any] = {
        "primary": {**SETS["primary"], "Weight": 0},
        "standby": {**SETS["standby"], "Weight": 9},
    }
    seen = replace(WEIGHTS, open={"primary": False, "standby": True}, sets=gone)
    moves = [
        step["detail"]["share"]["primary"]
        for step in steps(the(CALM, levers=(seen,)), ONLY_RECORDS)
        if step["verb"] == "shift"
    ]
    assert moves == [10, 50, 100]


def test_a_failback_goes_on_from_the_middle_of_its_ramp() -> None:
    for weight, shares in ((5, [10, 50, 100]), (50, [100]), (60, [100])):
        sets: Any = {
            "primary": {**SETS["primary"], "Weight": weight},
            "standby": {**SETS["standby"], "Weight": 100 - weight},
        }
        both: Any = {"primary": True, "standby": True}
        seen = the(CALM, levers=(replace(WEIGHTS, open=both, sets=sets),))
        assert cause(seen, ONLY_RECORDS) == "ready"
        moves = [one["detail"] for one in steps(seen, ONLY_RECORDS) if one["verb"] == "shift"]
        assert [move["percent"] for move in moves] == shares
        # A failover has not begun: weights that somebody shares out are no outage's.
        assert failover.points_to(the(seen, direction=FAILOVER)) == "primary"


def test_home_is_where_the_files_weights_are() -> None:
    records: Any = SHOP.records
    of = replace(ONLY_RECORDS, records=replace(records, weights={"primary": 100, "standby": 50}))
    both = {"primary": True, "standby": True}

    def seen(primary: int, standby: int) -> Facts:
        sets: Any = {
            "primary": {**SETS["primary"], "Weight": primary},
            "standby": {**SETS["standby"], "Weight": standby},
        }
        open_: Any = {**both, "primary": primary > 0}
        return the(CALM, levers=(replace(WEIGHTS, open=open_, sets=sets),))

    assert cause(seen(100, 50), of) == cause(seen(200, 100), of) == "already"
    assert cause(seen(99, 50), of) == "ready"
    last = steps(seen(0, 100), of)[-2]
    assert last["detail"]["percent"] == 67
    assert "send 67% of traffic to us-east-1, which is its share at home" in last["sentence"]
    assert [
        one["ResourceRecordSet"]["Weight"] for one in last["detail"]["change_batch"]["Changes"]
    ] == [50, 50, 100, 50]


def test_a_failback_waits_for_every_lever_and_consumer() -> None:
    assert "All have to be home" in plan(lever(CALM, RECORDS, answered=False)).sentence
    assert plan(lever(CALM, RECORDS, answered=False)).action == "human"
    unread = the(CALM, standby=side(WELL, consumers=()))
    assert plan(unread).action == "human"
    stuck = store(CALM, "shop", source_available=False)
    assert plan(stuck).action == "human"


# Invariants

SIDES = st.builds(
    Side,
    checkers=st.dictionaries(st.sampled_from(CHECKERS), st.booleans()),
    probes=st.dictionaries(st.sampled_from(CHECKERS), st.booleans()),
    error_share=st.none() | st.floats(0, 1),
    deployed_at=st.none() | st.floats(NOW - 7200, NOW),
    answered=st.dictionaries(st.sampled_from(["lambda", "rds"]), st.booleans()),
    consumers=st.sampled_from(
        [
            (),
            consumers("primary", enabled=True) + consumers("standby", enabled=False),
            consumers("primary", enabled=False) + consumers("standby", enabled=True),
        ]
    ),
    capacity=st.sampled_from([(), CAPACITY, (replace(CAPACITY[0], room=10), CAPACITY[1])]),
    well_since=st.none() | st.floats(NOW - 9000, NOW),
)
OPEN = st.fixed_dictionaries({"primary": st.booleans(), "standby": st.booleans()})
SEEN = st.tuples(
    *(
        st.builds(
            replace,
            st.just(one),
            answered=st.booleans(),
            open=st.fixed_dictionaries(
                {"primary": st.booleans(), "standby": st.sampled_from([True])}
            )
            if one.kind == HEALTH_CHECK
            else OPEN,
            holds=st.booleans(),
            differs=st.sampled_from(["", "", "", "it is another"]),
        )
        for one in (CONTROLS, CHECK, WEIGHTS)
    )
)
SEEN_STORES = st.tuples(
    *(
        st.builds(
            replace,
            st.just(one),
            status=st.sampled_from(["ACTIVE", "ACTIVE", "unknown", "CREATING"]),
            lag_seconds=st.none() | st.floats(0, 20),
            lag_at=st.none() | st.floats(NOW - 600, NOW),
            last_write_at=st.none() | st.floats(NOW - 600, NOW),
            source_available=st.booleans(),
        )
        for one in STORES
    )
)
RECORDS_AWAY = replace(
    WEIGHTS,
    open={"primary": False, "standby": True},
    sets={
        "primary": {**SETS["primary"], "Weight": 0},
        "standby": {**SETS["standby"], "Weight": 100},
    },
)
BASES = (
    OUTAGE,
    LOST_PRIMARY,
    lever(OUTAGE, ROUTING_CONTROL, open={"primary": True, "standby": True}),
    lever(OUTAGE, ROUTING_CONTROL, answered=False),
    CALM,
    the(CALM, levers=(AWAY_CONTROLS, replace(CHECK, open={"primary": False}), RECORDS_AWAY)),
    the(CALM, levers=(CONTROLS, CHECK, RECORDS_AWAY)),
    lever(
        lever(CALM, ROUTING_CONTROL, open={"primary": True, "standby": True}),
        HEALTH_CHECK,
        open={"primary": False, "standby": True},
    ),
)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "primary": SIDES,
    "standby": SIDES,
    "levers": SEEN,
    "stores": SEEN_STORES,
    "runs_in": st.sampled_from([HOME, AWAY, "ap-south-1"]),
    "sick_since": st.none() | st.floats(NOW - 3600, NOW),
    "not_the_deploy": st.booleans(),
}


@st.composite
def facts_near_a_plan(draw: st.DrawFn) -> Facts:
    """What a plan is made for, with some of its parts anything: of random facts none makes one."""
    base = draw(st.sampled_from(BASES))
    odd = draw(st.lists(st.sampled_from(sorted(PARTS)), max_size=3, unique=True))
    return replace(base, **{part: draw(PARTS[part]) for part in odd})


FACTS = facts_near_a_plan()
SERVICES = st.sampled_from(
    [
        SHOP,
        UNATTENDED,
        like_shop(game_day=True),
        ONLY_RECORDS,
        replace(ONLY_RECORDS, shift=replace(SHOP.shift, on_failover=True)),
        ONLY_CHECK,
        like_shop(records=None, health_check=None),
        like_shop(stores=(), consumers={"primary": (), "standby": ()}),
    ]
)


@settings(max_examples=400)
@given(SERVICES, FACTS)
def test_no_plan_breaks_what_a_failover_must_keep(of: Service, facts: Facts) -> None:
    facts = the(facts, levers=tuple(one for one in facts.levers if getattr(of, one.kind)))
    made = plan(facts, of)
    event(f"{facts.direction} {made.action}")
    if not made.acts:
        assert made.action in {"human", "watch"}
        return
    order, to = made.order, of.regions[facts.goes_to]
    # It runs where traffic goes to, and that Region is well.
    assert facts.runs_in == to == order["to"] != order["from"]
    assert failover.health(facts.side(facts.goes_to), RULES) == "well"
    assert "no" not in {check["verdict"] for check in order["checks"]}
    # Every step can be undone or says why not, and can be made by hand.
    assert all(bool(step["undo"]) != bool(step["no_undo_because"]) for step in order["steps"])
    assert all(step["by_hand"] and step["seconds"] >= 0 for step in order["steps"])
    for step in order["steps"]:
        assert not check_commands(step["id"], step["by_hand"])
        assert not check_commands(step["id"], step["undo"])
    assert len({step["id"] for step in order["steps"]}) == len(order["steps"])
    # Data before traffic, traffic before verification.
    ranks = ["fence", "drain", "raise", "promote", "enable", "shift", "verify"]
    verbs_made = [step["verb"] for step in order["steps"]]
    assert verbs_made == sorted(verbs_made, key=ranks.index)
    # One way to promote, with loss only where two people are asked.
    operations = {s["detail"]["operation"] for s in order["steps"] if s["verb"] == "promote"}
    assert len(operations) <= 1
    if "FailoverGlobalCluster" in operations:
        assert made.action == "failover_with_loss"
    promoted = [s["detail"]["parameters"] for s in order["steps"] if s["verb"] == "promote"]
    assert all("Switchover" not in parameters for parameters in promoted)
    # A person is asked, but for what was declared.
    assert order["needs_yes"] or (of.unattended and facts.direction == FAILOVER)
    never_both_off(of, facts, order)
    json.dumps(made.document(failover.diagnose(of, facts, RULES), failover_plan.seen(of, facts)))


def never_both_off(of: Service, facts: Facts, order: Mapping[str, Any]) -> None:
    """Make the shift steps on the levers as they are: after each, one Region gets traffic."""
    state: dict[str, dict[Any, bool]]
    state = {one.kind: {**one.open} for one in facts.levers if one.answered}
    roles = {of.routing_control.controls[r]: r for r in service.ROLES} if of.routing_control else {}
    for step in (step for step in order["steps"] if step["verb"] == "shift"):
        detail = step["detail"]
        assert sum(detail["share"].values()) == 100
        if detail["lever"] == ROUTING_CONTROL:
            state[ROUTING_CONTROL] = {
                roles[e["RoutingControlArn"]]: e["RoutingControlState"] == "On"
                for e in detail["entries"]
            }
        elif detail["lever"] == HEALTH_CHECK:
            away = detail["call"]["operation"] == "PutObject"
            state[HEALTH_CHECK] = {"primary": not away, "standby": True}
        else:
            sets = [c["ResourceRecordSet"] for c in detail["change_batch"]["Changes"][2:]]
            state[RECORDS] = {
                role: one["Weight"] > 0 for role, one in zip(service.ROLES, sets, strict=True)
            }
        for kind, lets_in in state.items():
            assert any(lets_in.values()), kind
        # Unhealthy by either lever: weights choose among what is left, so something must be.
        healthy = {
            role: state.get(ROUTING_CONTROL, {}).get(role, True)
            and (role == "standby" or state.get(HEALTH_CHECK, {}).get("primary", True))
            for role in service.ROLES
        }
        assert any(healthy.values())
    goes = facts.goes_to
    final = {kind: lets_in.get(goes, True) for kind, lets_in in state.items() if kind != RECORDS}
    assert all(final.values()), "the Region that traffic goes to is left closed"


@given(FACTS)
def test_only_the_region_that_traffic_goes_to_may_run_it(facts: Facts) -> None:
    if facts.runs_in != SHOP.regions[facts.goes_to]:
        assert cause(facts) == "wrong_region"
        assert not plan(facts).acts


def test_the_sample_file_is_what_these_tests_build_on() -> None:
    text = yaml.safe_load((service.SAMPLE / "services" / "shop.yaml").read_text("utf-8"))
    assert text["regions"] == {"primary": HOME, "standby": AWAY}


def test_a_region_none_of_whose_apis_answers_is_a_signal_when_nobody_tells_of_checkers() -> None:
    dark = side(
        OUTAGE.primary, checkers={}, error_share=None, answered={"lambda": False, "rds": False}
    )
    assert failover.health(dark, RULES) == "sick"
    assert failover.health(replace(dark, answered={"lambda": True, "rds": False}), RULES) != "sick"
    assert failover.health(replace(dark, answered={}), RULES) != "sick"
    seen = replace(dark, probes=dict.fromkeys(dark.probes, True))
    assert failover.health(seen, RULES) != "sick"
