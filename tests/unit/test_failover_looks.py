"""What came of a failover: traffic has moved, works, and took so long; or it has not, and ends."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import failover, failover_looks, failover_plan
from oncall.failover_looks import Seen
from oncall.incident import Entry
from oncall.plans import Look
from tests.unit import test_failover as story

RULES: dict[str, float] = {
    **story.RULES,
    "moved_share": 0.9,
    "calm_periods": 3,
    "grace_periods": 3,
    "watch_periods": 20,
    "patience_periods": 3,
}
NOW = story.NOW
SERVERS = ("ns-1.example.org", "ns-2.example.org", "ns-3.example.org", "ns-4.example.org")
MOVED = Seen(
    now=NOW + 300,
    period_seconds=60,
    goes_to="standby",
    answers=dict.fromkeys(SERVERS, "standby"),
    insync=None,
    probes={"eu-west-1": True, "us-west-2": True},
    traffic_share=0.98,
    error_share=0.001,
)


def document(facts: failover.Facts = story.OUTAGE, of: Any = story.SHOP) -> dict[str, Any]:
    found = failover.diagnose(of, facts, RULES)
    return story.plan(facts, of).document(found, failover_plan.seen(of, facts))


PLANNED = document()
RAMP = document(story.CALM)


def looks(seen: Iterable[Seen], planned: dict[str, Any] | None = None, **carry: Any) -> list[Look]:
    made = [Look(carry=carry)]
    for one in seen:
        made.append(failover_looks.assess(made[-1], one, planned or PLANNED, RULES))
        json.dumps(asdict(made[-1]))
        if made[-1].verdict not in {"wait", "go"}:
            break
    return made[1:]


def test_what_has_moved_and_works_for_a_while_is_relieved_and_measured() -> None:
    seen = [replace(MOVED, now=NOW + 300 + 60 * n) for n in range(9)]
    made = looks(seen)
    assert [look.verdict for look in made] == ["wait", "wait", "relieved"]
    assert made[-1].sentence == (
        "shop.example.com works in eu-west-1. Recovery time 7 min (target 15 min, kept); missing "
        "writes, by estimate 11 s (target 30 s, kept)."
    )
    assert made[-1].done == 1


TROUBLE = [
    (replace(MOVED, insync=False), "PENDING"),
    (replace(MOVED, answers={**MOVED.answers, SERVERS[1]: "none"}), f"No answer from {SERVERS[1]}"),
    (replace(MOVED, answers={}), "No answer from any name server"),
    (replace(MOVED, answers={**MOVED.answers, SERVERS[2]: "other"}), "address of neither Region"),
    (replace(MOVED, answers={**MOVED.answers, SERVERS[0]: "primary"}), "1 of 4 name servers still"),
    (replace(MOVED, probes={}), "Nothing has probed the public name"),
    (replace(MOVED, probes={"eu-west-1": False, "us-west-2": False}), "does not work"),
    (replace(MOVED, traffic_share=0.4), "Only 40% of traffic has moved"),
    (replace(MOVED, error_share=0.5), "does not work"),
]


@pytest.mark.parametrize(("seen", "said"), TROUBLE)
def test_each_thing_that_is_missing_is_waited_for_and_said(seen: Seen, said: str) -> None:
    look = looks([seen])[0]
    assert look.verdict == "wait"
    assert said in look.sentence
    assert look.calm == 0
    assert looks([MOVED, MOVED, seen, MOVED, MOVED])[-1].verdict == "wait"


def test_what_does_not_move_in_time_has_not_helped() -> None:
    made = looks([TROUBLE[4][0]] * 60)
    assert made[-1].verdict == "ineffective"
    assert len(made) == RULES["watch_periods"] + 2  # one more for the TTL of a minute
    assert "After 22 looks: 1 of 4 name servers still" in made[-1].sentence


def test_errors_where_traffic_goes_are_worse_after_a_grace() -> None:
    made = looks([replace(MOVED, error_share=0.6)] * 9)
    assert made[-1].verdict == "worse"
    assert len(made) == RULES["grace_periods"] + 1
    assert made[-1].sentence == "60% of requests fail in eu-west-1 now, 0% before."


def test_probes_that_still_reach_the_sick_region_are_not_worse() -> None:
    made = looks([TROUBLE[6][0]] * 9)
    assert {look.verdict for look in made} == {"wait"}


def test_a_ramp_goes_on_only_when_each_step_is_calm_for_long_enough() -> None:
    back = replace(MOVED, goes_to="primary", answers=dict.fromkeys(SERVERS, "primary"))
    part = replace(back, answers=dict.fromkeys(SERVERS, "standby"), traffic_share=0.1)
    assert [look.verdict for look in looks([part] * 8, RAMP)] == [
        "go",  # weights hold traffic
        "go",  # the routing control is home
        "wait",
        "wait",
        "go",  # 10%
        "wait",
        "wait",
        "go",  # 50%
    ]
    # All of it: now every name server has to give the new answer.
    full = looks([part] * 9, RAMP)[-1]
    assert full.carry["shift"] == 4
    assert "still give the old answer" in full.sentence
    made = looks([part] * 8 + [back] * 3, RAMP)
    assert made[-1].verdict == "relieved"
    assert "works in us-east-1" in made[-1].sentence


def test_a_ramp_that_fails_stops_where_it_is() -> None:
    bad = replace(MOVED, goes_to="primary", error_share=0.7)
    made = looks([bad] * 9, RAMP, shift=2)
    assert made[-1].verdict == "worse"
    assert made[-1].carry["shift"] == 2


def test_the_effect_is_kept_from_look_to_look() -> None:
    said = failover_looks.effect(PLANNED["order"], ["fence-1", "promote-shop"])
    assert "stop the consumer" in said
    assert "--enabled" in said
    assert "switch shop over to eu-west-1, without loss (undo: `aws rds switchover" in said
    assert looks([MOVED], effect=said)[0].carry["effect"] == said
    assert failover_looks.effect(PLANNED["order"], []) == ""
    lost = document(story.LOST_PRIMARY)["order"]
    assert "What was not replicated is lost" in failover_looks.effect(lost, ["promote-shop"])


def test_at_home_the_share_at_home_is_green_and_none_is_not() -> None:
    home = {**RAMP, "order": {**RAMP["order"], "steps": [], "share": 67}}
    mixed = dict(zip(SERVERS, ["primary", "standby", "primary", "standby"], strict=True))
    seen = replace(MOVED, goes_to="primary", answers=mixed, traffic_share=0.65)
    assert looks([seen] * 9, home)[-1].verdict == "relieved"
    for other in (
        replace(seen, traffic_share=0.4),
        replace(seen, answers=dict.fromkeys(SERVERS, "standby")),
    ):
        assert not any(look.verdict == "relieved" for look in looks([other] * 9, home))
        before = Look(carry={"recovered_at": NOW})
        assert not failover_looks.assess_calm(before, other, home, RULES).calm
    calm = failover_looks.assess_calm(Look(carry={"recovered_at": NOW}), seen, home, RULES)
    assert calm.calm == 1


def test_what_is_half_made_names_each_step_that_is_missing_with_its_command() -> None:
    order = RAMP["order"]
    shifts = failover_looks.shifts(order)

    def said(steps: list[Any]) -> str:
        made = [
            Entry(id=str(n), kind="changed", text="Done", data={"step": step})
            for n, step in enumerate(steps)
        ]
        return failover_looks.effect_of(made, order)

    assert said([]) == ""
    half = said([one for one in order["steps"] if one["verb"] != "shift"])
    for step in shifts:
        assert step["sentence"] in half
        assert step["by_hand"] in half.partition("By hand instead: ")[2]
    assert half.index("Started again, I go on from here.") < half.index("Done and left so")
    assert "see that" not in half
    assert "Not done" not in said(order["steps"])
    # Of a plan made anew only what is new is missing, though its steps bear the same ids.
    assert f"Not done: {shifts[-1]['sentence']}" in said(
        [one for one in order["steps"] if one is not shifts[-1]]
    )


def test_it_has_to_stay_so() -> None:
    before = looks([replace(MOVED, now=NOW + 300 + 60 * n) for n in range(3)])[-1]
    look = Look(carry=before.carry)
    for n in range(3):
        look = failover_looks.assess_calm(look, replace(MOVED, now=NOW + 900 + n), PLANNED, RULES)
    assert look.verdict == "relieved"
    assert "stays so. Recovery time 7 min" in look.sentence
    look = Look(carry=before.carry)
    for _ in range(3):
        look = failover_looks.assess_calm(look, TROUBLE[6][0], PLANNED, RULES)
    assert look.verdict == "recurred"


def test_targets_are_kept_missed_or_unknown() -> None:
    late = failover_looks.measured(PLANNED, NOW + 3600)
    assert late.rto_seconds == 3720
    assert "Recovery time 62 min (target 15 min, missed)" in late.sentence
    unknown = {**PLANNED, "sick_since": None, "order": {**PLANNED["order"], "loss_seconds": None}}
    told = failover_looks.measured(unknown, NOW)
    assert told.rto_seconds is None
    assert told.rpo_seconds is None
    assert told.sentence.count("unknown") == 2


SEEN = st.builds(
    Seen,
    now=st.floats(NOW, NOW + 7200),
    period_seconds=st.just(60),
    goes_to=st.sampled_from(["primary", "standby"]),
    answers=st.dictionaries(
        st.sampled_from(SERVERS), st.sampled_from(["primary", "standby", "none", "other"])
    ),
    insync=st.sampled_from([None, True, False]),
    probes=st.dictionaries(st.sampled_from(["eu-west-1", "us-west-2"]), st.booleans()),
    traffic_share=st.none() | st.floats(0, 1),
    error_share=st.none() | st.floats(0, 1),
)


@given(st.lists(SEEN, min_size=1, max_size=8), st.sampled_from([PLANNED, RAMP]))
def test_nothing_is_called_relieved_that_was_not_seen_to_work(
    seen: list[Seen], planned: dict[str, Any]
) -> None:
    made = looks(seen, planned)
    if made[-1].verdict == "relieved":
        for one in seen[len(made) - 3 : len(made)]:
            assert set(one.answers.values()) == {one.goes_to}
            assert sum(one.probes.values()) * 2 > len(one.probes) > 0
            assert one.insync is not False


@given(st.lists(SEEN, min_size=1, max_size=4), st.sampled_from([PLANNED, RAMP]))
def test_every_watch_ends(seen: list[Seen], planned: dict[str, Any]) -> None:
    made = looks(seen * 200, planned)
    assert made[-1].verdict in {"relieved", "worse", "ineffective"}
