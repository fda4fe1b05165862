from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from cli.app import main
from cli.incidents import duration, read_input, row
from cli.outcomes import exit_code
from cli.play import Viewing, code_of, play_story, told
from local.emulator import running_aws
from local.pagerduty import FakePagerDuty
from local.play import Played
from local.slack import FakeSlack
from local.stories import STORIES, in_mode
from oncall.errors import BadInput
from oncall.incident import Incident
from oncall.times import iso, parse, utc_now
from tests.unit.closed import START, an_incident, at

WORKS = "runbook run queue-saturation queue=orders"
QUEUE = "the saturated queue, by name, URL or ARN, in this account and region"


def played(incident: Incident | None, **fields: Any) -> Played:
    values = {
        "story": STORIES["queue-saturation"],
        "incident": incident,
        "slack": FakeSlack(),
        "pagerduty": FakePagerDuty(),
        "trouble_at": parse(START),
        "now": {("mapping-concurrency", "arn:m"): 2},
    }
    return Played(**{**values, **fields})


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("resolved", 0),
        ("observed", 0),
        ("failed", 1),
        ("ineffective", 1),
        ("refused", 1),
        ("something new", 1),
        ("rejected", 3),
        ("timed_out", 3),
        ("handed_over", 4),
        ("aborted", 5),
    ],
)
def test_each_outcome_has_its_exit_code(outcome: str, code: int) -> None:
    assert exit_code(outcome) == code


@pytest.mark.parametrize(
    ("outcome", "left", "code"),
    [
        ("resolved", (), 0),
        ("resolved", ("a lock is held: TARGET#orders",), 1),
        ("observed", (), 1),
        ("refused", (), 1),
        ("handed_over", (), 4),
        ("aborted", ("a setting is leased: x",), 5),
    ],
)
def test_a_play_succeeds_only_resolved_with_nothing_left(
    outcome: str, left: tuple[str, ...], code: int
) -> None:
    assert code_of(played(an_incident(outcome=outcome), left=left)) == code


def test_a_play_that_was_to_observe_succeeds_when_it_has_observed() -> None:
    observing = in_mode(STORIES["queue-saturation"], "observe")
    assert code_of(played(an_incident(outcome="observed"), story=observing)) == 0
    assert code_of(played(an_incident(outcome="observed"))) != 0
    assert code_of(played(an_incident(outcome="refused"), story=observing)) == 1


def test_there_is_no_port_without_a_page() -> None:
    ended = CliRunner().invoke(main, ["play", "kill-switch", "--headless", "--port", "8080"])
    assert ended.exit_code == 2
    assert "--port: there is no page with --headless." in ended.output


