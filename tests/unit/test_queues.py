"""Diagnosis, plan and verdict: each cause told apart, no bound passed, every watch ends."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall import changes, queues
from oncall.changes import Planned
from oncall.plans import Diagnosis, Look, Plan
from oncall.queues import Facts
from tests.unit.world import CONTRACT, FUNCTION, MAPPING, PARAMETER, QUEUE

LIMITS = CONTRACT.limits
RULES = CONTRACT.verification

CAPPED = Facts(
    queue="orders",
    queue_arn=QUEUE,
    period_seconds=60,
    fifo=False,
    visible=880,
    in_flight=20,
    delayed=0,
    visibility_timeout=180,
    max_receive_count=5,
    dlq="orders-dlq",
    dlq_visible=2,
    mappings=1,
    mapping_arn=MAPPING,
    mapping_state="Enabled",
    mapping_concurrency=10,
    batch_size=10,
    function="worker",
    function_arn=FUNCTION,
    function_timeout=30,
    reserved=None,
    account_limit=1000,
    unreserved=900,
    account_floor=100,
    usual_work=500.0,
    depths=(600, 700, 800, 850, 880),
    oldest_age=(10, 20, 30, 40, 50),
    sent=(1260,) * 5,
    received=(1200,) * 5,
    deleted=(1196,) * 5,
    dlq_depths=(2,) * 5,
    invocations=(120,) * 5,
    errors=(0,) * 5,
    throttles=(0,) * 5,
    duration=(600_000,) * 5,
    concurrency=(10,) * 5,
)
"""At its cap of 10, healthy, each execution works off 2 messages a second, 21 a second arrive."""

NO_METRICS: dict[str, Any] = dict.fromkeys(
    (
        "depths",
        "oldest_age",
        "sent",
        "received",
        "deleted",
        "dlq_depths",
        "invocations",
        "errors",
        "throttles",
        "duration",
        "concurrency",
    ),
    (),
)


def the(**changed: Any) -> Facts:
    return replace(CAPPED, **changed)


def cause(**changed: Any) -> str:
    return queues.diagnose(the(**changed), RULES).cause


def plan(facts: Facts) -> Plan:
    return queues.plan(queues.diagnose(facts, RULES), facts, LIMITS)


def document(facts: Facts) -> dict[str, Any]:
    diagnosis = queues.diagnose(facts, RULES)
    return queues.plan(diagnosis, facts, LIMITS).document(diagnosis, queues.seen(facts))


# Facts


def test_rates_come_from_metrics_and_are_unknown_without_them() -> None:
    assert CAPPED.arrival_rate == 21
    assert CAPPED.drain_rate == pytest.approx(1196 / 60)
    assert CAPPED.backlog == 900
    assert CAPPED.work == 500
    assert CAPPED.rate_of_one == 2
    assert CAPPED.invocation_duration == 5000
    missing = the(**NO_METRICS)
    for name in ("arrival_rate", "steady_arrival_rate", "drain_rate", "work", "rate_of_one"):
        assert getattr(missing, name) is None
    assert missing.invocation_duration is None
    assert missing.failing_share is None
    zero = the(sent=(0, 0), deleted=(0, 0))
    assert (zero.arrival_rate, zero.steady_arrival_rate, zero.drain_rate) == (0, 0, 0)


def test_a_burst_does_not_count_as_what_arrives_steadily() -> None:
    facts = the(sent=(60, 60, 6000, 60, 60))
    assert facts.steady_arrival_rate == 1
    assert facts.arrival_rate == pytest.approx(6240 / 300)


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        ({"errors": (30,) * 5}, 0.25),
        # Partial batch failures leave Errors at zero: what is received comes back.
        ({"deleted": (600,) * 5, "in_flight": 0}, 0.5),
        # What is in flight has not failed.
        ({"deleted": (1000,) * 5, "in_flight": 1000}, 0.0),
        ({"deleted": (1300,) * 5}, 0.0),
        ({"errors": (90,) * 5, "deleted": (600,) * 5, "in_flight": 0}, 0.75),
        ({"invocations": (0,) * 5, "received": (0,) * 5}, None),
        ({"invocations": (), "received": ()}, None),
        ({"invocations": (), "deleted": ()}, None),
        ({"invocations": (0,), "deleted": (0,) * 5, "in_flight": 0}, 1.0),
    ],
)
def test_the_failing_share_is_the_larger_of_what_fails_and_what_comes_back(
    changed: dict[str, Any], share: float | None
) -> None:
    assert the(**changed).failing_share == (share if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("series", "new"), [((), 0), ((5,), 0), ((2, 4, 9), 7), ((9, 4), 0), ((0, 9, 3), 3)]
)
def test_new_dead_letters_are_what_the_queue_has_gained(
    series: tuple[float, ...], new: float
) -> None:
    assert the(dlq_depths=series).dead_letters == new


@pytest.mark.parametrize(
    ("mapping", "reserved", "cap"), [(10, 7, 7), (7, 10, 7), (None, 9, 9), (9, None, 9)]
)
def test_the_cap_is_the_lower_of_the_two(
    mapping: int | None, reserved: int | None, cap: int
) -> None:
    assert the(mapping_concurrency=mapping, reserved=reserved).cap == cap
    assert the(mapping_concurrency=None, reserved=None).cap is None


def test_without_durations_one_execution_does_its_share_of_what_drains() -> None:
    facts = the(duration=())
    assert facts.rate_of_one == pytest.approx(1196 / 60 / 10)
    assert the(duration=(), mapping_concurrency=None).rate_of_one is None


def test_facts_survive_a_state_machine() -> None:
    back = queues.facts_from(json.loads(json.dumps(asdict(CAPPED))))
    assert queues.diagnose(back, RULES) == queues.diagnose(CAPPED, RULES)
    assert document(back) == document(CAPPED)


# Diagnosis

ABUNDANT: dict[str, Any] = {"mapping_concurrency": None, "reserved": None}
STILL: dict[str, Any] = {"concurrency": (10,) * 5}
CAUSES: list[tuple[str, dict[str, Any], str]] = [
    ("consumer_capped", {}, "runs at its cap of 10"),
    ("consumer_capped", {"concurrency": (9,) * 5}, "runs at its cap of 10"),
    ("consumer_capped", {"concurrency": (5,) * 5, "throttles": (0, 0, 1, 0, 0)}, "cap of 10"),
    ("consumer_capped", {"mapping_concurrency": None, "reserved": 10}, "cap of 10"),
    ("no_consumer", {"mappings": 0}, "No Lambda function consumes orders"),
    ("several_consumers", {"mappings": 2}, "2 mappings consume orders"),
    ("provisioned_pollers", {"mapping_provisioned": True}, "exclude a concurrency cap"),
    ("consumer_disabled", {"mapping_state": "Disabled"}, "orders's consumer is disabled."),
    ("consumer_disabled", {"mapping_state": "Disabling"}, "is disabling."),
    (
        "consumer_disabled",
        {"mapping_state": "Disabled", "disabled_by": "orders-0"},
        "is disabled by incident orders-0.",
    ),
    ("stop_switch", {"reserved": 0}, "somebody has stopped it on purpose"),
    ("consumer_erroring", {"errors": (36,) * 5}, "30% of worker's work fails"),
    ("consumer_erroring", {"deleted": (800,) * 5}, "33% of worker's work fails"),
    ("downstream_slow", {"duration": (1_200_000,) * 5}, "1000 ms a message, usually 500 ms"),
    (
        "downstream_slow",
        {"usual_work": None, "duration": (2_880_000,) * 5},
        "usually unknown: what lies behind it is slow",
    ),
    ("poison_messages", {"dlq_depths": (2, 2, 3, 4, 5)}, "3 messages went to orders-dlq"),
    ("already_draining", {"depths": (900, 850, 800, 700, 600)}, "drains already"),
    ("already_draining", {"visible": 80, "depths": (800,) * 5}, "drains already"),
    ("already_draining", {"visible": 10, "depths": (10,) * 5}, "drains already"),
    ("fifo_hot_group", {"fifo": True, "concurrency": (2,) * 5}, "only 2 groups"),
    ("fifo_hot_group", {"fifo": True, **ABUNDANT, "concurrency": (900,)}, "only 900 groups"),
    ("consumer_capped", {"fifo": True}, "cap of 10"),
    ("still_ramping", {"concurrency": (2, 3, 4, 5, 6)}, "2 to 6 so far"),
    ("surge", {"concurrency": (5,) * 5}, "More arrives (21/s) than worker works off"),
    ("surge", {**ABUNDANT, **STILL}, "no cap in its way"),
    ("undecided", {**ABUNDANT, **STILL, "sent": (60,) * 5}, "do not tell why orders"),
    ("undecided", NO_METRICS, "do not tell why orders"),
    ("undecided", {"depths": ()}, "do not tell why orders"),
    ("undecided", {"sent": ()}, "do not tell why orders"),
    ("undecided", {"deleted": ()}, "do not tell why orders"),
]


@pytest.mark.parametrize(("name", "changed", "sentence"), CAUSES)
def test_each_cause_is_told_apart_with_its_evidence(
    name: str, changed: dict[str, Any], sentence: str
) -> None:
    diagnosis = queues.diagnose(the(**changed), RULES)
    assert diagnosis.cause == name
    assert sentence in diagnosis.sentence
    assert diagnosis.evidence == queues.evidence(the(**changed))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        # Just short of each threshold it is something else.
        ({"errors": (35,) * 5}, "consumer_capped"),
        ({"duration": (1_199_000,) * 5}, "consumer_capped"),
        ({"usual_work": None, "duration": (2_879_000,) * 5}, "consumer_capped"),
        ({"dlq_depths": (5, 5, 5, 5, 5)}, "consumer_capped"),
        ({"concurrency": (8.9,) * 5}, "surge"),
        ({"depths": (900, 850, 850, 700, 600)}, "consumer_capped"),
        ({"depths": (900, 850, 800)}, "consumer_capped"),
        ({"visible": 90, "depths": (880,) * 5}, "consumer_capped"),
        ({"mapping_state": "Updating"}, "consumer_capped"),
        ({"mapping_state": "Enabling"}, "consumer_capped"),
        ({"mapping_state": "Creating"}, "consumer_capped"),
        # A mean hides nothing: one slow period of five does not make a slow window.
        ({"duration": (600_000, 600_000, 600_000, 600_000, 1_800_000)}, "consumer_capped"),
        # A full batch takes longer than a small one, although no message does.
        ({"duration": (600_000,) * 5, "invocations": (60,) * 5}, "consumer_capped"),
        # Work without a history is judged by the function's timeout only.
        ({"usual_work": 0.0}, "consumer_capped"),
    ],
)
def test_a_cause_begins_at_its_threshold(changed: dict[str, Any], name: str) -> None:
    assert cause(**changed) == name


HEALTH: dict[str, dict[str, Any]] = {
    "consumer_erroring": {"errors": (120,) * 5},
    "downstream_slow": {"duration": (6_000_000,) * 5},
    "poison_messages": {"dlq_depths": (0, 9)},
}
WIRING: dict[str, dict[str, Any]] = {
    "no_consumer": {"mappings": 0},
    "several_consumers": {"mappings": 3},
    "provisioned_pollers": {"mapping_provisioned": True},
    "consumer_disabled": {"mapping_state": "Disabled"},
    "stop_switch": {"reserved": 0},
}


@pytest.mark.parametrize("wiring", WIRING)
@pytest.mark.parametrize("health", HEALTH)
def test_what_is_wrong_with_the_wiring_goes_before_what_is_wrong_with_the_work(
    wiring: str, health: str
) -> None:
    assert cause(**WIRING[wiring], **HEALTH[health]) == wiring


def test_failing_goes_before_slow_and_slow_before_poison() -> None:
    merged = {key: value for changed in HEALTH.values() for key, value in changed.items()}
    assert cause(**merged) == "consumer_erroring"
    assert cause(**HEALTH["downstream_slow"], **HEALTH["poison_messages"]) == "downstream_slow"


def test_the_evidence_holds_the_numbers() -> None:
    assert queues.evidence(CAPPED) == (
        "880 waiting, 20 in flight, oldest 50 s",
        "in 21/s, out 20/s",
        "mapping Enabled, cap 10, batch 10",
        (
            "worker: concurrency 10, reserved none, failing 0%, 500 ms a message "
            "(usually 500 ms), throttles 0"
        ),
        "account: 900 of 1000 unreserved, floor 100",
        "orders-dlq: 2 waiting, 0 new",
    )


def test_the_evidence_says_what_is_missing_and_never_calls_it_zero() -> None:
    lines = queues.evidence(the(**NO_METRICS, usual_work=None, mapping_concurrency=None))
    assert lines[0].endswith("oldest unknown")
    assert lines[1] == "in unknown (no datapoints), out unknown (no datapoints)"
    assert "no cap" in lines[2]
    assert lines[3] == (
        "worker: concurrency unknown, reserved none, failing unknown, unknown a message "
        "(usually unknown), throttles unknown"
    )
    zero = queues.evidence(the(sent=(0,), deleted=(0,), oldest_age=(0,), throttles=(0,)))
    assert zero[0].endswith("oldest 0 s")
    assert zero[1] == "in 0.0/s, out 0.0/s"
    assert zero[3].endswith("throttles 0")


@pytest.mark.parametrize(
    ("sent", "words"),
    [(1, "0.0/s"), (6, "0.1/s"), (299, "5.0/s"), (300, "5/s"), (330, "6/s"), (60_000, "1000/s")],
)
def test_a_rate_has_one_digit_where_that_says_something(sent: int, words: str) -> None:
    assert queues.evidence(the(sent=(sent,)))[1].startswith(f"in {words}, ")


def test_without_a_consumer_or_a_dead_letter_queue_the_evidence_leaves_them_out() -> None:
    facts = the(function=None, dlq=None)
    assert len(queues.evidence(facts)) == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7140, "119 min"),
        (7200, "2.0 h"),
        (172_800, "2 days"),
    ],
)
def test_an_age_is_told_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert queues.evidence(the(oldest_age=(seconds,)))[0].endswith(f"oldest {words}")


# Plan


def test_a_capped_healthy_consumer_is_raised_as_far_as_drains_in_time() -> None:
    found = plan(CAPPED)
    # 21/s arriving and 900 within 15 minutes make 22/s, 2/s each: 11.
    assert (found.action, found.goal) == ("raise", "drain")
    (change,) = found.changes
    assert (change.lever, change.before, change.after) == ("mapping-concurrency", 10, 11)
    assert change.resource == MAPPING
    assert found.predicted_seconds == 900
    assert found.bounds == ()
    assert found.sentence == (
        "Raise worker from 10 to 11: each does 2.0/s and 21/s arrive, so 11 clear the 900 waiting "
        "in about 15 min."
    )
    assert change.why == "it is at its cap and healthy"


def test_a_raise_is_worded_with_what_it_counts_on() -> None:
    fast = the(
        visible=383,
        mapping_concurrency=2,
        concurrency=(2,) * 5,
        sent=(900,) * 5,
        duration=(1200 * 1000 / 11,) * 5,
        usual_work=1000 / 11,
    )
    found = queues.plan(
        Diagnosis("consumer_capped", "Capped.", ()), fast, {**LIMITS, "drain_within_periods": 0.25}
    )
    assert found.sentence == (
        "Raise worker from 2 to 4: each does 11/s and 15/s arrive, so 4 clear the 403 waiting in "
        "about 14 s."
    )


@pytest.mark.parametrize(
    ("changed", "after", "bound"),
    [
        ({"sent": (60_000,) * 5}, None, "at most 5 times 10"),
        ({"sent": (5900,) * 5, "visible": 4000}, 50, "at most 5 times 10"),
        (
            {"mapping_concurrency": 100, "concurrency": (100,) * 5, "visible": 900_000},
            200,
            "at most 200",
        ),
        ({"visible": 90_000, "unreserved": 60}, 30, "at most 50% of the account's 60 unreserved"),
        (
            {"visible": 60_000, "reserved": 10, "unreserved": 115},
            25,
            "the account has 115 unreserved and keeps 100",
        ),
        (
            {"visible": 40_000, "reserved": 30, "unreserved": 110, "other_caps": 20},
            20,
            "the account has 110 unreserved and keeps 100",
        ),
    ],
)
def test_each_bound_holds_the_plan_and_is_told(
    changed: dict[str, Any], after: int | None, bound: str
) -> None:
    found = plan(the(**changed))
    assert found.bounds == (bound,)
    assert bound in found.sentence
    if after is None:
        assert found.action == "human"
        assert found.sentence.endswith(
            f"Even at 50 only 100/s is worked off while 1000/s arrive ({bound})."
        )
    else:
        assert found.changes[-1].after == after
        assert f"Held to that by: {bound}." in found.sentence


def test_lambdas_own_limit_holds_where_the_contract_would_allow_more() -> None:
    facts = the(mapping_concurrency=900, concurrency=(900,) * 5, visible=5_000_000, unreserved=9000)
    limits = {**LIMITS, "max_concurrency": 5000}
    found = queues.plan(queues.diagnose(facts, RULES), facts, limits)
    assert found.changes[0].after == 1000
    assert found.bounds == ("Lambda allows a mapping at most 1,000",)


def test_the_reservation_is_raised_first_and_covers_every_cap() -> None:
    found = plan(the(reserved=15, other_caps=5, visible=1780))
    assert [(change.lever, change.before, change.after) for change in found.changes] == [
        ("reserved-concurrency", 15, 16 + 1),
        ("mapping-concurrency", 10, 12),
    ]
    assert found.changes[0].resource == FUNCTION


def test_a_reservation_alone_is_raised_where_the_mapping_has_no_cap() -> None:
    found = plan(the(mapping_concurrency=None, reserved=10))
    assert [change.lever for change in found.changes] == ["reserved-concurrency"]


@pytest.mark.parametrize("cap", [11, 12, 100])
def test_a_cap_above_its_reservation_is_set_to_what_the_reservation_is_raised_to(cap: int) -> None:
    found = plan(the(mapping_concurrency=cap, reserved=10, other_caps=3))
    made = [(change.lever, change.before, change.after) for change in found.changes]
    assert made[0] == ("reserved-concurrency", 10, 11 + 3)
    assert made[1:] == ([] if cap == 11 else [("mapping-concurrency", cap, 11)])


@pytest.mark.parametrize(("run_seconds", "action"), [(3600, "raise"), (3599, "human")])
def test_a_raise_that_would_fill_a_quarter_of_the_run_is_a_humans(
    run_seconds: int, action: str
) -> None:
    # 900 waiting, 1/s more worked off than arrives: 900 s.
    limits = {**LIMITS, "run_seconds": run_seconds}
    found = queues.plan(queues.diagnose(CAPPED, RULES), CAPPED, limits)
    assert found.action == action
    if action == "human":
        assert (found.changes, found.predicted_seconds) == ((), None)
        assert found.sentence == (
            "worker runs at its cap of 10 and is healthy. Even at 11 it takes 15 min to drain."
        )


def test_a_raise_that_is_held_to_less_than_it_needs_says_by_what() -> None:
    found = plan(the(visible=900_000))
    assert found.action == "human"
    assert found.sentence.endswith("Even at 50 it takes 3.2 h to drain (at most 5 times 10).")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"unreserved": 20}, "orders would need 11, but at most 50% of the account's 20"),
        ({"reserved": 10, "unreserved": 100}, "but the account has 100 unreserved and keeps 100"),
    ],
)
def test_where_nothing_may_be_raised_a_human_is_told_why(
    changed: dict[str, Any], words: str
) -> None:
    facts = the(**changed)
    diagnosis = Diagnosis("consumer_capped", "It is capped; orders drains already.", ())
    found = queues.plan(diagnosis, facts, LIMITS)
    assert (found.action, found.changes) == ("human", ())
    assert words in found.sentence


def test_a_queue_that_falls_too_slowly_to_be_waited_for_does_not_drain() -> None:
    def cause(fell: int) -> str:
        depths = tuple(900 - fell * n for n in range(5))
        return queues.diagnose(the(visible=depths[-1], depths=depths), RULES).cause

    # 30 periods are watched: 792 left take 29.3 at 27 a period, 796 left take 30.6 at 26.
    assert (cause(27), cause(26)) == ("already_draining", "consumer_capped")


def test_a_cap_that_drains_in_time_is_only_watched() -> None:
    # 10/s arriving and 900 within 15 minutes make 11/s, 2/s each: 6, and the cap is 10.
    facts = the(sent=(600,) * 5)
    found = queues.plan(queues.diagnose(facts, RULES), facts, LIMITS)
    assert (found.action, found.changes) == ("watch", ())
    assert found.sentence == "That drains it in time: change nothing and watch."


@pytest.mark.parametrize(
    "changed", [{"sent": ()}, {"mapping_concurrency": None}, {"received": (), "deleted": ()}]
)
def test_without_rates_there_is_no_raise(changed: dict[str, Any]) -> None:
    found = queues.plan(Diagnosis("consumer_capped", "Capped.", ()), the(**changed), LIMITS)
    assert (found.action, found.changes) == ("human", ())
    assert found.sentence == "Capped. Its rates are unknown."


def test_a_consumer_that_an_incident_has_left_disabled_is_enabled() -> None:
    found = plan(the(mapping_state="Disabled", disabled_by="orders-0"))
    (change,) = found.changes
    assert found.action == "enable"
    assert (change.lever, change.resource) == ("mapping-enabled", MAPPING)
    assert (change.before, change.after) == (False, True)
    assert (change.put_back_to, change.supersedes) == (True, "orders-0")
    assert "incident orders-0" in change.why
    assert found.sentence == "Enable worker's consumer of orders again."


@pytest.mark.parametrize("name", ["consumer_erroring", "downstream_slow"])
def test_a_failing_or_slow_consumer_is_lowered(name: str) -> None:
    found = plan(the(**HEALTH[name]))
    assert (found.action, found.goal) == ("lower", "protect")
    (change,) = found.changes
    assert (change.lever, change.before, change.after) == ("mapping-concurrency", 10, 5)
    assert "from 10 at once to 5 until it is healthy; the queue grows" in found.sentence
    assert name.replace("_", " ") in change.why


@pytest.mark.parametrize(("at", "after"), [(3, 2), (4, 2), (5, 2), (7, 3)])
def test_a_cap_is_never_lowered_below_what_lambda_allows(at: int, after: int) -> None:
    (change,) = plan(the(**HEALTH["downstream_slow"], mapping_concurrency=at)).changes
    assert (change.before, change.after) == (at, after)


def test_a_reservation_below_the_cap_is_what_has_to_be_halved() -> None:
    found = plan(the(**HEALTH["downstream_slow"], mapping_concurrency=100, reserved=10))
    (change,) = found.changes
    assert (change.lever, change.before, change.after) == ("mapping-concurrency", 100, 5)
    assert "from 10 at once to 5" in found.sentence


@pytest.mark.parametrize(
    ("running", "after"), [((30, 40, 20), 5), ((10,) * 5, 5), ((4, 8, 6), 4), ((), 5)]
)
def test_what_is_halved_is_what_runs_where_that_is_below_the_cap(
    running: tuple[int, ...], after: int
) -> None:
    (change,) = plan(the(**{**HEALTH["downstream_slow"], "concurrency": running})).changes
    assert (change.before, change.after) == (10, after)


def test_a_consumer_that_runs_little_already_is_a_humans() -> None:
    found = plan(the(**{**HEALTH["downstream_slow"], "concurrency": (2, 2)}))
    assert (found.action, found.changes) == ("human", ())
    assert "It runs at 2 already" in found.sentence


def test_a_cap_that_is_low_already_is_a_humans() -> None:
    found = plan(the(**HEALTH["downstream_slow"], mapping_concurrency=2))
    assert (found.action, found.goal, found.changes) == ("human", "protect", ())
    assert "It runs at 2 already" in found.sentence


def test_a_consumer_without_a_cap_is_capped_at_half_of_what_it_runs() -> None:
    facts = the(**HEALTH["downstream_slow"], mapping_concurrency=None)
    (change,) = plan(replace(facts, concurrency=(30, 40, 20))).changes
    assert (change.before, change.after) == (None, 20)
    assert plan(replace(facts, concurrency=())).action == "human"


@pytest.mark.parametrize(
    "changed", [{"depths": (900, 850, 800, 700, 600)}, {"concurrency": (2, 3, 4, 5, 6)}]
)
def test_what_gets_better_by_itself_is_only_watched(changed: dict[str, Any]) -> None:
    found = plan(the(**changed))
    assert (found.action, found.goal, found.changes) == ("watch", "drain", ())
    assert found.predicted_seconds is None


@pytest.mark.parametrize(
    "changed",
    [
        {"mappings": 0},
        {"mappings": 2},
        {"mapping_provisioned": True},
        {"mapping_state": "Disabled"},
        {"reserved": 0},
        {"dlq_depths": (0, 5)},
        {"fifo": True, "concurrency": (2,) * 5},
        {"concurrency": (5,) * 5},
        NO_METRICS,
    ],
)
def test_the_rest_is_for_a_human(changed: dict[str, Any]) -> None:
    found = plan(the(**changed))
    assert (found.action, found.changes) == ("human", ())
    assert found.sentence.endswith("That is for a human to judge.")


PRESSED: dict[str, Any] = {
    "back_pressure": PARAMETER,
    "back_pressure_value": "off",
    "safe_size": 500,
}
SURGE: dict[str, Any] = {"concurrency": (5,) * 5}


@pytest.mark.parametrize(("changed", "action"), [(SURGE, "shed"), ({}, "raise")])
def test_load_is_shed_above_the_safe_size(changed: dict[str, Any], action: str) -> None:
    found = plan(the(**changed, **PRESSED))
    assert found.action == action
    change = found.changes[-1]
    assert (change.lever, change.resource, change.before) == ("back-pressure", PARAMETER, "off")
    assert json.loads(change.after) == {"state": "on", "retry_after_seconds": 30}
    assert "well below its safe size of 500" in found.sentence
    assert "900 waiting, its safe size is 500" in change.why


@pytest.mark.parametrize(
    "off",
    [
        {"back_pressure": None},
        {"safe_size": None},
        {"safe_size": 900},
        {"back_pressure_value": None},
        {"back_pressure_value": '{"state":"on"}'},
    ],
)
def test_load_is_not_shed_unless_the_owner_has_declared_both(off: dict[str, Any]) -> None:
    assert plan(the(**SURGE, **{**PRESSED, **off})).action == "human"
    assert len(plan(the(**{**PRESSED, **off})).changes) == 1
    assert "safe size" not in plan(the(**{**PRESSED, **off})).sentence


counts = st.integers(0, 100_000)
series = st.lists(st.integers(0, 100_000), min_size=0, max_size=5).map(tuple)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Draw facts around a busy queue: far from all are capped, none is impossible."""
    cap = draw(st.none() | st.integers(2, 1000))
    reserved = draw(st.none() | st.integers(0, 900))
    running = draw(st.integers(0, 1000))
    received = draw(st.integers(1, 50_000))
    return the(
        visible=draw(counts),
        in_flight=draw(st.integers(0, 5000)),
        fifo=draw(st.booleans()),
        mapping_concurrency=cap,
        reserved=reserved,
        other_caps=draw(st.integers(0, 100)),
        unreserved=draw(st.integers(0, 1000)),
        account_floor=draw(st.sampled_from([0, 40, 100])),
        mapping_state=draw(st.sampled_from(["Enabled", "Enabled", "Enabled", "Disabled"])),
        disabled_by=draw(st.sampled_from([None, "orders-0"])),
        depths=draw(series),
        sent=draw(series),
        received=(received,) * 5,
        deleted=(draw(st.integers(received * 8 // 10, received)),) * 5,
        errors=(draw(st.integers(0, 40)),) * 5,
        throttles=(draw(st.integers(0, 3)),) * 5,
        duration=(draw(st.integers(1, 1200)) * received,) * 5,
        concurrency=(running,) * 5,
        dlq_depths=draw(st.sampled_from([(), (1, 1), (1, 2)])),
        safe_size=draw(st.none() | counts),
        back_pressure=draw(st.sampled_from([None, PARAMETER])),
        back_pressure_value=draw(st.sampled_from([None, "off", "on"])),
    )


@st.composite
def capped_facts(draw: st.DrawFn) -> Facts:
    """Draw facts of a healthy consumer at its cap, so that most plans raise."""
    sizes = st.integers(2, 40) | st.integers(1, 400)
    cap = draw(st.none() | sizes.filter(lambda size: size > 1))
    reserved = draw(sizes if cap is None else st.none() | sizes)
    if cap is not None and reserved is not None and draw(st.booleans()):
        reserved = max(1, cap - draw(st.integers(1, 9)))  # pollers that are throttled
    runs = min(value for value in (cap, reserved) if value is not None)
    facts = the(
        mapping_concurrency=cap,
        reserved=reserved,
        other_caps=draw(st.integers(0, 50)),
        unreserved=draw(st.integers(0, 1000)),
        account_floor=draw(st.sampled_from([0, 40, 100])),
        # Each works off 2 a second: what arrives is about that, what waits is minutes to hours.
        visible=draw(st.integers(1000, max(1000, 500 * runs))),
        sent=(draw(st.integers(0, 130 * runs)),) * 5,
        safe_size=draw(st.none() | st.integers(0, 1_000_000)),
        back_pressure=PARAMETER,
        back_pressure_value="off",
    )
    return replace(facts, concurrency=(facts.cap or 0,) * 5, depths=(1, facts.visible))


limits_drawn = st.fixed_dictionaries(
    {
        "max_factor": st.sampled_from([5, 2, 1.5, 20, 1]),
        "max_concurrency": st.sampled_from([200, 3000, 50, 5]),
        "account_share": st.sampled_from([0.1, 0.5, 1.0]),
        "drain_within_periods": st.sampled_from([15, 1, 60]),
        "retry_after_seconds": st.just(30),
        "run_seconds": st.sampled_from([10_800, 3600, 600]),
    }
).map(lambda drawn: {**LIMITS, **drawn})


def check_bounds(facts: Facts, limits: dict[str, float], found: Plan) -> None:
    assert (found.action in {"human", "watch"}) is (not found.changes)
    assert len({change.lever for change in found.changes}) == len(found.changes)
    for change in found.changes:
        assert change.before != change.after
    if found.action != "raise":
        return
    assert facts.cap is not None
    levers = [change.lever for change in found.changes]
    assert {"reserved-concurrency", "mapping-concurrency"} & set(levers)
    order = ["reserved-concurrency", "mapping-concurrency", "back-pressure"]
    assert levers == sorted(levers, key=order.index)
    after = {change.lever: change.after for change in found.changes}
    before = {
        "reserved-concurrency": facts.reserved,
        "mapping-concurrency": facts.mapping_concurrency,
    }
    for change in found.changes[: len(set(levers) & set(before))]:
        assert change.before == before[change.lever]
        assert change.before > 0
    caps = [
        after.get("mapping-concurrency", facts.mapping_concurrency),
        (after.get("reserved-concurrency", facts.reserved) or 0) - facts.other_caps
        if facts.reserved is not None
        else None,
    ]
    to = min(cap for cap in caps if cap is not None)
    assert to > facts.cap
    assert to <= limits["max_factor"] * facts.cap
    assert to <= limits["max_concurrency"]
    mapping = after.get("mapping-concurrency", 0)
    assert mapping <= 1000
    assert mapping <= limits["max_concurrency"]
    if facts.reserved is None:
        assert mapping <= limits["account_share"] * facts.unreserved
    else:
        reservation = after.get("reserved-concurrency", facts.reserved)
        assert reservation >= facts.reserved
        # In force after the raise, whether or not the mapping's cap is one of its changes.
        polled = after.get("mapping-concurrency", facts.mapping_concurrency) or 0
        assert reservation >= polled + facts.other_caps
        assert not polled or polled == to
        raised = reservation - facts.reserved
        assert raised == 0 or facts.unreserved - raised >= facts.account_floor
    assert found.predicted_seconds is not None
    assert 0 < found.predicted_seconds <= limits["run_seconds"] / 4


@given(facts=any_facts(), limits=limits_drawn)
def test_no_plan_passes_a_bound_whatever_the_facts(facts: Facts, limits: dict[str, float]) -> None:
    diagnosis = queues.diagnose(facts, RULES)
    found = queues.plan(diagnosis, facts, limits)
    check_bounds(facts, limits, found)
    failing = facts.failing_share
    if facts.reserved == 0:
        assert not {c.lever for c in found.changes} & {
            "reserved-concurrency",
            "mapping-concurrency",
        }
    if (failing is not None and failing >= RULES["failing_share"]) or queues.is_slow(facts, RULES):
        assert found.action != "raise"


@settings(max_examples=300)
@given(facts=capped_facts(), limits=limits_drawn)
def test_no_raise_passes_a_bound(facts: Facts, limits: dict[str, float]) -> None:
    diagnosis = queues.diagnose(facts, RULES)
    assert diagnosis.cause == "consumer_capped"
    check_bounds(facts, limits, queues.plan(diagnosis, facts, limits))


@given(facts=capped_facts())
def test_the_predicted_time_is_what_the_raised_consumer_needs(facts: Facts) -> None:
    found = plan(facts)
    if found.action != "raise":
        return
    to = found.changes[-1 if found.changes[-1].lever != "back-pressure" else -2].after
    if found.changes[0].lever == "reserved-concurrency":
        to = min(to, found.changes[0].after - facts.other_caps)
    rate, arriving = facts.rate_of_one, facts.steady_arrival_rate
    assert rate is not None
    assert arriving is not None
    assert found.predicted_seconds == math.ceil(facts.backlog / (to * rate - arriving))


CHANGE = Planned("mapping-concurrency", MAPPING, "cap", 10, 11, "why")


def hash_of(*changes: Planned, action: str = "raise", words: str = "Raise it.") -> str:
    found = Plan(action, "drain", changes, words)
    return str(found.document(Diagnosis("consumer_capped", words, ()), {})["hash"])


@pytest.mark.parametrize(
    "other",
    [
        replace(CHANGE, lever="reserved-concurrency"),
        replace(CHANGE, resource=FUNCTION),
        replace(CHANGE, name="other"),
        replace(CHANGE, before=None),
        replace(CHANGE, after=12),
        replace(CHANGE, why="because"),
        replace(CHANGE, original=9),
        replace(CHANGE, original=None),
        replace(CHANGE, supersedes="orders-0"),
    ],
)
def test_the_hash_changes_with_anything_that_is_approved(other: Planned) -> None:
    assert hash_of(CHANGE) != hash_of(other)
    assert hash_of(CHANGE, other) != hash_of(other, CHANGE)
    assert hash_of(CHANGE) != hash_of(CHANGE, CHANGE) != hash_of()


def test_the_hash_changes_with_nothing_else() -> None:
    assert hash_of(CHANGE) == hash_of(replace(CHANGE), words="Other words.")
    assert hash_of(CHANGE) != hash_of(CHANGE, action="lower")
    assert len(hash_of(CHANGE)) == 64


def test_the_plans_document_holds_what_people_and_later_looks_need() -> None:
    found = document(the(**PRESSED))
    assert found["ask"] == f"{found['sentence']} Shall I?"
    assert found["backlog"] == 900
    assert found["dlq_visible"] == 2
    assert found["failing_share"] == 0.0
    assert found["safe_size"] == 500
    assert found["cause"] == "consumer_capped"
    assert found["evidence"] == list(queues.evidence(CAPPED))
    assert found["changes"][0] == {
        "lever": "mapping-concurrency",
        "resource": MAPPING,
        "name": "worker's maximum concurrency on orders",
        "before": 10,
        "after": 11,
        "why": "it is at its cap and healthy",
        "original": changes.SAME,
        "supersedes": "",
    }
    json.dumps(found)


# Looks

PLAN = document(CAPPED)
WATCH = document(the(depths=(900, 850, 800, 700, 600)))
PROTECT = document(the(**HEALTH["downstream_slow"]))
FIRST = Look()


def looks(
    depths: Sequence[int], planned: dict[str, Any] = PLAN, *, shed: bool = False, **changed: Any
) -> list[Look]:
    """Look at each depth in turn, until a verdict or the series ends."""
    found = [FIRST]
    for depth in depths:
        facts = the(visible=depth, in_flight=0, **changed)
        found.append(queues.assess(found[-1], facts, planned, RULES, shed=shed))
        if found[-1].verdict != "wait":
            break
    return found[1:]


def test_a_queue_that_falls_and_stays_down_is_drained() -> None:
    found = looks([700, 500, 300, 91, 90, 80, 70])
    assert [look.verdict for look in found] == ["wait"] * 6 + ["relieved"]
    assert [look.calm for look in found] == [0, 0, 0, 0, 1, 2, 3]
    assert [look.done for look in found[:2]] == pytest.approx([1 - 700 / 900, 1 - 500 / 900])
    assert (found[-1].number, found[-1].done, found[-1].measure) == (7, 1.0, 70)
    assert found[-1].sentence == "orders is drained: 70 waiting."


@pytest.mark.parametrize(("visible", "in_flight", "calm"), [(90, 5000, 1), (91, 0, 0)])
def test_a_queue_drains_by_what_waits_not_by_what_is_in_work(
    visible: int, in_flight: int, calm: int
) -> None:
    facts = the(visible=visible, in_flight=in_flight)
    look = queues.assess(FIRST, facts, PLAN, RULES, shed=False)
    assert (look.verdict, look.calm) == ("wait", calm)
    before = Look(number=2, measure=80, calm=2)
    look = queues.assess(before, facts, PLAN, RULES, shed=False)
    assert look.verdict == ("relieved" if calm else "wait")


def test_a_look_says_how_far_it_has_come_and_when_it_will_be_done() -> None:
    first, second = looks([720, 540])
    assert first.eta_seconds is None
    assert second.eta_seconds == 180
    assert second.sentence == "540 waiting, 40% drained, out 20/s."
    assert looks([540, 720])[1].eta_seconds is None


def test_a_queue_that_does_not_fall_is_ineffective_once_grace_and_patience_are_over() -> None:
    found = looks([900] * 20)
    # The first look has nothing to compare with; patience counts from the second on.
    assert [look.bad for look in found] == [0, 1, 2, 3, 4, 5]
    assert found[-1].verdict == "ineffective"
    assert found[-1].sentence == (
        "orders has not fallen for 5 looks: 900 waiting, 900 at the start."
    )
    fell_once = looks([900, 900, 900, 900, 850, *[850] * 20])
    assert (fell_once[-1].verdict, fell_once[-1].number) == ("ineffective", 10)


def test_nothing_is_judged_ineffective_within_grace() -> None:
    rules = {**RULES, "patience_periods": 1}
    before = Look(number=4, measure=900, bad=9)
    look = queues.assess(before, the(visible=900), PLAN, rules, shed=False)
    assert look.verdict == "wait"
    assert queues.assess(look, the(visible=900), PLAN, rules, shed=False).verdict == "ineffective"


def test_a_queue_that_takes_far_longer_than_predicted_is_ineffective() -> None:
    slow = [900 - at // 2 for at in range(1, 200)]
    found = looks(slow)
    # 900 s are 15 looks; three times that and the grace.
    assert (found[-1].number, found[-1].verdict) == (5 + 3 * 15 + 1, "ineffective")
    assert "it should have drained by now" in found[-1].sentence
    short = looks(slow, {**PLAN, "predicted_seconds": 61})
    assert short[-1].number == 5 + 3 * 5 + 1


def test_a_plan_that_only_watches_gives_a_queue_thirty_looks() -> None:
    assert WATCH["changes"] == []
    found = looks([900 - at // 2 for at in range(1, 200)], WATCH)
    assert (found[-1].number, found[-1].verdict) == (31, "ineffective")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"errors": (60,) * 5}, "50% of worker's work fails now, 0% before the change."),
        ({"dlq_visible": 93}, "91 more messages are in orders-dlq than before the change."),
    ],
)
def test_what_gets_worse_is_told_at_once_after_the_grace(
    changed: dict[str, Any], words: str
) -> None:
    found = looks([800, 700, 600, 500, 400, 300], **changed)
    assert [look.verdict for look in found] == ["wait"] * 5 + ["worse"]
    assert found[-1].sentence == words


@pytest.mark.parametrize(
    ("changed", "planned"),
    [
        ({"errors": (35,) * 5}, PLAN),
        ({"errors": (60,) * 5}, {**PLAN, "failing_share": 0.5}),
        ({"dlq_visible": 92}, PLAN),
        ({"dlq_visible": None}, PLAN),
        ({"dlq_visible": 5000}, {**PLAN, "dlq_visible": None}),
        ({"invocations": (), "received": ()}, PLAN),
    ],
)
def test_what_is_as_it_was_or_unknown_is_not_worse(
    changed: dict[str, Any], planned: dict[str, Any]
) -> None:
    found = looks([800, 700, 600, 500, 400, 300], planned, **changed)
    assert [look.verdict for look in found] == ["wait"] * 6


def look_at_health(before: Look, name: str = "", **changed: Any) -> Look:
    facts = the(**{**HEALTH.get(name, {}), **changed})
    return queues.assess(before, facts, PROTECT, RULES, shed=False)


def test_a_lowered_consumer_is_protected_once_it_is_healthy_for_long_enough() -> None:
    look, verdicts = FIRST, []
    for name in ("downstream_slow", "", "consumer_erroring", "", "", ""):
        look = look_at_health(look, name)
        verdicts.append(look.verdict)
    assert verdicts == ["wait"] * 5 + ["protected"]
    assert look.sentence == "worker is healthy again: failing 0%, 500 ms a message."


def test_a_lowered_consumer_that_does_not_recover_is_ineffective() -> None:
    look = FIRST
    while look.verdict in {"", "wait"}:
        look = look_at_health(look, "downstream_slow")
    assert (look.number, look.verdict) == (66, "ineffective")
    assert "has not recovered: failing 0%, 5000 ms a message" in look.sentence


def test_a_lowered_consumer_is_not_blamed_for_a_queue_that_grows() -> None:
    look = Look(number=30, measure=900, bad=9)
    assert look_at_health(look, "consumer_erroring", visible=90_000).verdict == "wait"


def test_health_that_is_unknown_is_not_health() -> None:
    look = FIRST
    for _ in range(10):
        look = look_at_health(look, **NO_METRICS)
    assert (look.verdict, look.calm) == ("wait", 0)


SHEDS = document(the(**PRESSED))


def test_back_pressure_goes_off_at_half_the_safe_size_and_not_at_the_size() -> None:
    found = looks([499, 300, 251, 250], SHEDS, shed=True)
    assert [look.verdict for look in found] == ["wait"] * 3 + ["shed_over"]
    assert found[-1].sentence == "orders is well below its safe size again."
    assert [look.verdict for look in looks([499, 250, 240], SHEDS)] == ["wait"] * 3


def test_back_pressure_without_a_safe_size_goes_off_only_when_the_queue_is_empty() -> None:
    planned = {**SHEDS, "safe_size": None}
    assert [look.verdict for look in looks([400, 200, 0], planned, shed=True)][-1] == "shed_over"
    assert [look.verdict for look in looks([400, 200, 1], planned, shed=True)][-1] == "wait"


@given(depths=st.lists(st.integers(0, 2000), min_size=1, max_size=40))
def test_back_pressure_does_not_flap(depths: list[int]) -> None:
    """It goes on above the safe size and off below half of it: never twice in between."""
    on, switched = False, list[tuple[bool, int]]()
    for depth in depths:
        facts = the(**SURGE, **PRESSED, visible=depth, in_flight=0, depths=(1, depth, 9000))
        shed = on
        if not on and depth > 500:
            shed = plan(facts).action == "shed"
            assert shed or "drains already" in queues.diagnose(facts, RULES).sentence
        elif on:
            look = queues.assess(Look(measure=9000), facts, SHEDS, RULES, shed=True)
            shed = look.verdict != "shed_over"
        if shed is not on:
            on = shed
            switched.append((on, depth))
    for (was_on, earlier), (_, later) in itertools.pairwise(switched):
        assert (earlier > 500 and later <= 250) if was_on else (earlier <= 250 and later > 500)


def drain(depths: Callable[[int], int], planned: dict[str, Any], *, shed: bool) -> Look:
    look, number = FIRST, 0
    while look.verdict in {"", "wait", "shed_over"}:
        shed = shed and look.verdict != "shed_over"
        facts = the(visible=depths(number), in_flight=0)
        look = queues.assess(look, facts, planned, RULES, shed=shed)
        number += 1
        assert look.number == number <= 200
        assert 0 <= look.done <= 1
    return look


@given(
    depths=st.lists(st.integers(0, 3000), min_size=1, max_size=60),
    planned=st.sampled_from([PLAN, WATCH, SHEDS, PROTECT]),
    shed=st.booleans(),
)
def test_every_watch_ends_whatever_the_queue_does(
    depths: list[int],
    planned: dict[str, Any],
    shed: bool,  # noqa: FBT001 -- drawn
) -> None:
    look = drain(lambda at: depths[at % len(depths)], planned, shed=shed)
    assert look.verdict in {"relieved", "ineffective", "worse", "protected"}
    if planned is not PROTECT and min(depths) > 90:
        assert look.verdict == "ineffective"


@given(start=st.integers(100, 900), steps=st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_a_queue_that_only_falls_makes_only_progress(start: int, steps: list[int]) -> None:
    depths = [max(0, start - sum(steps[:at])) for at in range(len(steps) + 1)]
    found = looks(depths)
    done = [look.done for look in found]
    assert done == sorted(done)
    assert all(look.bad == 0 for look in found)
    assert "ineffective" not in {look.verdict for look in found}


# Calm


def calm(depths: Sequence[int]) -> list[Look]:
    found = [FIRST]
    for depth in depths:
        found.append(queues.assess_calm(found[-1], the(visible=depth, in_flight=0), PLAN, RULES))
        if found[-1].verdict != "wait":
            break
    return found[1:]


def test_a_queue_that_stays_calm_with_its_settings_back_is_drained() -> None:
    found = calm([90, 50, 20, 10])
    assert [look.verdict for look in found] == ["wait", "wait", "relieved"]
    assert found[-1].sentence == ("orders is drained and stays calm: 20 waiting, 900 at the start.")
    assert [look.calm for look in calm([50, 91, 50, 50, 50])] == [1, 0, 1, 2, 3]


def test_a_queue_that_fills_again_has_recurred() -> None:
    found = calm([50, *[91] * 9])
    assert [look.verdict for look in found] == ["wait"] * 5 + ["recurred"]
    assert "fills again with its settings as they were (91 waiting)" in found[-1].sentence
    assert "the cap is too low for good" in found[-1].sentence


@pytest.mark.parametrize(("visible", "in_flight", "counts"), [(90, 5000, (1, 0)), (91, 0, (0, 1))])
def test_a_queue_is_calm_by_what_waits_not_by_what_is_in_work(
    visible: int, in_flight: int, counts: tuple[int, int]
) -> None:
    look = queues.assess_calm(FIRST, the(visible=visible, in_flight=in_flight), PLAN, RULES)
    assert (look.calm, look.bad) == counts


def test_a_queue_that_never_stays_calm_has_recurred() -> None:
    found = calm([50, 91] * 20)
    assert (found[-1].number, found[-1].verdict) == (15, "recurred")


@given(depths=st.lists(st.integers(0, 200), min_size=1, max_size=20))
def test_every_watch_for_calm_ends(depths: list[int]) -> None:
    look, number = FIRST, 0
    while look.verdict in {"", "wait"}:
        facts = the(visible=depths[number % len(depths)], in_flight=0)
        look = queues.assess_calm(look, facts, PLAN, RULES)
        number += 1
        assert number <= 100
    assert look.verdict in {"relieved", "recurred"}


def test_a_look_survives_a_state_machine() -> None:
    look = looks([700, 500])[-1]
    assert Look(**json.loads(json.dumps(asdict(look)))) == look
