"""Replays without copies: when SQS's own move task suffices, what is asked, how it is counted."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from oncall import replays, unarchived
from oncall.unarchived import Count
from tests.unit.test_replays import CONTRACT, LETTERS, LIMITS, NOW, PREFIX, RULES

if TYPE_CHECKING:
    from oncall.replays import Facts

FORBIDDEN = replace(
    LETTERS, archive_tag="never", classes={"replay": 50}, idempotent=True, oldest_sent=NOW - 60
)


def test_sqs_moves_what_may_not_be_copied_and_a_human_is_always_asked() -> None:
    plan = replays.plan(replays.diagnose(FORBIDDEN, RULES), FORBIDDEN, LIMITS)
    assert plan.action in CONTRACT.modes["always_ask"]
    assert unarchived.is_native(plan.order)
    assert (plan.order["max_rate"], plan.order["workers"]) == (500, 1)
    assert plan.sentence == (
        "SQS itself moves about 10 back to orders, then, if they do not come back, the rest at "
        "10/s up to 500/s: about 12 min. Copies are forbidden (runbook:archive=never): none of it "
        "is archived, the letters bear no mark, what comes back shows only in the queue's depth, "
        "and the accounting is by count only."
    )


def test_what_may_be_copied_is_not_moved_by_sqs() -> None:
    plan = replays.plan(replays.diagnose(LETTERS, RULES), LETTERS, LIMITS)
    assert not unarchived.is_native(plan.order)
    assert not unarchived.is_native({})


def test_a_fifo_queue_keeps_its_lower_rate() -> None:
    fifo = replace(FORBIDDEN, fifo=True, destination_fifo=True)
    assert replays.plan(replays.diagnose(fifo, RULES), fifo, LIMITS).order["max_rate"] == 100


@pytest.mark.parametrize(
    ("changed", "cause", "words"),
    [
        (
            {"archive_tag": "nevr"},
            "bad_archive_tag",
            (
                "The tag runbook:archive of orders-dlq says 'nevr', which I do not know: set "
                "runbook:archive=never to forbid copies"
            ),
        ),
        (
            {"archive": "run-0", "archived": 3},
            "unarchived_from_archive",
            (
                "The owner of orders-dlq forbids copies (runbook:archive=never), and run-0 is an "
                "archive: start me without from_archive."
            ),
        ),
        (
            {"kinds": {"function": 9}, "kind": "function"},
            "unarchived_kind",
            "takes only letters of an SQS queue",
        ),
        (
            {"sources": (f"{PREFIX}:a", f"{PREFIX}:b"), "source": f"{PREFIX}:a"},
            "unarchived_sources",
            "does not tell the letters of a, b apart",
        ),
        (
            {"rules": ({"name": "a"},), "rules_from": "/orders/rules"},
            "unarchived_rules",
            "keeps none back, but rules stand in /orders/rules",
        ),
        (
            {"classes": {"replay": 1, "leave (too_large)": 1}},
            "unarchived_kept_back",
            "keeps none back, but the sample has leave (too_large)",
        ),
        ({"archive_tag": "nevr", "visible": 0}, "empty", "There is nothing to replay"),
    ],
)
def test_where_it_does_not_suffice_it_is_a_humans(
    changed: dict[str, Any], cause: str, words: str
) -> None:
    facts: Facts = replace(FORBIDDEN, **changed)
    found = replays.diagnose(facts, RULES)
    assert found.cause == cause
    assert words in found.sentence
    plan = replays.plan(found, facts, LIMITS)
    assert plan.action == ("watch" if cause == "empty" else "human")
    assert not plan.order


def test_any_word_in_the_tag_forbids_the_mover_to_copy() -> None:
    assert unarchived.forbidden({"runbook:archive": "nevr"})
    assert not unarchived.forbidden({"runbook-automation": "enabled"})


def test_what_was_moved_is_told_as_a_count() -> None:
    said = replays.effect({"archived": 0, "replayed": 14}, "orders-dlq", "run-1")
    assert said == "14 letters replayed, by count only; nothing is archived."
    assert not replays.effect({}, "orders-dlq", "run-1")
    ways = unarchived.how_to_end(f"{PREFIX}:orders-dlq")
    once = replays.under_way(said, "run-1", ways)
    assert once.startswith(f"{said} A round was under way: `aws sqs list-message-move-tasks")
    assert "the archive of" not in once
    assert replays.under_way(once, "run-1", ways) == once


@pytest.mark.parametrize(
    ("count", "differs", "said"),
    [
        (
            Count(14, 14, 0),
            False,
            "By count only: 14 lay there, SQS moved 14, 0 lie there. Nothing is archived.",
        ),
        (Count(14, 14, 3), False, "3 lie there; 3 have come in since. Nothing is archived."),
        (Count(14, 12, 0), False, "0 lie there; 2 are short: expired, taken by somebody else"),
        (Count(14, 11, 0), True, "3 are short"),
        (Count(1000, 910, 0), False, "90 are short"),
        (Count(1000, 500, 0), True, "500 are short"),
    ],
)
def test_the_account_is_by_count(count: Count, differs: bool, said: str) -> None:  # noqa: FBT001 -- a parameter of the test, not a switch
    assert said in unarchived.told(count)
    assert unarchived.differs(count, RULES) is differs
