"""Diagnosis, plan and looks of a replay: what is in the way, how fast, when it stops."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall import contract as contracts
from oncall import elsewhere, queues, replays
from oncall.plans import Look, Plan
from oncall.replays import Consumer, Facts

CONTRACT = contracts.load("dlq-replay")
LIMITS, RULES = CONTRACT.limits, CONTRACT.verification
PREFIX = "arn:aws:sqs:us-east-1:123456789012"
NOW = 1_800_000_000.0

CONSUMER = Consumer(function="worker", failing_share=0.0, backlog=5, fate_seconds=900)
LETTERS = Facts(
    dlq="orders-dlq",
    dlq_arn=f"{PREFIX}:orders-dlq",
    period_seconds=60,
    now=NOW,
    fifo=False,
    visible=1000,
    in_flight=0,
    retention=1_209_600,
    kinds={"queue": 50},
    sources=(f"{PREFIX}:orders",),
    source=f"{PREFIX}:orders",
    sampled=50,
    classes={"replay": 48, "quarantine (expired)": 2},
    oldest_sent=NOW - 3600,
    destination=f"{PREFIX}:orders",
    destination_opted_in=True,
    destination_max_bytes=1_048_576,
    deployed_at=NOW - 600,
    consumer=CONSUMER,
)
"""A thousand letters of orders, an hour old; its consumer is healthy and was changed since."""


def the(**changed: Any) -> Facts:
    return replace(LETTERS, **changed)


def consumed(**changed: Any) -> Facts:
    return the(consumer=replace(CONSUMER, **changed))


def plan(facts: Facts, **limits: float) -> Plan:
    return replays.plan(replays.diagnose(facts, RULES), facts, {**LIMITS, **limits})


def document(facts: Facts = LETTERS) -> dict[str, Any]:
    return plan(facts).document(replays.diagnose(facts, RULES), replays.seen(facts))


def test_facts_survive_a_state_machine() -> None:
    read = replays.facts_from(json.loads(json.dumps(asdict(LETTERS))))
    assert json.dumps(asdict(read)) == json.dumps(asdict(LETTERS))
    assert read.consumer == CONSUMER


# What letters are of

SYSTEM = {"SentTimestamp": "1", "ApproximateReceiveCount": "6"}


@pytest.mark.parametrize(
    ("letter", "kind"),
    [
        ({"Attributes": {**SYSTEM, "DeadLetterQueueSourceArn": "arn"}, "Body": "x"}, "queue"),
        (
            {
                "Attributes": SYSTEM,
                "Body": "{}",
                "MessageAttributes": {"RequestID": {}, "ErrorCode": {}},
            },
            "function",
        ),
        ({"Attributes": SYSTEM, "Body": "{}", "MessageAttributes": {"RULE_ARN": {}}}, "rule"),
        ({"Attributes": SYSTEM, "Body": '{"failedMessages": []}'}, "record"),
        (
            {"Attributes": SYSTEM, "Body": '{"Type": "x", "TopicArn": "y", "Message": "z"}'},
            "topic",
        ),
        ({"Attributes": SYSTEM, "Body": "[]"}, "unknown"),
        ({"Attributes": SYSTEM, "Body": "not JSON"}, "unknown"),
        ({"Attributes": SYSTEM, "Body": "[" * 100_000}, "unknown"),
    ],
)
def test_a_letter_is_known_by_what_it_carries(letter: Mapping[str, Any], kind: str) -> None:
    assert replays.kind_of(letter) == kind


# Diagnosis


@pytest.mark.parametrize(
    ("facts", "cause", "words"),
    [
        (the(visible=0), "empty", "There is nothing to replay in orders-dlq."),
        (the(archive="run-1"), "empty", "There is nothing to replay in run-1."),
        (the(own_dlq="graveyard"), "own_dlq", "a dead-letter queue of its own, graveyard"),
        (the(rules_wrong="rules.0.then: no."), "bad_rules", "rules.0.then: no."),
        (
            the(kinds={"queue": 9, "topic": 1}),
            "several_kinds",
            "letters of an SQS queue, an SNS subscription, which go different ways",
        ),
        (
            the(kinds={"function": 9}, kind="function", destination=None, sources=()),
            "no_target",
            'say to whom they go, with {"dlq": "orders-dlq", "deliver_to": "checkout"}',
        ),
        (the(kinds={"rule": 9}, kind="rule", fifo=False, destination_fifo=True), "replayable", ""),
        (the(kinds={"record": 1}), "other_kind", "which are not the events themselves"),
        (the(kinds={"unknown": 1}), "other_kind", "does not say where it comes from"),
        (
            the(destination=None, sources=(f"{PREFIX}:a", f"{PREFIX}:b")),
            "several_sources",
            'the letters of a, b: start one run for each, with {"dlq": "orders-dlq", "source"',
        ),
        (the(destination=None, sources=()), "no_source", "No SQS queue names orders-dlq"),
        (
            the(destination=None),
            "other_source",
            'the letters of orders, not of the queue that was named: start it with {"dlq": ',
        ),
        (the(destination_opted_in=False), "not_opted_in", "orders is not opted in"),
        (the(owners_rate_wrong="orders' tag says 'fast'."), "bad_rate", "orders' tag says 'fast'."),
        (the(destination_fifo=True), "other_type", "are not both FIFO"),
        (the(destination=f"{PREFIX}:orders-dlq"), "itself", "is the dead-letter queue itself"),
        (
            the(destination="arn:aws:lambda:us-east-1:123456789012:function:checkout"),
            "no_queue",
            "checkout is a function: leave deliver_to out, or give a queue's ARN.",
        ),
        (
            the(destination="arn:aws:sqs:eu-west-1:1:x", destination_opted_in=False),
            "not_listed",
            "Add arn:aws:sqs:eu-west-1:1:x to ReplayDestinations in samconfig.toml",
        ),
        (the(destination_trouble="There is no queue."), "unreachable", "There is no queue."),
        (consumed(state="disabled"), "consumer_disabled", "worker's consumer is disabled"),
        (consumed(reserved=0), "consumer_stopped", "somebody has stopped it"),
        (consumed(failing_share=0.5), "consumer_failing", "50% of worker's work fails now"),
        (consumed(slow=True), "consumer_slow", "takes nearly its timeout"),
        (LETTERS, "replayable", "worker works and was changed since the oldest of them failed"),
        (the(deployed_at=NOW - 9999), "replayable", "worker works: its 1000 letters"),
        (consumed(function=None), "replayable", "1000 letters can go back to orders"),
        (the(consumer=None), "replayable", "1000 letters can go back to orders"),
    ],
)
def test_what_is_in_the_way_is_named(facts: Facts, cause: str, words: str) -> None:
    found = replays.diagnose(facts, RULES)
    assert found.cause == cause
    assert words in found.sentence
    assert found.evidence == replays.evidence(facts)


def test_the_evidence_holds_the_numbers() -> None:
    facts = the(rules=({"name": "a"},), rules_from="/orders/rules")
    assert replays.evidence(facts) == (
        "1000 letters waiting, 0 in flight, oldest 60 min old, lost in 14 days",
        "sample of 50: 48 replay, 2 quarantine (expired)",
        "letters of orders",
        "1 rules from /orders/rules",
        "orders: 5 waiting or in flight; worker enabled, failing 0%, changed 10 min ago",
    )
    from_archive = replays.evidence(the(archive="run-1", archived=7))
    assert from_archive[-1] == "7 letters in the archive of run-1"
    bare = replays.evidence(the(oldest_sent=None, sampled=0, classes={}, consumer=None, sources=()))
    assert bare == (
        "1000 letters waiting, 0 in flight, oldest unknown",
        "sample of 0: nothing received",
        "letters of an SQS queue",
    )


def test_a_queues_consumer_is_judged_by_what_it_was_called_for() -> None:
    facts = queues.Facts(
        queue="orders",
        queue_arn=f"{PREFIX}:orders",
        period_seconds=60,
        fifo=False,
        visible=3,
        in_flight=2,
        delayed=0,
        visibility_timeout=180,
        max_receive_count=5,
        dlq="orders-dlq",
        dlq_visible=1000,
        mappings=1,
        mapping_state="Enabled",
        function="worker",
        function_timeout=30,
        usual_work=500.0,
        invocations=(120,) * 5,
        errors=(0,) * 5,
        received=(10,) * 5,
        deleted=(0,) * 5,
        duration=(5_000,) * 5,
    )
    assert replays.consumer_of(facts, RULES) == CONSUMER
    bare = replace(facts, invocations=(), mappings=0, mapping_state="", function=None, received=())
    assert replays.consumer_of(bare, RULES) == Consumer(backlog=5, fate_seconds=900)
    failing = replace(facts, errors=(60,) * 5, reserved=3)
    assert replays.consumer_of(failing, RULES).failing_share == 0.5
    assert replays.consumer_of(failing, RULES).reserved == 3


# Another queue, account or Region

THERE = "arn:aws:sqs:eu-central-1:310000000001:orders"
ELSEWHERE = the(destination=THERE, consumer=Consumer(backlog=5), deployed_at=None, idempotent=False)


@pytest.mark.parametrize(
    ("arn", "is_there"),
    [
        (f"{PREFIX}:orders", False),
        ("arn:aws:sqs:eu-west-1:123456789012:orders", True),
        ("arn:aws:sqs:us-east-1:310000000001:orders", True),
        ("arn:aws:lambda:eu-west-1:310000000001:function:worker", False),
    ],
)
def test_a_queue_of_another_account_or_region_is_elsewhere(arn: str, is_there: bool) -> None:  # noqa: FBT001 -- a parameter of the test, not a switch
    assert elsewhere.is_elsewhere(f"{PREFIX}:orders-dlq", arn) is is_there


def test_a_replay_elsewhere_always_asks_and_says_where_to_and_what_is_not_seen() -> None:
    for facts in (ELSEWHERE, replace(ELSEWHERE, idempotent=True, drops=True)):
        assert plan(facts).action == "replay_elsewhere"
    said = plan(ELSEWHERE).sentence
    assert (
        "replay 10 to orders (account 310000000001, eu-central-1), see that they are taken" in said
    )
    assert (
        "It goes to account 310000000001, eu-central-1: what fails there does not come back" in said
    )
    assert "of it I see only how many wait." in said
    blind = plan(replace(ELSEWHERE, consumer=None)).sentence
    assert "see that they are accepted" in blind
    assert "of it I see nothing, not even how many wait." in blind
    assert replays.evidence(ELSEWHERE)[-1] == (
        "orders (account 310000000001, eu-central-1): 5 waiting or in flight; "
        "its consumer is not seen"
    )


def test_another_queue_than_the_letters_own_is_asked_about_here_too() -> None:
    assert plan(the(destination=f"{PREFIX}:others", idempotent=True)).action == "replay_elsewhere"
    of_topic = the(destination=f"{PREFIX}:others", kind="topic", kinds={"topic": 9})
    assert plan(replace(of_topic, idempotent=True)).action == "replay"


def test_a_replay_elsewhere_ends_by_saying_what_nobody_knows() -> None:
    planned = document(ELSEWHERE)
    started = look(FIRST, replace(ELSEWHERE, visible=990), CANARY, planned=planned)
    rest = tally("empty", archived=990, replayed=990)
    done = look(started, replace(ELSEWHERE, visible=0), rest, planned=planned)
    assert done.sentence == (
        "orders-dlq is worked off, though nobody here sees what orders (account 310000000001, "
        "eu-central-1) makes of them: 1000 replayed."
    )


def test_a_backlog_elsewhere_that_grows_holds_the_canary() -> None:
    grown = replace(ELSEWHERE, visible=990, consumer=Consumer(backlog=15))
    assert look(FIRST, grown, CANARY, planned=document(ELSEWHERE)).verdict == "wait"


# Plan


def test_a_replay_is_planned_with_its_numbers() -> None:
    found = plan(LETTERS)
    assert found.action == "replay_undeclared"
    assert found.changes == ()
    assert found.acts
    assert found.order["canary"] == 10
    assert found.order["workers"] == 4
    assert found.order["max_rate"] == 1000
    assert found.order["destination"] == f"{PREFIX}:orders"
    assert found.sentence == (
        "Archive every letter, replay 10 to orders, see that they do not come back, then the rest "
        "at 10/s up to 1000/s: about 12 min. Of 50 sampled: 2 quarantine (expired)."
    )


def test_what_is_approved_is_hashed() -> None:
    assert document()["hash"] != document(the(visible=1001))["hash"]
    assert document()["hash"] == document(the(in_flight=9))["hash"]


def test_only_what_its_owner_calls_idempotent_may_go_alone() -> None:
    assert plan(the(idempotent=True)).action == "replay"
    assert plan(the(idempotent=True, drops=True)).action == "replay_and_drop"
    assert set(CONTRACT.modes["always_ask"]) == {
        "replay_undeclared",
        "replay_and_drop",
        "replay_faster",
        "replay_elsewhere",
        "replay_unarchived",
    }


def test_a_fifo_queue_has_one_worker_and_a_lower_rate() -> None:
    order = plan(the(fifo=True, destination_fifo=True)).order
    assert (order["workers"], order["max_rate"]) == (1, 100)


def test_a_replay_that_cannot_end_in_time_is_a_humans() -> None:
    found = plan(the(visible=100_000_000))
    assert found.action == "human"
    assert "at 8000/s, the most that I may, and a run has no more than 3.0 h" in found.sentence
    late = plan(the(oldest_sent=NOW - 1_209_600 + 300))
    assert late.action == "human"
    assert "The oldest letter is lost in 5 min, and 1000 take 12 min at 8000/s" in late.sentence
    assert "MessageRetentionPeriod=1209600" in late.sentence


def test_a_rate_above_the_usual_is_asked_for_where_the_usual_is_too_slow() -> None:
    expires = the(visible=2_000_000, idempotent=True, oldest_sent=NOW - 1_209_600 + 3600)
    found = plan(expires)
    assert (found.action, found.order["max_rate"]) == ("replay_faster", 2000)
    assert found.sentence.endswith(
        "up to 2000/s: about 47 min. At the usual 1000/s it takes 61 min, longer than there is: "
        "the oldest letter is lost in 60 min. Of 50 sampled: 2 quarantine (expired)."
    )
    long = plan(the(visible=20_000_000, idempotent=True))
    assert (long.action, long.order["max_rate"]) == ("replay_faster", 4000)
    assert "At the usual 1000/s it takes 6.0 h, longer than a run may last." in long.sentence


def test_neither_a_fifo_queue_nor_one_whose_owner_has_set_a_rate_goes_faster() -> None:
    expires = the(visible=2_000_000, oldest_sent=NOW - 1_209_600 + 3600)
    fifo = replace(expires, fifo=True, destination_fifo=True)
    assert "at 100/s, the most that I may" in plan(fifo).sentence
    assert "at 50/s, the most that I may" in plan(replace(expires, owners_rate=50)).sentence


def test_an_owners_rate_is_never_exceeded() -> None:
    order = plan(the(owners_rate=4)).order
    assert (order["first_rate"], order["max_rate"]) == (4, 4)
    assert plan(the(owners_rate=5000)).order["max_rate"] == 1000


def test_letters_in_the_archive_do_not_expire() -> None:
    kept = the(archive="run-0", archived=40, visible=0, oldest_sent=NOW - 90 * 86_400)
    assert plan(kept).action == "replay_undeclared"
    assert replays.evidence(kept)[0].endswith("oldest 90 days old")


@given(letters=st.integers(1, 50_000_000), first=st.integers(1, 100), most=st.integers(1, 5000))
def test_the_time_it_takes_is_that_of_its_rounds(letters: int, first: int, most: int) -> None:
    limits = {**LIMITS, "first_rate": first, "max_rate": most, "highest_rate": most}
    length, seconds = limits["round_periods"] * 60, limits["canary_periods"] * 60.0
    left = float(letters)
    rate = float(first)
    while left > 0 and rate < most:
        now = min(left, rate * length)
        seconds += now / rate
        left -= now
        rate *= 2
    seconds += left / most if left > 0 else 0
    found = replays.plan(
        replays.diagnose(the(visible=letters), RULES),
        the(visible=letters, retention=10**9),
        {**limits, "share_of_run": 10**9},
    )
    assert found.predicted_seconds == math.ceil(seconds)


def test_an_empty_queue_is_watched_and_everything_else_is_a_humans() -> None:
    assert plan(the(visible=0)).action == "watch"
    assert plan(the(archive="no-such-run")).action == "human"
    found = plan(the(own_dlq="graveyard"))
    assert (found.action, found.order) == ("human", {})
    assert found.sentence.endswith("I have replayed nothing.")


# Looks

PLAN = document()
FIRST = Look()


def tally(ended: str = "limit", **counts: Any) -> dict[str, Any]:
    zero = {
        "archived": 0,
        "replayed": 0,
        "quarantined": 0,
        "dropped": 0,
        "bounced": 0,
        "possible_duplicates": 0,
        "left": {},
    }
    return {**zero, **counts, "ended": ended}


CANARY = tally(archived=10, replayed=10)


def look(
    before: Look, facts: Facts, *tallies: Mapping[str, Any], planned: Mapping[str, Any] = PLAN
) -> Look:
    return replays.assess(before, facts, tallies, planned, RULES, incident="run-1")


def test_a_canary_that_is_worked_off_lets_the_rest_follow() -> None:
    waits = look(FIRST, replace(consumed(backlog=15), visible=990), CANARY)
    assert (waits.verdict, waits.sentence) == ("wait", "10 letters of the canary still wait.")
    goes = look(waits, the(visible=990))
    assert goes.verdict == "go"
    assert goes.carry["rate"] == 10
    assert goes.carry["workers"] == 1
    assert goes.carry["effect"] == ("10 letters replayed; all of them are in the archive of run-1.")


def test_a_canary_that_nothing_takes_ends_the_replay() -> None:
    found = look(FIRST, replace(consumed(backlog=15), visible=990), CANARY)
    while found.verdict == "wait":
        found = look(found, replace(consumed(backlog=15), visible=990))
    assert (found.number, found.verdict) == (11, "ineffective")
    assert "still wait in orders after 11 looks: nothing takes them" in found.sentence


def test_a_canary_that_comes_back_ends_the_replay() -> None:
    found = look(FIRST, the(visible=993), CANARY)
    assert found.verdict == "worse"
    assert found.sentence == (
        "3 letters have come into orders-dlq, 10 were replayed. I have stopped."
    )
    assert look(FIRST, the(visible=992), CANARY).verdict == "go"
    met = tally(archived=13, replayed=10, bounced=3, quarantined=3)
    assert look(FIRST, the(visible=990), met).verdict == "worse"
    met = tally(archived=12, replayed=10, bounced=2, quarantined=2)
    assert look(FIRST, the(visible=990), met).verdict == "go"


@pytest.mark.parametrize(
    ("sampled", "back", "new", "verdict"),
    [
        (50, 0, 5, "go"),  # they have died for the first time
        (50, 5, 5, "worse"),  # half of twenty that have come
        (50, 1, 9, "go"),  # a tenth of twenty
        (50, 0, 0, "worse"),  # none of them was met, so nobody knows
        (1010, 2, 0, "go"),  # all were met
        (1010, 3, 0, "worse"),
    ],
)
def test_a_sample_tells_what_has_come_back_from_what_is_new(
    sampled: int, back: int, new: int, verdict: str
) -> None:
    arrived = replays.Arrived(sampled, back, new)
    facts = the(visible=1010, arrived=arrived)
    assert replays.needs_sample(replays.add_up({}, [CANARY]), facts, PLAN, RULES)
    found = look(FIRST, facts, CANARY)
    assert found.verdict == verdict
    if verdict == "worse":
        assert "of the replayed letters are back in orders-dlq, 10 were replayed" in found.sentence


def test_a_few_that_have_come_are_not_looked_at() -> None:
    total = replays.add_up({}, [CANARY])
    assert not replays.needs_sample(total, the(visible=992), PLAN, RULES)
    assert not replays.needs_sample(total, the(visible=10_000), document(the(visible=0)), RULES)


def test_a_consumer_that_begins_to_fail_ends_the_replay() -> None:
    found = look(FIRST, replace(consumed(failing_share=0.5), visible=990), CANARY)
    assert found.verdict == "worse"
    assert "50% of worker's work fails now, 0% before." in found.sentence


def test_each_good_round_doubles_the_rate_up_to_the_most() -> None:
    found, rates, left = look(FIRST, the(visible=990), CANARY), [], 990
    for _ in range(9):
        rates.append((found.carry["rate"], found.carry["workers"]))
        left -= 10
        found = look(found, the(visible=left), tally(archived=10, replayed=10))
    assert rates == [
        *[(rate, 1) for rate in (10, 20, 40, 80, 160, 320, 640)],
        (1000, 4),
        (1000, 4),
    ]


def test_a_backlog_at_the_consumer_halves_the_rate_and_ends_the_replay_at_last() -> None:
    started = look(FIRST, the(visible=990), CANARY)
    busy = replace(consumed(backlog=605), visible=390)
    found = look(started, busy, tally(archived=600, replayed=600))
    assert found.verdict == "wait"
    assert "600 wait in orders; I hold, and go on at 5/s." in found.sentence
    eased = look(found, the(visible=390))
    assert (eased.verdict, eased.carry["rate"]) == ("go", 10)
    for _ in range(5):
        found = look(found, busy)
    assert found.verdict == "ineffective"
    assert "600 letters pile up in orders" in found.sentence


def test_all_is_done_when_the_workers_found_it_empty_and_nothing_lies_there() -> None:
    started = look(FIRST, the(visible=990), CANARY)
    rest = tally("empty", archived=990, replayed=980, quarantined=5, dropped=3, left={"a": 2})
    found = look(started, the(visible=0, in_flight=2), rest)
    assert (found.verdict, found.done) == ("relieved", 1.0)
    assert found.sentence == (
        "orders-dlq is worked off: 990 replayed, 5 quarantined, 3 dropped, 2 left."
    )
    assert found.carry["effect"] == (
        "990 letters replayed, 5 quarantined, 3 dropped, 2 left in orders-dlq; all of them are in "
        "the archive of run-1."
    )
    more = look(started, the(visible=1, in_flight=1), rest)
    assert more.verdict == "go"
    half = look(started, the(visible=0), rest, tally("deadline"))
    assert half.verdict == "go"


def test_letters_in_a_dead_workers_hand_are_waited_for() -> None:
    started = look(FIRST, the(visible=990), CANARY)
    rest = tally("empty", archived=980, replayed=978, left={"a": 2})
    found = look(started, the(visible=0, in_flight=12), rest)
    assert found.verdict == "wait"
    assert "10 letters are in flight" in found.sentence
    assert look(found, the(visible=10)).verdict == "go"
    for _ in range(6):  # minutes: longer than a worker's letters are hidden
        found = look(found, the(visible=0, in_flight=12))
    assert found.verdict == "ineffective"
    assert "somebody else receives from orders-dlq" in found.sentence


def test_a_destination_that_takes_nothing_ends_the_replay() -> None:
    refused = tally(archived=10, left={"AccessDenied": 9, "too_large": 1})
    found = look(FIRST, the(visible=990), refused)
    assert found.verdict == "worse"
    assert found.sentence == "orders takes none of them: AccessDenied. I have stopped."
    assert look(FIRST, the(visible=990), tally(archived=10, left={"too_large": 10})).verdict == "go"
    one = tally(archived=10, replayed=9, left={"InvalidMessageContents": 1})
    assert look(FIRST, the(visible=990), one).verdict == "go"


def test_a_queue_that_was_empty_is_planned_anew_when_letters_come() -> None:
    watched = document(the(visible=0))
    quiet = look(FIRST, the(visible=0), planned=watched)
    assert (quiet.verdict, quiet.sentence) == ("relieved", "orders-dlq is empty.")
    ends = _calm(replace(quiet, number=99), the(visible=0), watched)
    assert (ends.verdict, ends.sentence) == ("relieved", "orders-dlq is empty and stays so.")
    assert look(FIRST, the(visible=1), planned=watched).verdict == "ineffective"


def test_what_a_dead_worker_may_have_sent_is_told_as_far_as_it_is_known() -> None:
    total = {"archived": 9, "replayed": 4, "quarantined": 0, "dropped": 0, "left": 0}
    assert replays.effect({**total, "unsure": 5}, "orders-dlq", "run-1") == (
        "4 letters replayed, up to 5 more by a worker that died, what it has not sent lies in "
        "orders-dlq; all of them are in the archive of run-1."
    )


def test_what_a_round_moves_is_told_even_if_nobody_counts_it() -> None:
    once = replays.under_way("10 letters replayed.", "run-1")
    assert once == (
        "10 letters replayed. A round was under way: the archive of run-1 tells what became of it."
    )
    assert replays.under_way(once, "run-1") == once


def test_a_replay_from_the_archive_leaves_the_queue_out_of_account() -> None:
    planned = document(the(archive="run-0", archived=40))
    assert planned["letters"] == 40
    found = look(FIRST, LETTERS, CANARY, planned=planned)
    assert found.verdict == "go"
    assert look(FIRST, the(visible=1003), CANARY, planned=planned).verdict == "worse"


def _calm(before: Look, facts: Facts, planned: Mapping[str, Any] = PLAN) -> Look:
    return replays.assess_calm(before, facts, planned, RULES, incident="run-1")


def calm(count: int, facts: Facts, planned: Mapping[str, Any] = PLAN) -> list[Look]:
    rest = tally("empty", archived=990, replayed=990)
    before = look(look(FIRST, the(visible=990), CANARY), the(visible=0), rest)
    found = [replace(before, number=0)]
    for _ in range(count):
        found.append(_calm(found[-1], facts, planned))
        if found[-1].verdict != "wait":
            break
    return found[1:]


def test_it_watches_as_long_as_a_letter_needs_to_come_back() -> None:
    found = calm(99, the(visible=0))
    assert (found[-1].number, found[-1].verdict) == (15, "relieved")  # 5 x 180 s
    assert found[-1].sentence == "orders-dlq is worked off and stays so: 1000 replayed."
    quick = document(consumed(fate_seconds=5))
    assert calm(99, the(visible=0), quick)[-1].number == 3
    slow = document(consumed(fate_seconds=216_000))
    assert calm(99, the(visible=0), slow)[-1].number == 20


def test_what_a_dead_worker_has_deleted_hides_nothing_that_comes_back() -> None:
    died = {"archived": 1000, "replayed": 500, "quarantined": 0, "dropped": 0, "left": 0}
    carry = {"total": {**died, "unknown": 500}, "rate": 10, "effect": "", "rounds": 1}
    found = _calm(Look(carry=carry), the(visible=0))
    assert found.carry["effect"].startswith("500 letters replayed, 500 of a worker that died")
    assert _calm(Look(carry=carry), the(visible=51)).verdict == "recurred"


def test_letters_that_come_back_afterwards_have_recurred() -> None:
    found = calm(99, the(visible=101))
    assert (found[-1].number, found[-1].verdict) == (1, "recurred")
    assert found[-1].sentence.endswith("The cause is not mended.")
    assert calm(99, the(visible=100))[-1].verdict == "relieved"


@settings(max_examples=200)
@given(
    depths=st.lists(st.integers(0, 1200), min_size=1, max_size=20),
    backlogs=st.lists(st.integers(0, 500), min_size=1, max_size=7),
    moved=st.lists(st.integers(0, 300), min_size=1, max_size=5),
)
def test_every_replay_ends_or_moves_on(
    depths: Sequence[int], backlogs: Sequence[int], moved: Sequence[int]
) -> None:
    """Looks alone never go round for ever: each asks for a round, waits a while, or ends it."""
    found, waits = FIRST, 0
    for at in range(200):
        facts = replace(
            consumed(backlog=5 + backlogs[at % len(backlogs)]), visible=depths[at % len(depths)]
        )
        count = moved[at % len(moved)]
        rounds = [tally(archived=count, replayed=count)] if found.verdict in {"", "go"} else []
        found = look(found, facts, *rounds)
        assert 0 <= found.done <= 1
        assert found.carry["rate"] <= LIMITS["max_rate"]
        if found.verdict not in {"wait", "go"}:
            assert found.verdict in {"relieved", "worse", "ineffective"}
            return
        waits = waits + 1 if found.verdict == "wait" else 0
        assert waits <= LIMITS["canary_periods"] + RULES["patience_periods"]
