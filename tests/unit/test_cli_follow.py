import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import connection
from cli.app import main
from cli.incidents import listed, name_of_run, row
from cli.outcomes import exit_code_of, unanswered
from oncall.errors import NotFound
from oncall.incident import Change, Entry, Incident
from oncall.times import parse
from tests.unit.closed import an_incident, at
from tests.unit.test_cli_faults import client_error, unreached

OPEN = an_incident(
    status="open", outcome="", closed_at="", phase="acting", doing="I act.", need="Nothing."
)
ASKING = replace(
    OPEN,
    phase="waiting",
    ask={"id": "abc-1-1", "deadline": at(600), "state": "waiting"},
    entries=(*OPEN.entries[:1], Entry("asked", "asked", "May I?", at(5))),
)
CLOSED = an_incident(summary="orders is drained.")


class Store:
    """Gives one look after the other; an error is raised."""

    def __init__(self, *looks: Incident | Exception, holder: str = "") -> None:
        self.looks = list(looks)
        self._holder = holder

    def load(self, _incident: str) -> Incident:
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look

    def holder(self, _target: str) -> str:
        return self._holder


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has waited between looks."""
    waited: list[float] = []
    monkeypatch.setattr("cli.follow.time.sleep", waited.append)
    return waited


def watch(monkeypatch: pytest.MonkeyPatch, store: Store, *more: str) -> Result:
    monkeypatch.setattr(connection.Deployed, "store", store)
    return CliRunner().invoke(main, ["watch", "one", *more])


def test_throttling_is_said_once_and_sat_out(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    busy = [client_error("ThrottlingException")] * 5 + [unreached("https://dynamodb")]
    ended = watch(monkeypatch, Store(client_error("ThrottlingException"), OPEN, *busy, CLOSED))

    assert ended.exit_code == 0
    said = "AWS does not answer Query now (ThrottlingException). I try again"
    assert ended.stderr.count(said) == 2
    assert ended.stderr.count("AWS answers again.") == 2
    assert pauses[1:] == [1, 2, 4, 8, 15, 15, 15]
    assert ended.stdout.splitlines()[-1] == "Resolved: orders is drained."


def test_credentials_that_expire_end_the_watching_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    ended = watch(monkeypatch, Store(OPEN, client_error("ExpiredTokenException"), CLOSED))

    assert ended.exit_code == 2
    again, why = ended.stderr.splitlines()[-2:]
    assert again == "I cannot watch any more; the run goes on. Watch it again: runbook watch one"
    assert why.startswith("runbook: The AWS credentials have expired (ExpiredTokenException).")
    assert pauses == [1]


def test_what_was_never_reached_is_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    ended = watch(monkeypatch, Store(unreached("http://127.0.0.1:1/"), CLOSED), "--output=json")

    assert ended.exit_code == 1
    assert "http://127.0.0.1:1 cannot be reached." in ended.stderr
    assert json.loads(ended.stdout)["exit_code"] == 1
    assert pauses == []


def test_an_incident_that_there_is_not_is_no_run_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = watch(monkeypatch, Store(NotFound("There is no incident 'one'.")))

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == "runbook: There is no incident 'one'.\n"


class StepFunctions:
    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def describe_execution(self, *, executionArn: str) -> dict[str, str]:  # noqa: N803 -- boto3's
        self.asked.append(executionArn)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"status": self.answer}


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize(
    ("answer", "said", "times"),
    [
        ("RUNNING", "", 3),
        ("TIMED_OUT", "Its machine has ended (TIMED_OUT) without closing the incident", 1),
        (client_error("AccessDeniedException"), "Whether its machine runs I cannot see: AWS", 1),
    ],
)
def test_a_machine_that_is_gone_is_told_once(
    answer: str | Exception, said: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = StepFunctions(answer)
    monkeypatch.setattr(connection.Deployed, "client", lambda *_: states)

    ended = watch(monkeypatch, Store(*[OPEN] * 65, CLOSED))

    assert ended.exit_code == 0
    assert states.asked == [OPEN.execution] * times
    assert len(ended.stderr.splitlines()) == (1 if said else 0)
    assert said in ended.stderr


@pytest.mark.usefixtures("pauses")
def test_each_question_is_told_once_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    second = replace(ASKING, ask={**ASKING.ask, "id": "abc-1-2"})

    ended = watch(monkeypatch, Store(ASKING, ASKING, second, CLOSED))

    told = "Answer by 03:10 UTC: runbook approve one, or runbook reject one"
    assert ended.stderr.count(told) == 2


def test_an_executions_arn_is_its_incident(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Asked(Store):
        def load(self, incident: str) -> Incident:
            asked.append(incident)
            return CLOSED

    monkeypatch.setattr(connection.Deployed, "store", Asked())
    arn = "arn:aws:states:eu-west-1:123456789012:execution:runbooks-dlq-replay:one"
    assert CliRunner().invoke(main, ["watch", arn]).exit_code == 0
    assert asked == ["one"]


def test_a_bad_end_says_what_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    left = Change("cap", "arn:m", "the cap", 2, 5, "", "aws undo", at(99), "handed_over")
    bad = an_incident(
        outcome="handed_over",
        summary="Handed over: the cause is mended by nobody.",
        need="Take care of orders yourself.",
        changes=(left,),
    )

    ended = watch(monkeypatch, Store(bad))

    assert ended.exit_code == 4
    assert ended.stdout.splitlines()[-1] == "Handed over: the cause is mended by nobody."
    assert ended.stderr.splitlines() == [
        "You: Take care of orders yourself.",
        "Undo: aws undo   (the cap is 5, was 2)",
        "The whole story: runbook explain one",
    ]


def test_json_is_alone_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = watch(monkeypatch, Store(CLOSED), "--output", "json")

    assert json.loads(ended.stdout)["outcome"] == "resolved"
    assert "03:00:07  changed    Set it from 2 to 4." in ended.stderr.splitlines()


def test_lines_have_time_kind_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Entry("x", "paged", "First.\nSecond.", at(9))

    ended = watch(monkeypatch, Store(replace(CLOSED, entries=(two,))), "--output", "text")

    assert ended.stdout.splitlines() == [
        f"{at(9)}\tpaged\tFirst. ⏎ Second.",
        f"{at(30)}\toutcome\tresolved",
    ]


@pytest.mark.parametrize(
    ("outcome", "state", "code"),
    [
        ("handed_over", "waiting", 3),
        ("handed_over", "expired", 3),
        ("handed_over", "stopped", 4),
        ("handed_over", "approved", 4),
        ("handed_over", None, 4),
        ("aborted", "stopped", 5),
        ("failed", "waiting", 1),
        ("rejected", "rejected", 3),
        ("resolved", "approved", 0),
    ],
)
def test_silence_is_told_from_a_hand_over(outcome: str, state: str | None, code: int) -> None:
    incident = an_incident(outcome=outcome, ask={"state": state} if state else {})

    assert exit_code_of(incident) == code
    assert unanswered(incident) == (outcome == "handed_over" and code == 3)


# The list


def test_what_needs_you_comes_first_however_old_it_is() -> None:
    asking = replace(ASKING, id="asking", started_at=at(1))
    mine = replace(OPEN, id="mine", phase="handed_over", started_at=at(2), need="It is yours.")
    working = replace(OPEN, id="working", started_at=at(3))
    closed = [an_incident(id=f"closed-{n}", started_at=at(10 + n)) for n in (3, 2, 1)]

    class Lists:
        store: Any

        def open_incidents(self) -> list[Incident]:
            return [working, mine, asking]

    class Latest:
        def latest(self, limit: int, _runbook: str) -> list[Incident]:
            return closed[:limit]

    deployed: Any = Lists()
    deployed.store = Latest()

    def shown(**how: Any) -> list[str]:
        return [one.id for one in listed(deployed, **how)]

    assert shown(limit=20) == [
        "mine",
        "asking",
        "closed-3",
        "closed-2",
        "closed-1",
        "working",
    ]
    assert shown(limit=20, only_open=True) == ["mine", "asking", "working"]
    assert shown(limit=1)[:2] == ["mine", "asking"]
    assert shown(limit=20, runbook="dlq-replay") == ["closed-3", "closed-2", "closed-1"]


def test_a_row_says_what_you_are_needed_for() -> None:
    now = parse(at(64))

    asks = row(ASKING, now)
    good = row(an_incident(need="Nothing."), now)
    bad = row(an_incident(outcome="failed", need="Take care of orders yourself."), now)

    assert (asks["needs_you_now"], asks["need"]) == (True, "Approve or reject by 03:10 UTC.")
    assert (asks["age"], asks["took"]) == (60, 60)
    assert (good["needs_you_now"], good["need"], good["age"], good["took"]) == (False, "", 60, 26)
    assert (bad["needs_you_now"], bad["need"]) == (False, "Take care of orders yourself.")


@pytest.mark.parametrize(
    ("target", "slug"),
    [
        ("orders", "orders-"),
        ("arn:aws:sqs:eu-west-1:123456789012:orders.fifo", "orders-fifo-"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "orders-"),
        ("x" * 200, "x" * 40 + "-"),
        ("…", "run-"),
    ],
)
def test_a_run_by_hand_has_a_name_that_can_be_read(target: str, slug: str) -> None:
    name = name_of_run(target, parse(at(0)))

    assert name.startswith(f"{slug}20261123T030000Z-")
    assert len(name) <= 80
    assert name != name_of_run(target, parse(at(0)))
