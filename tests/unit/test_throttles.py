"""Diagnosis, plan and verdict of throttles: each cause told apart, no bound passed, watches end."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall import contract as contracts
from oncall import throttle_relief, throttles
from oncall.plans import Look, Plan
from oncall.throttles import Facts, Provisioned, User

CONTRACT = contracts.load("lambda-throttles")
LIMITS, RULES = CONTRACT.limits, CONTRACT.verification
PREFIX = "arn:aws:lambda:us-east-1:123456789012:function"
FUNCTION = f"{PREFIX}:checkout-api"

CAPPED = Facts(
    function="checkout-api",
    function_arn=FUNCTION,
    period_seconds=60,
    reserved=10,
    account_limit=1000,
    unreserved=900,
    account_floor=100,
    invokers=("apigateway.amazonaws.com",),
    usual_duration=100.0,
    usual_attempts=6000.0,
    usual_concurrency=8.0,
    throttled_recently=1200.0,
    invoked_recently=12_000.0,
    invocations=(6000,) * 5,
    errors=(0,) * 5,
    throttles=(600,) * 5,
    concurrency=(10,) * 5,
    duration=(100,) * 5,
    mean_duration=(100,) * 5,
    slowest=(300,) * 5,
    account_concurrency=(60,) * 5,
    account_unreserved=(50,) * 5,
)
"""At its reservation of 10, healthy: 110 calls a second of 100 ms each, 10 of them refused."""

POOLED = replace(
    CAPPED,
    reserved=None,
    concurrency=(100,) * 5,
    invocations=(60_000,) * 5,
    throttles=(12_000,) * 5,
    usual_attempts=60_000.0,
    account_unreserved=(890,) * 5,
    users=(
        User("reports", f"{PREFIX}:reports", 700, None, opted_in=True),
        User("billing", f"{PREFIX}:billing", 200, 200, opted_in=True),
    ),
)
"""Without a reservation in a pool of 900 that is used up; reports runs 700 of it."""

LIVE = Provisioned("live", f"{FUNCTION}:live", 5, 5, "READY", spilled=300)
SILENT: dict[str, Any] = {
    **dict.fromkeys(
        (
            "invocations",
            "errors",
            "throttles",
            "concurrency",
            "duration",
            "mean_duration",
            "slowest",
            "account_concurrency",
            "account_unreserved",
        ),
        (),
    ),
    "throttled_recently": 0,
    "invoked_recently": 0,
}


def the(like: Facts = CAPPED, **changed: Any) -> Facts:
    return replace(like, **changed)


def cause(facts: Facts) -> str:
    return throttles.diagnose(facts, RULES).cause


def plan(facts: Facts, **limits: float) -> Plan:
    return throttle_relief.plan(throttles.diagnose(facts, RULES), facts, {**LIMITS, **limits})


def document(facts: Facts) -> dict[str, Any]:
    return plan(facts).document(throttles.diagnose(facts, RULES), throttles.seen(facts))


# Facts


def test_facts_survive_a_state_machine() -> None:
    facts = the(POOLED, provisioned=(LIVE,))
    read = throttles.facts_from(json.loads(json.dumps(asdict(facts))))
    assert json.dumps(asdict(read)) == json.dumps(asdict(facts))
    assert read.provisioned == (LIVE,)
    assert read.users == POOLED.users


def test_what_is_needed_comes_from_calls_and_durations_and_is_unknown_without_them() -> None:
    assert list(CAPPED.attempts) == [6600] * 5
    assert CAPPED.attempts_per_second == 110
    assert CAPPED.needed == 11
    assert the(mean_duration=(200,) * 5).needed == 22
    assert the(mean_duration=()).needed is None
    assert the(**SILENT).needed is None
    assert the(**SILENT).failing_share is None
    assert the(**SILENT).peak is None


def test_calls_are_added_up_from_the_latest_period_on() -> None:
    assert throttles.attempts((10, 20), (1, 2, 3)) == (1, 12, 23)
    assert throttles.attempts((), ()) == ()


def test_pollers_need_what_their_mappings_run_and_no_more() -> None:
    polled = the(only_queues=True, mapping_caps=40, throttles=(900_000,) * 5)
    assert polled.needed == 40
    assert the(only_queues=True, mapping_caps=8).needed == 11
    assert the(only_queues=False, mapping_caps=40).needed == 40


# Diagnosis

CAUSES: list[tuple[str, Facts, str]] = [
    ("stop_switch", the(reserved=0), "somebody has stopped it on purpose"),
    ("recursion", the(recursions=(0, 0, 7)), "Lambda has dropped 7 invocations"),
    ("healed", the(throttled_recently=0), "is no longer throttled"),
    (
        "retry_storm",
        the(errors=(3000,) * 5, usual_attempts=2000.0),
        "50% of checkout-api's calls fail and 3 times as many come as usual",
    ),
    ("failing", the(errors=(3000,) * 5), "50% of checkout-api's calls fail; more"),
    (
        "slow_dependency",
        the(duration=(200,) * 5),
        "takes 200 ms a call, usually 100 ms: what lies behind it is slow",
    ),
    (
        "provisioned_spilled",
        the(provisioned=(LIVE,)),
        "300 calls of checkout-api:live found none of its 5 provisioned environments free",
    ),
    (
        "provisioned_misplaced",
        the(provisioned=(replace(LIVE, requested=10, spilled=0),)),
        "The provisioned concurrency of live takes up all 10 that checkout-api has reserved",
    ),
    ("reserved_cap", CAPPED, "runs at its reserved concurrency of 10 and is healthy"),
    (
        "pool_exhausted",
        POOLED,
        (
            "The account's 900 unreserved concurrency is used up: reports runs 700 of it, "
            "checkout-api 100."
        ),
    ),
    (
        "pool_exhausted",
        the(POOLED, users=()),
        "is used up: checkout-api 100 of it, more than any other.",
    ),
    (
        "requests_per_second",
        the(concurrency=(2,) * 5, mean_duration=(2,) * 5),
        "gets 110/s; a concurrency of 10 allows 100/s, however short the calls are, and only 2",
    ),
    (
        "scaling_rate",
        the(POOLED, concurrency=(100, 200, 300), account_unreserved=(400,) * 5),
        "is scaling up, 100 to 300 so far; Lambda adds at most 1,000 environments in 10 s",
    ),
    ("undecided", the(POOLED, account_unreserved=(400,) * 5), "The metrics do not tell why"),
    ("undecided", the(**SILENT), "The metrics do not tell why"),
]


@pytest.mark.parametrize(("name", "facts", "words"), CAUSES)
def test_each_cause_is_told_apart_with_its_evidence(name: str, facts: Facts, words: str) -> None:
    found = throttles.diagnose(facts, RULES)
    assert found.cause == name
    assert words in found.sentence
    assert found.evidence == throttles.evidence(facts)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (the(concurrency=(8.9,) * 5, invocations=(4000,) * 5), "undecided"),
        (the(concurrency=(9,) * 5), "reserved_cap"),
        (the(errors=(1799,) * 5), "reserved_cap"),
        (the(errors=(1800,) * 5), "failing"),
        (the(duration=(199,) * 5), "reserved_cap"),
        (the(duration=(900,) * 5, usual_duration=None), "reserved_cap"),
        (the(POOLED, account_unreserved=(809,) * 5), "undecided"),
        (the(POOLED, account_unreserved=(810,) * 5), "pool_exhausted"),
        (the(errors=(3000,) * 5, usual_attempts=2201.0), "failing"),
        (the(errors=(3000,) * 5, usual_attempts=None), "failing"),
        (the(provisioned=(replace(LIVE, requested=9, spilled=0),)), "reserved_cap"),
        # One slow period of five makes no slow function.
        (the(duration=(100, 100, 100, 100, 900)), "reserved_cap"),
        # Nothing runs, nothing rises.
        (the(POOLED, concurrency=(0, 0, 0), account_unreserved=(400,) * 5), "undecided"),
    ],
)
def test_a_cause_begins_at_its_threshold(facts: Facts, name: str) -> None:
    assert cause(facts) == name


ORDERED: list[dict[str, Any]] = [
    {"reserved": 0},
    {"recursions": (7,)},
    {"errors": (3000,) * 5, "usual_attempts": 1.0},
    {"duration": (900,) * 5},
    {"provisioned": (LIVE,)},
]
IN_ORDER = ["stop_switch", "recursion", "retry_storm", "slow_dependency", "provisioned_spilled"]


def test_what_forbids_more_concurrency_goes_before_what_asks_for_it() -> None:
    for at, name in enumerate(IN_ORDER):
        merged: dict[str, Any] = {}
        for changed in ORDERED[at:]:
            merged |= changed
        assert cause(the(**merged)) == name


def test_the_evidence_holds_the_numbers() -> None:
    facts = the(
        POOLED, provisioned=(LIVE,), shifting=("live",), neighbours=("billing",), updating=True
    )
    assert throttles.evidence(facts) == (
        "200/s refused, 1000/s served, 100 at once at most",
        "reserved none, failing 0%, 100 ms a call (usually 100 ms), 99% within 300 ms",
        "account: 60 of 1000 in use, 890 of 900 unreserved, floor 100",
        "invoked by apigateway.amazonaws.com",
        "most concurrency besides: reports 700, billing 200",
        "live: 5 of 5 provisioned (READY), 300 calls found none",
        "a deployment is under way: live shifts weights",
        "throttled as well: billing",
    )


def test_the_evidence_says_what_is_missing_and_never_calls_it_zero() -> None:
    lines = throttles.evidence(the(**SILENT, invokers=(), usual_duration=None, updating=True))
    assert lines[0].startswith("unknown (no datapoints) refused, unknown (no datapoints) served")
    assert "failing unknown, unknown a call (usually unknown), 99% within unknown" in lines[1]
    assert lines[2] == "account: unknown of 1000 in use, unknown of 900 unreserved, floor 100"
    assert lines[3] == "invoked by nothing that its configuration names"
    assert lines[-1] == "a deployment is under way: its code is updated"


# Plans


def change(found: Plan, at: int = 0) -> tuple[str, str, Any, Any]:
    made = found.changes[at]
    return made.lever, made.resource, made.before, made.after


RESERVED = "reserved-concurrency"


def test_a_capped_function_gets_what_its_calls_need_and_some_room() -> None:
    found = plan(CAPPED)
    assert found.action == "raise"
    assert change(found) == (RESERVED, FUNCTION, 10, 14)
    assert found.sentence == (
        "Raise checkout-api's reserved concurrency from 10 to 14: 110/s come at 100 ms each, "
        "refused ones too."
    )
    assert found.bounds == ()


def test_a_function_behind_queues_gets_what_their_mappings_run() -> None:
    found = plan(the(only_queues=True, mapping_caps=40))
    assert change(found)[3] == 40
    assert "its queues' mappings run up to 40 at once" in found.sentence


@pytest.mark.parametrize(
    ("changed", "to", "words"),
    [
        ({"throttles": (60_000,) * 5}, 50, "at most 5 times 10"),
        ({"mapping_caps": 900, "unreserved": 120}, 30, "the account has 120 unreserved and keeps"),
    ],
)
def test_each_bound_holds_the_plan_and_is_told(
    changed: dict[str, Any], to: int, words: str
) -> None:
    found = plan(the(**changed))
    assert change(found)[3] == to
    assert words in found.sentence
    assert words in found.bounds[0]


def test_the_absolute_bound_holds_too() -> None:
    facts = the(reserved=300, concurrency=(300,) * 5, throttles=(600_000,) * 5)
    assert change(plan(facts))[3] == 500
    assert "at most 500" in plan(facts).sentence


def test_where_there_is_no_room_a_human_gets_the_quota_request_filled_in() -> None:
    found = plan(the(unreserved=100))
    assert found.action == "human"
    assert "It would need 14, but the account has 100 unreserved and keeps 100." in found.sentence
    assert (
        "`aws service-quotas request-service-quota-increase --service-code lambda --quota-code "
        "L-B99A9384 --desired-value 1100`" in found.sentence
    )


def test_short_calls_need_concurrency_by_their_number() -> None:
    short = the(concurrency=(2,) * 5, mean_duration=(2,) * 5, throttles=(3000,) * 5)
    assert change(plan(short))[3] == 18  # 150/s, 10 each, and a fifth more
    alone = the(short, reserved=None, unreserved=10, account_limit=10, account_unreserved=(2,) * 5)
    assert cause(alone) == "requests_per_second"
    found = plan(alone)
    assert found.action == "human"
    assert "--desired-value 100" in found.sentence


def test_the_pools_biggest_user_is_capped_so_that_the_rest_fits() -> None:
    found = plan(POOLED)
    assert found.action == "cap_hog"
    # 900, of which 90 others run and checkout-api needs 120.
    assert POOLED.needed == 120
    assert change(found) == (RESERVED, f"{PREFIX}:reports", None, 690)
    assert "its own calls beyond that are refused" in found.sentence
    assert "L-B99A9384" in found.sentence


def test_the_hog_keeps_its_half() -> None:
    found = plan(the(POOLED, concurrency=(600,) * 5, throttles=(120_000,) * 5))
    assert change(found)[3] == 350
    narrow = the(POOLED, unreserved=400, account_unreserved=(890,) * 5)
    found = plan(narrow)
    assert found.action == "human"
    assert "reports may be cut to 350 at the least" in found.sentence


def test_a_hog_that_is_not_opted_in_is_named_and_left() -> None:
    hog = replace(POOLED.users[0], opted_in=False)
    found = plan(the(POOLED, users=(hog,)))
    assert found.action == "human"
    assert "reports is not opted in to automation, so I leave it." in found.sentence


def test_where_nobody_uses_more_than_the_function_itself_the_limit_is_aws_to_raise() -> None:
    for users in ((), (replace(POOLED.users[0], concurrency=100.0),), POOLED.users[1:]):
        found = plan(the(POOLED, users=users))
        assert found.action == "human"
        assert "L-B99A9384" in found.sentence


def test_provisioned_concurrency_is_raised_and_the_reservation_first() -> None:
    found = plan(the(provisioned=(LIVE,), reserved=12))
    assert found.action == "provision"
    assert change(found) == (RESERVED, FUNCTION, 12, 14)
    assert change(found, 1) == ("provisioned-concurrency", f"{FUNCTION}:live", 5, 14)
    free = plan(the(provisioned=(LIVE,), reserved=None))
    assert [one.lever for one in free.changes] == ["provisioned-concurrency"]
    roomy = plan(the(provisioned=(LIVE,), reserved=30))
    assert [one.lever for one in roomy.changes] == ["provisioned-concurrency"]


def test_provisioned_concurrency_waits_for_a_deployment_to_end() -> None:
    found = plan(the(provisioned=(replace(LIVE, shifting=True),)))
    assert found.action == "human"
    assert "cannot be changed while an alias shifts weights, as live does now" in found.sentence


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reserved": None, "unreserved": 100}, "the account has 100 unreserved and keeps 100"),
        ({"throttles": (60_000,) * 5, "reserved": 90}, "at most 5 times 5"),
    ],
)
def test_provisioned_concurrency_has_its_bounds(changed: dict[str, Any], words: str) -> None:
    found = plan(the(provisioned=(LIVE,), **changed))
    assert words in found.sentence


def test_enough_provisioned_concurrency_is_not_raised() -> None:
    found = plan(the(provisioned=(replace(LIVE, requested=14),), reserved=None))
    assert found.action == "human"
    assert "It would need 14, which it has." in found.sentence


def test_misplaced_provisioned_concurrency_gets_room_beside_it() -> None:
    found = plan(the(provisioned=(replace(LIVE, requested=10, spilled=0),)))
    assert found.action == "raise"
    assert change(found)[3] == 24


def test_a_retry_storm_is_held_to_the_usual_concurrency() -> None:
    storm = the(errors=(3000,) * 5, usual_attempts=2000.0, usual_concurrency=2.4)
    found = plan(storm)
    assert (found.action, found.goal) == ("clamp", "protect")
    assert change(found) == (RESERVED, FUNCTION, 10, 3)
    assert plan(replace(storm, usual_concurrency=10.0)).action == "human"
    assert plan(replace(storm, usual_concurrency=None)).changes[0].after == 1
    pooled = replace(storm, reserved=None, unreserved=102)
    assert plan(pooled).action == "human"
    assert "A reservation of 3 does not fit" in plan(pooled).sentence
    assert change(plan(replace(pooled, unreserved=103))) == (RESERVED, FUNCTION, None, 3)


def test_a_loop_is_stopped_and_it_is_said_what_that_means() -> None:
    found = plan(the(recursions=(7,)))
    assert (found.action, found.goal) == ("stop", "stop")
    assert change(found) == (RESERVED, FUNCTION, 10, 0)
    assert "every call is refused until you have mended it" in found.sentence


@pytest.mark.parametrize(
    "flood", [{"recursions": (7,)}, {"errors": (3000,) * 5, "usual_attempts": 2000.0}]
)
def test_a_reservation_cannot_go_below_what_is_provisioned(flood: dict[str, Any]) -> None:
    found = plan(the(provisioned=(LIVE, replace(LIVE, qualifier="7", requested=4)), **flood))
    assert found.action == "human"
    assert "below the 9 that are provisioned for live, 7" in found.sentence


@pytest.mark.parametrize("facts", [the(throttled_recently=0), CAUSES[-3][1]])
def test_what_passes_by_itself_is_watched(facts: Facts) -> None:
    found = plan(facts)
    assert (found.action, found.changes) == ("watch", ())


@pytest.mark.parametrize(
    "facts",
    [
        the(reserved=0),
        the(errors=(3000,) * 5),
        the(duration=(900,) * 5),
        the(**SILENT),
        the(mean_duration=()),
        the(POOLED, mean_duration=()),
        the(provisioned=(LIVE,), mean_duration=()),
    ],
)
def test_what_has_no_safe_action_is_a_humans(facts: Facts) -> None:
    found = plan(facts)
    assert (found.action, found.changes) == ("human", ())
    assert found.sentence.startswith(throttles.diagnose(facts, RULES).sentence)


def test_only_what_refuses_calls_that_are_served_today_always_asks() -> None:
    assert set(CONTRACT.modes["always_ask"]) == {"cap_hog", "clamp", "stop"}


counts = st.integers(0, 2000)
a_series = st.lists(st.integers(0, 100_000), max_size=5).map(tuple)
concurrencies = st.lists(counts, max_size=5).map(tuple)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Draw facts of any kind, most of which are throttled."""
    provisioned = tuple(
        Provisioned(
            qualifier,
            f"{FUNCTION}:{qualifier}",
            draw(st.integers(1, 300)),
            0,
            draw(st.sampled_from(["READY", "IN_PROGRESS", "FAILED"])),
            spilled=draw(st.sampled_from([0, 0, 50])),
            shifting=draw(st.booleans()),
        )
        for qualifier in draw(st.sampled_from([(), (), ("live",), ("live", "7")]))
    )
    users = tuple(
        User(
            f"other-{n}",
            f"{PREFIX}:other-{n}",
            draw(counts),
            draw(st.none() | counts),
            opted_in=yes,
        )
        for n, yes in enumerate(draw(st.lists(st.booleans(), max_size=3)))
    )
    return the(
        reserved=draw(st.none() | st.integers(0, 900)),
        unreserved=draw(st.integers(0, 1000)),
        account_floor=draw(st.sampled_from([0, 40, 100])),
        mapping_caps=draw(st.integers(0, 300)),
        only_queues=draw(st.booleans()),
        provisioned=provisioned,
        users=users,
        usual_duration=draw(st.none() | st.just(100.0)),
        usual_attempts=draw(st.none() | st.sampled_from([10.0, 100_000.0])),
        usual_concurrency=draw(st.none() | st.integers(0, 500)),
        throttled_recently=draw(st.sampled_from([0, 5, 5, 5])),
        invocations=draw(a_series),
        throttles=draw(a_series),
        errors=draw(st.sampled_from([(), (0,), (0,), (50_000,)])),
        concurrency=draw(concurrencies),
        duration=draw(st.sampled_from([(), (100,), (100,), (900,)])),
        mean_duration=draw(st.sampled_from([(), (100,), (5,), (4000,)])),
        recursions=draw(st.sampled_from([(), (), (), (3,)])),
        account_unreserved=draw(concurrencies),
    )


