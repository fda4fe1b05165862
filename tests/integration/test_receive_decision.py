"""Decisions against the embedded AWS: clicks as Slack signs them, and direct invokes."""

import base64
import hashlib
import hmac
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slack_sdk.signature import Clock

import receive_decision
from local.aws import AwsAccount
from local.slack import Click
from oncall import decisions
from oncall.decisions import Decision
from oncall.errors import BadInput, Denied, NotFound
from oncall.incident import Entry
from receive_decision import SlackSettings, take_click
from tests.integration.reporting import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    MALLORY,
    TOKEN,
    World,
    a_world,
    secrets_of,
)

SIGNING_SECRET = "fake-signing-secret"


@pytest.fixture
def world(aws: AwsAccount) -> Iterator[World]:
    with a_world(aws) as made:
        yield made


@dataclass
class Sent:
    """A spy on what Step Functions is told, which may also fail."""

    calls: list[tuple[str, Mapping[str, Any]]]
    fault: str = ""

    def send(self, name: str, arguments: Mapping[str, Any]) -> None:
        if self.fault:
            message = f"Invalid Token: '{arguments['taskToken']}'"
            raise ClientError({"Error": {"Code": self.fault, "Message": message}}, name)
        self.calls.append((name, arguments))

    def send_task_success(self, **arguments: Any) -> None:
        self.send("success", arguments)

    def send_task_failure(self, **arguments: Any) -> None:
        self.send("failure", arguments)

    def send_task_heartbeat(self, **arguments: Any) -> None:
        self.send("heartbeat", arguments)

    @property
    def ends(self) -> list[str]:
        """The task results that were sent: one at most."""
        return [
            arguments.get("error", "approved")
            for name, arguments in self.calls
            if name != "heartbeat"
        ]


@pytest.fixture
def states(world: World) -> Sent:
    sent = Sent([])
    world.services._clients["stepfunctions"] = sent
    return sent


def decide(world: World, who: str, kind: str, **fields: Any) -> decisions.Answer:
    via = "invoke" if who.startswith("arn:") else "slack"
    return decisions.decide(Decision(world.run.incident, kind, who, via, **fields), world.services)


def told(world: World) -> list[str]:
    """What the person who clicked was told."""
    return [ephemeral.text for ephemeral in world.slack.ephemerals]


