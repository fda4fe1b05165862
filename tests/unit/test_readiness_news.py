"""What people are told of a service's readiness: what is news, the worst first, and what to do."""

import pytest

from oncall import readiness_news
from oncall.messages import MAX_REPLY
from oncall.readiness_news import headline, mail, message, news
from oncall.readiness_seen import Finding


def one(name: str, verdict: str, sentence: str = "Mend it: `x`.") -> Finding:
    return Finding(name, verdict, None, sentence)


def test_at_first_what_is_not_well_is_news_the_worst_first() -> None:
    found = (one("a", "ok"), one("b", "warn"), one("c", "bad"), one("d", "unknown"))
    assert [(it.was, it.now.name) for it in news((), found)] == [("", "c"), ("", "d"), ("", "b")]


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        (one("a", "ok"), one("a", "bad"), True),
        (one("a", "bad"), one("a", "ok"), True),
        (one("a", "bad"), one("a", "bad"), False),
        (one("a", "bad"), one("a", "bad", "Another."), True),
        (one("a", "ok"), one("a", "ok", "Another."), False),
        (Finding("a", "bad", 1.0, "x."), Finding("a", "bad", 2.0, "x."), False),
    ],
)
def test_news_is_what_has_changed_but_for_what_is_well_all_along(
    was: Finding,
    now: Finding,
    told: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    assert [it.now for it in news((was,), (now,))] == ([now] if told else [])


def test_a_message_says_was_and_is_and_what_to_do_and_mentions_nobody() -> None:
    found = (
        one("data:shop", "ok", "In step."),
        one("iam:standby", "bad", "<!channel> `aws iam x`"),
    )
    text = message("shop", found, news((one("data:shop", "bad"),), found)).text
    assert text.splitlines() == [
        "*🔴 shop could not be failed over as it is*",
        "• `iam:standby` bad: &lt;!channel&gt; `aws iam x`",
        "• `data:shop` bad → ok: In step.",
        "All of it: `runbook doctor shop`",
    ]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("ok", "warn", "unknown", "bad"), "🔴 shop could not be failed over as it is"),
        (("ok", "warn", "unknown"), "🟠 shop may not be ready"),
        (("ok", "warn"), "🟠 shop could be failed over, not as well as it should"),
        (("ok",), "🟢 shop could be failed over"),
    ],
)
def test_the_headline_is_by_all_that_was_found(verdicts: tuple[str, ...], said: str) -> None:
    assert headline("shop", [one(str(n), it) for n, it in enumerate(verdicts)]).startswith(said)


def test_a_long_message_keeps_the_worst_and_says_how_many_are_left() -> None:
    found = [one(f"n{n}", "bad" if n == 39 else "warn", "long " * 60) for n in range(40)]
    text = message("shop", found, news((), found)).text
    assert len(text) <= MAX_REPLY
    first, *_, left, end = text.splitlines()[1:]
    assert first.startswith("• `n39` bad")
    kept = text.count("• ")
    assert left == f"… and {40 - kept} more."
    assert end == "All of it: `runbook doctor shop`"


def test_a_mail_has_a_subject_that_sns_takes_and_the_same_lines() -> None:
    found = (one("file", "bad", "runbooks/services/a.yaml: x"),)
    subject, text = mail("é" * 120, found, news((), found))
    assert subject.isascii()
    assert 0 < len(subject) < 100
    assert "- file bad: runbooks/services/a.yaml: x" in text
    assert "All of it: runbook doctor" in text


def test_what_is_written_is_read_back() -> None:
    found = (Finding("a", "bad", 1.5, "x."), Finding("b", "ok", None, "y."))
    assert readiness_news.read(readiness_news.written("eu-west-1", found)) == found
    assert readiness_news.read({}) == ()