limits_drawn = st.fixed_dictionaries(
    {
        "max_factor": st.sampled_from([5, 2, 1.5, 20, 1]),
        "max_concurrency": st.sampled_from([500, 3000, 50, 5]),
        "headroom": st.sampled_from([1.0, 1.2, 2.0]),
        "hog_keeps": st.sampled_from([0.5, 0.1, 1.0]),
    }
).map(lambda drawn: {**LIMITS, **drawn})


@st.composite
def healthy_facts(draw: st.DrawFn) -> Facts:
    """Draw facts of a healthy function at a limit, so that most plans change something."""
    reserved = draw(st.none() | st.integers(1, 400))
    unreserved = draw(st.integers(1, 1000))
    running = reserved or draw(st.integers(1, 300))
    hog = User(
        "reports", f"{PREFIX}:reports", draw(st.integers(running, 1000)), None,
        opted_in=draw(st.sampled_from([True, True, True, False])),
    )  # fmt: skip
    provisioned = draw(st.sampled_from([(), (), (LIVE,), (LIVE, replace(LIVE, spilled=0))]))
    return the(
        reserved=reserved,
        unreserved=unreserved,
        account_floor=draw(st.sampled_from([0, 40, 100])),
        mapping_caps=draw(st.sampled_from([0, 0, 60])),
        only_queues=draw(st.booleans()),
        provisioned=tuple(
            replace(one, requested=draw(st.integers(1, 2 * running))) for one in provisioned
        ),
        users=(hog,),
        concurrency=(running,) * 5,
        invocations=(600 * running,) * 5,
        throttles=(draw(st.integers(1, 3000 * running)),) * 5,
        account_unreserved=(unreserved,) * 5,
    )