@pytest.fixture
def url(world: World) -> Iterator[str]:
    """Serve take_click as a function URL does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = {
                "requestContext": {"http": {"method": "POST"}},
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": base64.b64encode(body).decode(),
                "isBase64Encoded": True,
            }
            settings = SlackSettings("slack", world.slack.base_url)
            answer = take_click(event, world.services, settings, secrets_of(world))
            self.send_response(answer["statusCode"])
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asked(world: World) -> World:
    world.open(mode="ask")
    world.ask()
    world.report()
    return world


def click(world: World, url: str, action: str = "approve", **how: Any) -> Click:
    return world.slack.click(world.slack.messages[0], action, url=url, **how)


def test_a_click_approves_and_the_machine_goes_on(world: World, url: str) -> None:
    world.open(mode="ask")
    world.ask(token=world.waiting_token())
    world.report()
    assert click(world, url).acknowledged
    assert told(world) == ["Approved."]
    assert world.load().ask["state"] == "approved"
    execution = world.execution()
    assert execution["status"] == "SUCCEEDED"
    output = json.loads(execution["output"])
    assert output == {"approved_by": [ALICE], "plan_hash": "c0ffee00" * 8}


def test_a_click_rejects_and_the_machine_hears_why(world: World, url: str) -> None:
    world.open(mode="ask")
    world.ask(token=world.waiting_token())
    world.report()
    assert click(world, url, "reject", user=BOB).acknowledged
    execution = world.execution()
    assert (execution["status"], execution["error"]) == ("FAILED", "Rejected")
    assert execution["cause"] == "Rejected by U0BOB."


def test_a_task_that_is_gone_is_told_as_too_late(asked: World, url: str) -> None:
    # The embedded Step Functions does not know the token, as AWS does not once a task timed out.
    assert click(asked, url).acknowledged
    assert "too late" in told(asked)[0]
    assert asked.load().ask["state"] == "expired"
    assert "came too late" in asked.load().entries[-1].text


def test_the_first_click_wins_and_the_second_is_told_so(
    asked: World, states: Sent, url: str
) -> None:
    assert click(asked, url).acknowledged
    assert click(asked, url, "reject", user=BOB, stale=True).acknowledged
    assert told(asked) == ["Approved.", "Already approved by U0ALICE at 02:54 UTC."]
    assert states.ends == ["approved"]


def test_a_stranger_is_told_which_parameter_lists_approvers(
    asked: World, states: Sent, url: str
) -> None:
    assert click(asked, url, user=MALLORY).acknowledged
    assert "U0MALLORY is not among the approvers" in told(asked)[0]
    assert "parameter Approvers" in told(asked)[0]
    assert states.calls == []
    assert asked.load().ask["state"] == "waiting"


def test_a_signed_request_is_good_once(asked: World, states: Sent, url: str) -> None:
    first = click(asked, url)
    assert asked.slack.replay(first).status == 401
    assert len(told(asked)) == 1
    assert states.ends == ["approved"]


def test_forged_and_old_requests_are_refused(asked: World, states: Sent, url: str) -> None:
    forged = click(asked, url, signing_secret="another")
    late = click(asked, url, timestamp=asked.clock().timestamp() - 301)
    assert (forged.status, late.status) == (401, 401)
    assert states.calls == []
    assert asked.load().ask["state"] == "waiting"


def test_the_person_cannot_be_told_but_the_decision_stands(
    asked: World, states: Sent, url: str
) -> None:
    asked.slack.down(status=503)
    assert click(asked, url).acknowledged
    assert states.ends == ["approved"]


def test_only_slack_is_answered() -> None:
    ours = SlackSettings("slack", "http://127.0.0.1:5000/api/")
    may = receive_decision._may_answer
    assert may("https://hooks.slack.com/actions/T/1/x", SlackSettings("slack", ""))
    assert may("http://127.0.0.1:5000/actions/1", ours)
    for url in (
        "https://hooks.slack.com.evil.example/x",
        "https://hooks.slack.com@evil.example/x",
        "http://hooks.slack.com/x",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:5000@evil.example/",
        "http://[",
        "",
    ):
        assert not may(url, ours), url
        assert not may(url, SlackSettings("slack", "")), url


def signed(body: bytes, timestamp: str, secret: str = SIGNING_SECRET) -> str:
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()


def an_event(body: str, headers: Mapping[str, str], *, encoded: bool = False) -> dict[str, Any]:
    return {
        "requestContext": {"http": {"method": "POST"}},
        "headers": dict(headers),
        "body": body,
        "isBase64Encoded": encoded,
    }


def test_slacks_published_signature_is_genuine() -> None:
    """https://docs.slack.dev/authentication/verifying-requests-from-slack: its worked example."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&"
        b"channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&"
        b"command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id="
        b"398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }

    class Then(Clock):
        def now(self) -> float:
            return 1531420618

    secret = "8f742231b10e8888abcd99yyyzzz85a5"
    assert receive_decision.genuine(body, headers, secret, Then())
    assert not receive_decision.genuine(body + b"&", headers, secret, Then())


TIMESTAMPS = st.text(max_size=30) | st.integers().map(str) | st.just("9" * 5000)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "x-slack-request-timestamp": TIMESTAMPS,
            "x-slack-signature": st.text(max_size=80)
            | st.text("0123456789abcdef", min_size=64, max_size=64).map("v0={}".format),
        },
    )
    | st.dictionaries(st.text(max_size=20), st.text(max_size=20)),
    encoded=st.booleans(),
)
def test_whatever_is_sent_unsigned_is_401_and_never_500(
    world: World, body: str, headers: dict[str, str], *, encoded: bool
) -> None:
    event = an_event(body, headers, encoded=encoded)
    answer = take_click(event, world.services, SlackSettings("slack", ""), secrets_of(world))
    assert answer["statusCode"] == 401


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.text(max_size=100)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "user", "actions", "value", "response_url"]),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda v: "payload=" + json.dumps(v))
)
def test_what_is_signed_but_no_click_is_taken_and_changes_nothing(world: World, body: str) -> None:
    world.clock.forward(seconds=1)
    at = str(int(world.clock().timestamp()))
    raw = body.encode("utf-8", "surrogatepass")
    headers = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": signed(raw, at)}
    answer = take_click(
        an_event(body, headers), world.services, SlackSettings("slack", ""), secrets_of(world)
    )
    assert answer["statusCode"] in {200, 401}