@pytest.mark.parametrize(
    ("words", "viewing"),
    [
        ([], Viewing(port=None, stays=True)),
        (["--headless"], Viewing(port=None, stays=True)),
        (["--port", "0"], Viewing(port=0, stays=True)),
        (["--port", "8080", "--exit"], Viewing(port=8080, stays=False)),
    ],
)
def test_without_a_terminal_there_is_a_page_only_on_request(
    words: list[str], viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def play(_story: str, **options: Any) -> int:
        asked.append(options["viewing"])
        return 0

    monkeypatch.setattr("cli.play.play_story", play)
    assert CliRunner().invoke(main, ["play", "kill-switch", *words]).exit_code == 0
    assert asked == [viewing]


def test_a_play_that_is_overdue_fails_even_if_the_incident_is_resolved() -> None:
    assert code_of(played(an_incident(), overdue="Nobody was told.")) == 3
    assert code_of(played(None)) == 3


def test_the_last_line_gives_the_times() -> None:
    assert told(played(an_incident())).splitlines()[-1] == (
        "Resolved: alarm after 3 s, first change after 7 s, drained after 20 s, closed after 30 s; "
        "nothing is left changed, locked or leased."
    )


def test_a_story_says_in_its_own_word_when_the_trouble_was_over() -> None:
    told_of = played(an_incident(), story=STORIES["lambda-throttles"])

    assert ", relieved after 20 s," in told(told_of).splitlines()[-1]


def test_a_run_that_changes_no_setting_tells_what_it_did_and_when_that_was_over() -> None:
    entries = tuple(e for e in an_incident().entries if e.kind not in {"changed", "put_back"})
    effect = "37 letters replayed; all of them are in the archive of one."
    replayed = an_incident(entries=entries, changes=(), progress={"effect": effect})

    text = told(played(replayed, story=STORIES["dlq-replay"]))

    assert f"Changes: {effect}" in text.splitlines()
    assert ": alarm after 3 s, worked off after 20 s, closed after 30 s;" in text.splitlines()[-1]
    handed_over = played(replace(replayed, outcome="handed_over"))
    assert handed_over.relieved_after is None


def test_the_help_names_every_story() -> None:
    shown = CliRunner().invoke(main, ["play", "--help"]).output

    assert [name for name in STORIES if name not in shown] == []


def test_the_last_line_gives_no_times_for_what_never_happened() -> None:
    refused = an_incident(outcome="refused", entries=(), changes=(), closed_at=at(4))

    assert told(played(refused, left=("x",))).splitlines()[-1] == (
        "Refused: alarm after 3 s, closed after 4 s; something is left behind."
    )


def test_a_change_is_told_with_its_live_value() -> None:
    now = {("mapping-concurrency", "arn:m"): 3}

    assert "   the cap: 2 → 4 → 3" in told(played(an_incident(), now=now)).splitlines()


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.4, "8 s"), (185, "3 min 5 s"), (3725, "1 h 2 min")]
)
def test_durations_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_an_open_incident_is_listed_by_its_phase_and_goes_on() -> None:
    started = iso(utc_now() - timedelta(seconds=90))
    shown = row(
        an_incident(status="open", phase="waiting", outcome="", started_at=started, closed_at="")
    )

    assert (shown["state"], shown["open"]) == ("waiting", True)
    assert 90 <= shown["took"] < 95


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (["queue"], f"input: 'queue' is not key=value. Give for example {WORKS}."),
        ([], f"queue: it is missing ({QUEUE}). Give for example {WORKS}."),
        (["{}"], f"queue: it is missing ({QUEUE}). Give for example {WORKS}."),
        (
            ["que=orders"],
            f"queue: it is missing ({QUEUE}); you gave que. Give for example {WORKS}.",
        ),
        (["queue=a", "queue=b"], f"queue: it is given twice. Give for example {WORKS}."),
        (
            ["queue=a b"],
            f"queue: 'a b' cannot be {QUEUE}. Give {WORKS}.",
        ),
        (
            ["{queue: 1}"],
            (
                "input: it is no JSON (Expecting property name enclosed in double quotes). "
                f"Give for example {WORKS}."
            ),
        ),
    ],
)
def test_bad_input_is_one_sentence_with_words_that_work(pairs: list[str], sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_input("queue-saturation", pairs, None, "")

    assert str(caught.value) == sentence


def test_input_carries_mode_and_reason() -> None:
    given = read_input("queue-saturation", ["queue=orders"], "observe", "a drill")

    assert given == {"queue": "orders", "mode": "observe", "reason": "a drill"}


def test_an_unknown_story_names_those_there_are() -> None:
    with pytest.raises(BadInput, match="queue-saturation, lambda-throttles, dlq-replay"):
        play_story("nope", output="text", endpoint_url=None)


def test_a_story_with_name_servers_does_not_play_on_an_emulator_that_has_none() -> None:
    with pytest.raises(BadInput, match=r"--endpoint-url: route53-failover asks name servers"):
        play_story("route53-failover", output="text", endpoint_url="http://127.0.0.1:4566")


@pytest.mark.parametrize(
    "address",
    [
        "https://sqs.eu-west-1.amazonaws.com",
        "https://amazonaws.com.cn/",
        "https://sqs.eu-west-1.api.aws",
        "nonsense",
        "ftp://127.0.0.1",
    ],
)
def test_a_story_is_never_played_on_aws_itself(address: str) -> None:
    with pytest.raises(BadInput, match="--endpoint-url"), running_aws(address):
        pytest.fail("it must not be entered")


def test_pagerduty_is_told_with_who_was_woken() -> None:
    pagerduty = FakePagerDuty()
    event = {
        "event_action": "trigger",
        "routing_key": pagerduty.routing_key,
        "dedup_key": "k",
        "payload": {"summary": "orders needs you", "severity": "error", "source": "orders"},
    }
    pagerduty._apply(event)

    text = told(played(an_incident(), pagerduty=pagerduty))

    assert "PagerDuty: on-call was woken once." in text
    assert "orders needs you" in text
    assert "nobody was woken" in told(played(an_incident()))