@settings(max_examples=400)
@given(facts=any_facts() | healthy_facts(), limits=limits_drawn)
def test_no_plan_passes_a_bound_whatever_the_facts(facts: Facts, limits: dict[str, float]) -> None:
    diagnosis = throttles.diagnose(facts, RULES)
    found = throttle_relief.plan(diagnosis, facts, limits)
    assert (found.action in {"human", "watch"}) is (not found.changes)
    assert len({one.lever for one in found.changes}) == len(found.changes)
    taken = 0
    for one in found.changes:
        assert one.before != one.after
        if one.lever == "provisioned-concurrency":
            assert one.before < one.after <= limits["max_concurrency"]
            assert one.after <= limits["max_factor"] * one.before
            if facts.reserved is None:
                taken = one.after - one.before
            continue
        if one.resource != FUNCTION:
            assert found.action == "cap_hog"
            hog = next(user for user in facts.users if user.arn == one.resource)
            assert hog.opted_in
            assert hog.reserved is None
            assert limits["hog_keeps"] * hog.concurrency <= one.after < hog.concurrency
            taken = one.after
            continue
        assert one.before == facts.reserved != 0
        if found.action in {"clamp", "stop"}:
            assert one.before is None or one.after < one.before
            assert one.after == 0 or one.after < (facts.peak or 0)
            taken = one.after if facts.reserved is None else 0
            continue
        assert one.before < one.after <= limits["max_concurrency"]
        assert one.after <= limits["max_factor"] * one.before
        taken = one.after - one.before
    assert taken <= 0 or facts.unreserved - taken >= facts.account_floor
    if diagnosis.cause in {"stop_switch", "failing", "slow_dependency", "undecided"}:
        assert not found.changes