@pytest.mark.parametrize(
    ("body", "timestamp", "signature"),
    [
        (b"x", "abc", "v0=" + "0" * 64),
        (b"x", "", ""),
        (b"x", None, "v0=\u00e9"),
        (b"\xff\xfe", None, "v0=" + "0" * 64),
        (b"x", "9" * 5_000, "v0="),
    ],
)
def test_a_malformed_request_is_401(
    world: World, body: bytes, timestamp: str | None, signature: str
) -> None:
    now = str(int(world.clock().timestamp()))
    headers = {
        "x-slack-request-timestamp": now if timestamp is None else timestamp,
        "x-slack-signature": signature,
    }
    event = an_event(base64.b64encode(body).decode(), headers, encoded=True)
    answer = take_click(event, world.services, SlackSettings("slack", ""), secrets_of(world))
    assert answer["statusCode"] == 401


def test_without_slack_every_click_is_refused(world: World) -> None:
    answer = take_click(an_event("", {}), world.services, SlackSettings("", ""), secrets_of(world))
    assert answer["statusCode"] == 401


def test_two_people_approve_and_the_second_gets_time(asked: World, states: Sent) -> None:
    asked.clock.forward(minutes=11)
    asked.store.note(asked.run, None)
    ask = asked.ask(people=2, level=2)
    asked.clock.forward(minutes=9)
    first = decide(asked, ALICE, "approve")
    assert (first.recorded, states.calls) == (True, [("heartbeat", {"taskToken": TOKEN})])
    shown = asked.load()
    assert shown.ask["deadline"] > ask.deadline
    assert shown.need.startswith("A yes from 1 more by 03:24 UTC")
    again = decide(asked, ALICE, "approve")
    assert not again.recorded
    assert "2 different people" in again.text
    asked.clock.forward(minutes=9)
    assert decide(asked, BOB, "approve").recorded
    assert states.ends == ["approved"]
    output = json.loads(states.calls[-1][1]["output"])
    assert output["approved_by"] == [ALICE, BOB]


def test_a_first_approval_that_comes_too_late_is_not_recorded(world: World, states: Sent) -> None:
    world.open(mode="ask")
    world.ask(people=2)
    states.fault = "TaskTimedOut"
    answer = decide(world, ALICE, "approve")
    assert (answer.recorded, "Too late" in answer.text) == (False, True)
    assert world.load().ask["approvals"] == []


def test_after_the_deadline_nothing_is_sent(world: World, states: Sent) -> None:
    world.open(mode="ask")
    world.ask()
    world.clock.forward(minutes=10)
    answer = decide(world, ALICE, "approve")
    assert answer.text == "Too late: this was to be answered by 03:04 UTC."
    assert states.calls == []
    assert world.load().ask["state"] == "expired"
    assert not decide(world, BOB, "approve").recorded


@pytest.mark.parametrize(("kind", "error"), [("abort", "Aborted"), ("take_over", "TakenOver")])
def test_a_stop_takes_the_question_back(world: World, states: Sent, kind: str, error: str) -> None:
    world.open(mode="ask")
    world.ask()
    assert decide(world, CAROL, kind, reason="a deployment runs").recorded
    incident = world.load()
    assert incident.ask["state"] == "stopped"
    assert incident.stop["kind"] == kind
    assert incident.stop["by"] == f"{CAROL} (by invoke)"
    assert states.ends == [error]
    assert "a deployment runs" in states.calls[0][1]["cause"]
    assert not decide(world, ALICE, "approve").recorded
    assert not decide(world, BOB, "abort").recorded


def test_a_stop_without_a_question_is_left_for_the_next_step(world: World, states: Sent) -> None:
    world.open()
    world.change()
    assert decide(world, ALICE, "abort").recorded
    assert world.load().stop["kind"] == "abort"
    assert states.calls == []
    assert decide(world, BOB, "take_over").text == "Already aborted by U0ALICE at 02:54 UTC."


def test_every_order_of_answers_ends_the_question_once(world: World, states: Sent) -> None:
    players = ((ALICE, "approve"), (BOB, "reject"), (ALICE, "approve"), (CAROL, "abort"))
    for number, order in enumerate(itertools.permutations(players)):
        world.open(f"run-{number}", mode="ask", target=f"arn:{number}")
        world.ask(people=1 + number % 2)
        states.calls.clear()
        for who, kind in order:
            decide(world, who, kind)
        ends = states.ends
        assert len(ends) == 1
        state = world.load().ask["state"]
        assert {"approved": "approved", "rejected": "Rejected", "stopped": "Aborted"}[state] == (
            ends[0]
        )
        assert bool(world.load().stop)