# Looks

PLAN = document(CAPPED)
FIRST = Look()


def quiet(**changed: Any) -> Facts:
    return the(**{"throttled_recently": 0, "concurrency": (7,) * 5, "reserved": 14, **changed})


def looks(facts: Sequence[Facts], planned: dict[str, Any] = PLAN) -> list[Look]:
    found = [FIRST]
    for one in facts:
        found.append(throttle_relief.assess(found[-1], one, planned, RULES))
        if found[-1].verdict != "wait":
            break
    return found[1:]


def test_a_function_that_is_no_longer_throttled_for_long_enough_is_relieved() -> None:
    found = looks([the(), *[quiet()] * 9])
    assert [look.verdict for look in found] == ["wait"] * 5 + ["relieved"]
    assert [look.calm for look in found] == [0, 1, 2, 3, 4, 5]
    assert found[-1].done == 1
    assert found[-1].sentence == (
        "checkout-api is no longer throttled: 7 of 14 at once, 0% failing."
    )
    assert found[0].sentence == (
        "1200 calls refused in the latest two periods, 10 of 10 at once, 0% failing."
    )


def test_throttles_that_do_not_fall_are_put_up_with_for_a_while() -> None:
    found = looks([the()] * 20)
    assert [look.verdict for look in found] == ["wait"] * 5 + ["ineffective"]
    assert "is still throttled after 6 looks: 1200 times" in found[-1].sentence