def test_people_who_click_at_once_end_the_question_once(world: World, states: Sent) -> None:
    world.open(mode="ask")
    world.ask()
    answers: list[decisions.Answer] = []
    clicks = [(ALICE, "approve"), (ALICE, "approve"), (BOB, "reject"), (DAVE, "approve")] * 2
    threads = [
        threading.Thread(target=lambda w=who, k=kind: answers.append(decide(world, w, k)))
        for who, kind in clicks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states.ends) == 1
    assert sum(answer.recorded for answer in answers) == 1
    assert len([e for e in world.load().entries if e.kind == "decided"]) == 1


def test_a_new_question_is_not_overwritten_by_an_answer_to_the_old_one(
    world: World, states: Sent
) -> None:
    world.open(mode="ask")
    old = world.ask()
    world.ask(level=2)
    entry = Entry("d", "decided", "x")
    before = world.store.ask(world.run.incident, old.id)
    assert before is not None
    after = replace(before, state="approved")
    assert not world.store.decide(world.run.incident, before, after, entry)
    assert world.load().ask["id"] == "c0ffee00-1-2"
    assert not decide(world, ALICE, "approve", ask=old.id).recorded
    assert decide(world, ALICE, "approve").recorded
    assert states.ends == ["approved"]


@pytest.mark.parametrize(
    ("kind", "end"), [("approve", "approved"), ("reject", "Rejected"), ("abort", "Aborted")]
)
def test_what_step_functions_did_not_hear_is_delivered_later(
    world: World, states: Sent, kind: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.open(mode="ask")
    world.ask()
    states.fault = "ThrottlingException"
    answer = decide(world, ALICE, kind)
    assert answer.recorded
    assert "tried again" in answer.text
    states.fault = ""
    assert decisions.redeliver(world.run.incident, world.services).text == "Delivered."
    assert states.ends == [end]
    again = decisions.redeliver(world.run.incident, world.services)
    assert again.text == "There is nothing to deliver."
    assert states.ends == [end]
    assert "decision not delivered" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("answered", [False, True])
def test_a_task_that_is_tried_again_hears_the_answer(
    world: World, states: Sent, *, answered: bool
) -> None:
    world.open(mode="ask")
    world.ask(token="first")
    if answered:
        decide(world, ALICE, "approve")
    world.ask(token="second")
    if answered:
        decisions.redeliver(world.run.incident, world.services)
    else:
        decide(world, ALICE, "approve")
    assert states.calls[-1][1]["taskToken"] == "second"
    assert world.load().ask["state"] == "approved"
    assert len([e for e in world.load().entries if e.kind == "asked"]) == 1


def test_nothing_is_delivered_while_the_question_waits(world: World, states: Sent) -> None:
    world.open(mode="ask")
    world.ask()
    assert not decisions.redeliver(world.run.incident, world.services).recorded
    assert states.calls == []


@pytest.fixture
def invoke(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(receive_decision, "services", lambda: world.services)
    return lambda **event: receive_decision.handler(event, None)


def test_a_day_without_slack(world: World, states: Sent, invoke: Callable[..., Any]) -> None:
    world.open(mode="ask")
    world.ask()
    answer = invoke(incident=world.run.incident, decision="approve", by=CAROL)
    assert answer == {"recorded": True, "text": "Approved."}
    assert world.load().entries[-1].text == f"Approved by {CAROL} (by invoke)."
    assert states.ends == ["approved"]
    assert invoke(redeliver=world.run.incident)["text"] == "There is nothing to deliver."


def test_an_invoke_is_refused_with_a_sentence(world: World, invoke: Callable[..., Any]) -> None:
    world.open(mode="ask")
    with pytest.raises(BadInput, match=r"^decision: it is missing. Give \{"):
        invoke(incident=world.run.incident, by=CAROL)
    with pytest.raises(BadInput, match=r"^by: 'U0ALICE' is no IAM principal"):
        invoke(incident=world.run.incident, decision="abort", by=ALICE)
    with pytest.raises(Denied, match="not among the approvers"):
        invoke(incident="x", decision="abort", by="arn:aws:iam::123456789012:user/mallory")
    with pytest.raises(NotFound, match="There is no incident 'x'"):
        invoke(incident="x", decision="abort", by=CAROL)