def test_throttles_that_fall_are_given_time() -> None:
    falling = [the(throttled_recently=1200 - 30 * n) for n in range(20)]
    assert {look.verdict for look in looks(falling)} == {"wait"}


WORSE: list[tuple[dict[str, Any], str]] = [
    ({"errors": (3000,) * 5}, "50% of checkout-api's calls fail now, 0% before."),
    ({"duration": (250,) * 5}, "checkout-api takes 250 ms a call now, 100 ms before."),
    (
        {"neighbours": ("billing",), "account_unreserved": (890,) * 5},
        "billing is throttled now and was not before: the account's 900 unreserved",
    ),
    ({"unreserved": 99}, "The account has 99 unreserved concurrency left, fewer than the 100"),
]


@pytest.mark.parametrize(("changed", "words"), WORSE)
def test_what_gets_worse_is_told_and_ends_the_watch(changed: dict[str, Any], words: str) -> None:
    found = looks([quiet(**changed)] * 4)
    assert [look.verdict for look in found] == ["wait"] * 3 + ["worse"]
    assert words in found[-1].sentence


@pytest.mark.parametrize(
    ("facts", "planned"),
    [
        (quiet(neighbours=("billing",)), PLAN),  # the pool has room: it is not our doing
        (
            quiet(neighbours=("billing",), account_unreserved=(890,) * 5),
            {**PLAN, "neighbours": ["billing"]},
        ),
        (quiet(errors=(3000,) * 5), {**PLAN, "failing_share": 0.6}),
        (quiet(unreserved=99), {**PLAN, "changes": []}),
        (quiet(**{**SILENT, "unreserved": 900}), PLAN),
    ],
)
def test_what_was_so_before_or_is_not_our_doing_is_not_worse(
    facts: Facts, planned: dict[str, Any]
) -> None:
    assert looks([facts] * 5, planned)[-1].verdict == "relieved"


def test_a_raise_stays_until_what_was_before_would_do_again() -> None:
    busy = quiet(concurrency=(9, 12, 12))
    found = looks([*[busy] * 6, *[quiet(concurrency=(12, 9, 9))] * 9])
    assert [look.verdict for look in found] == ["wait"] * 10 + ["relieved"]
    assert found[5].sentence.endswith("It had 10, too few for 12 at once.")
    assert found[0].done == 0.5


def test_a_function_that_has_outgrown_its_reservation_keeps_the_raise_and_a_human_is_told() -> None:
    found = looks([quiet(concurrency=(12,) * 5)] * 99)
    assert (found[-1].number, found[-1].verdict) == (31, "contained")
    assert "so they stay as I set them: whether for good is yours to decide" in found[-1].sentence


def test_the_least_reservation_goes_back_when_one_runs_at_once() -> None:
    planned = document(the(reserved=1, concurrency=(1,) * 5))
    assert looks([quiet(concurrency=(1,) * 5)] * 5, planned)[-1].verdict == "relieved"


def test_the_hogs_cap_stays_until_the_hog_no_longer_meets_it() -> None:
    capped = the(POOLED, throttled_recently=0, neighbours=("reports",))
    free = replace(capped, neighbours=())
    found = looks([*[capped] * 6, *[free] * 9], document(POOLED))
    assert [look.verdict for look in found] == ["wait"] * 10 + ["relieved"]
    assert found[0].sentence.endswith("reports still meets its cap of 690.")
    assert looks([capped] * 99, document(POOLED))[-1].verdict == "contained"


PROVISION = document(the(provisioned=(LIVE,)))


def test_looks_wait_until_provisioned_concurrency_is_ready() -> None:
    def at(status: str, available: int, **more: Any) -> Facts:
        live = replace(LIVE, requested=14, available=available, status=status, **more)
        return quiet(provisioned=(live,), throttled_recently=1 if status != "READY" else 0)

    found = looks([at("IN_PROGRESS", 6)] * 3 + [at("READY", 14)] * 5, PROVISION)
    assert [look.verdict for look in found] == ["wait"] * 7 + ["relieved"]
    assert found[0].sentence == "6 of 14 provisioned environments are ready."
    late = looks([at("IN_PROGRESS", 6)] * 20, PROVISION)
    assert (late[-1].number, late[-1].verdict) == (11, "ineffective")
    failed = looks([at("FAILED", 0, reason="no capacity")], PROVISION)
    assert failed[-1].verdict == "worse"
    assert "Lambda cannot provision 14 for live: no capacity" in failed[-1].sentence
    other = replace(LIVE, qualifier="7", arn=f"{FUNCTION}:7", status="IN_PROGRESS")
    assert looks([quiet(provisioned=(other,))] * 5, PROVISION)[-1].verdict == "relieved"


CLAMP = document(the(errors=(3000,) * 5, usual_attempts=2000.0))


def test_a_storm_is_over_when_the_function_is_healthy_again() -> None:
    found = looks([the(errors=(3000,) * 5), *[the()] * 9], CLAMP)
    assert [look.verdict for look in found] == ["wait"] * 5 + ["protected"]
    assert "is healthy again" in found[-1].sentence
    lost = looks([the(errors=(3000,) * 5)] * 99, CLAMP)
    assert (lost[-1].number, lost[-1].verdict) == (34, "ineffective")
    unknown = looks([the(**SILENT)] * 99, CLAMP)
    assert unknown[-1].verdict == "ineffective"


STOP = document(the(recursions=(7,)))


def test_a_loop_is_contained_when_nothing_runs_any_more() -> None:
    found = looks([the(), *[the(invoked_recently=0)] * 9], STOP)
    assert [look.verdict for look in found] == ["wait"] * 5 + ["contained"]
    assert "It stays stopped until you have mended it." in found[-1].sentence
    runs_on = looks([the()] * 20, STOP)
    assert (runs_on[-1].number, runs_on[-1].verdict) == (9, "ineffective")


@given(
    refused=st.lists(st.sampled_from([0, 0, 5, 1200]), min_size=1, max_size=60),
    ran=st.lists(st.sampled_from([0, 0, 9]), min_size=1, max_size=7),
    errors=st.lists(st.sampled_from([0, 0, 3000]), min_size=1, max_size=7),
    status=st.sampled_from(["READY", "IN_PROGRESS", "FAILED"]),
    planned=st.sampled_from([PLAN, PROVISION, CLAMP, STOP]),
)
def test_every_watch_ends_whatever_the_function_does(
    refused: list[int], ran: list[int], errors: list[int], status: str, planned: dict[str, Any]
) -> None:
    def facts(at: int) -> Facts:
        return the(
            throttled_recently=refused[at % len(refused)],
            invoked_recently=ran[at % len(ran)],
            errors=(errors[at % len(errors)],) * 5,
            provisioned=(replace(LIVE, status=status),),
        )

    look, number = FIRST, 0
    while look.verdict in {"", "wait"}:
        look = throttle_relief.assess(look, facts(number), planned, RULES)
        number += 1
        assert look.number == number <= 100
        assert 0 <= look.done <= 1
    assert look.verdict in {"relieved", "ineffective", "worse", "protected", "contained"}
    if look.verdict in {"relieved", "contained"} and planned is not STOP:
        assert refused[(number - 1) % len(refused)] == 0


# Calm


def calm(refused: Sequence[int]) -> list[Look]:
    found = [FIRST]
    for count in refused:
        facts = quiet(throttled_recently=count, reserved=10)
        found.append(throttle_relief.assess_calm(found[-1], facts, PLAN, RULES))
        if found[-1].verdict != "wait":
            break
    return found[1:]


def test_a_function_that_stays_unthrottled_with_its_settings_back_is_relieved() -> None:
    found = calm([0] * 9)
    assert [look.verdict for look in found] == ["wait"] * 4 + ["relieved"]
    assert found[-1].sentence == (
        "checkout-api is no longer throttled and stays so (7 of 10 at once, 0% failing, 3000 calls "
        "refused before)."
    )


def test_a_function_that_is_throttled_again_has_recurred() -> None:
    found = calm([0, *[40] * 9])
    assert [look.verdict for look in found] == ["wait"] * 5 + ["recurred"]
    assert "throttled again with its settings as they were (40 times" in found[-1].sentence
    assert calm([0, 40] * 20)[-1].verdict == "recurred"


@given(refused=st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_every_watch_for_calm_ends(refused: list[int]) -> None:
    found = calm([refused[n % len(refused)] for n in range(100)])
    assert found[-1].verdict in {"relieved", "recurred"}
