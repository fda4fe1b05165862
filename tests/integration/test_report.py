"""The report against fake Slack and PagerDuty and the embedded AWS: what people see."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

import report
from local.aws import AwsAccount
from local.slack import Message
from oncall import readiness_news
from oncall.decisions import Decision, decide
from oncall.errors import NotDelivered
from oncall.incident import Entry
from oncall.readiness_seen import Finding
from tests.integration.reporting import (
    ALARM,
    ALICE,
    BOB,
    CAROL,
    CHANGE,
    ESCALATION_KEY,
    MAY_DELIVER,
    TOKEN,
    Context,
    World,
    a_world,
)
from tests.integration.tables import TABLE


@pytest.fixture
def world(aws: AwsAccount) -> Iterator[World]:
    with a_world(aws) as made:
        yield made


def texts(message: Message) -> str:
    return json.dumps([message.text, message.blocks], ensure_ascii=False)


def header_of(world: World) -> Message:
    return world.slack.messages[0]


def owed(world: World) -> list[str]:
    """Return where words are owed; what becomes of graphs is in test_report_graphs."""
    rows = [str(row["incident"]) for row in world.store.opened("report")]
    return [name for name in rows if not world.store.report_state(name).get("only_graph")]


def test_one_message_is_edited_and_the_thread_tells_the_story_once(world: World) -> None:
    world.open()
    world.report()
    world.change()
    world.clock.forward(minutes=1)
    world.report()
    world.report()
    thread = world.slack.thread(header_of(world).ts)
    assert len([m for m in world.slack.messages if m.thread_ts is None]) == 1
    assert [m.text.splitlines()[0] for m in thread[1:]] == [
        "Alarm orders-backlog fired. Runbook queue-saturation on orders, mode auto.",
        f"Set {CHANGE.name} from 20 to 60: {CHANGE.why}.",
    ]
    assert len(header_of(world).versions) == 2
    assert "orders-worker reserved concurrency: 20 → *60*" in texts(header_of(world))
    assert owed(world) == []


def test_unchanged_content_is_not_sent_again(world: World) -> None:
    world.open()
    world.report()
    sent = len(world.slack.requests), len(world.pagerduty.requests)
    world.clock.forward(minutes=5)
    world.report()
    assert (len(world.slack.requests), len(world.pagerduty.requests)) == sent


def test_progress_waits_for_its_time_but_a_new_state_does_not(world: World) -> None:
    world.open()
    world.note("changed", "Raised.", phase="watching", progress={"done": 0.1})
    world.report()
    world.store.note(world.run, None, progress={"done": 0.2})
    world.clock.forward(seconds=29)
    world.report()
    assert "10%" in texts(header_of(world))
    assert owed(world) == [world.run.incident]
    world.clock.forward(seconds=1)
    world.report()
    assert "20%" in texts(header_of(world))
    assert owed(world) == []
    world.store.note(world.run, None, phase="putting_back", progress={"done": 1})
    world.report()
    assert "100%" in texts(header_of(world))


def test_a_decision_shows_at_once_and_takes_the_buttons_away(world: World) -> None:
    world.open(mode="ask")
    world.ask()
    world.report()
    assert [b.text for b in world.slack.buttons(header_of(world))] == [
        "Approve",
        "Reject",
        "Take over",
    ]
    assert world.pagerduty.incident(ALARM).status == "triggered"
    world.clock.forward(seconds=5)
    decide(Decision(world.run.incident, "reject", ALICE, "slack"), world.services)
    world.report()
    assert "Rejected by <@U0ALICE>" in texts(header_of(world))
    assert "Approve" not in [b.text for b in world.slack.buttons(header_of(world))]
    assert world.pagerduty.incident(ALARM).status == "acknowledged"


def test_a_question_calls_the_people_in_a_new_message(world: World) -> None:
    world.open(mode="ask")
    world.report()
    world.ask()
    world.report()
    assert world.slack.messages[-1].mentions == {"!subteam^S0ONCALL"}
    assert header_of(world).mentions == set()


def test_the_second_level_wakes_the_next(world: World) -> None:
    world.open(mode="ask")
    world.ask()
    world.report()
    world.clock.forward(minutes=10)
    world.ask(level=2)
    world.report()
    second = world.pagerduty.incident(f"{ALARM}#level-2", routing_key=ESCALATION_KEY)
    assert second.status == "triggered"
    assert len(world.pagerduty.pages) == 2


def test_acting_alone_wakes_nobody_and_resolved_says_the_numbers(world: World) -> None:
    world.open()
    world.report()
    world.change()
    world.put_back()
    world.close("resolved", "orders: drained in 16 min; everything I changed is back as it was.")
    world.report()
    assert world.pagerduty.pages == []
    assert len(world.pagerduty.change_events) == 1
    assert header_of(world).text.startswith("🟢 orders: drained in 16 min")


def test_a_page_is_resolved_with_numbers_when_the_run_ends_well(world: World) -> None:
    world.open(mode="ask")
    world.ask()
    world.report()
    world.close("resolved", "orders: drained in 16 min.")
    world.report()
    incident = world.pagerduty.incident(ALARM)
    assert incident.status == "resolved"
    assert "drained in 16 min" in incident.events[-1]["payload"]["summary"]


def test_a_run_that_fails_pages_with_the_undo_and_stays_open(world: World) -> None:
    world.open()
    world.change()
    world.note("paged", "It did not help.", severity="critical", phase="handed_over")
    world.close("ineffective", "Ineffective. It did not help.")
    world.report()
    incident = world.pagerduty.incident(ALARM)
    assert (incident.status, incident.severity) == ("triggered", "critical")
    details = incident.events[0]["payload"]["custom_details"]
    assert details["changes"][0]["undo"].startswith("aws lambda put-function-concurrency")


def test_observing_reaches_slack_and_not_pagerduty(world: World) -> None:
    world.open(mode="observe")
    world.close("observed", "orders: observed, nothing was changed.")
    world.report()
    assert world.pagerduty.requests == []
    assert header_of(world).text.startswith("⚪")


def test_the_report_is_stored_and_linked(world: World) -> None:
    world.open()
    world.change()
    world.put_back()
    world.close("resolved", "orders: drained.")
    world.report()
    s3 = world.aws.client("s3")
    folder = f"incidents/2026/11/{world.run.incident}/"
    record = json.load(
        s3.get_object(Bucket=world.settings.bucket, Key=f"{folder}record.json")["Body"]
    )
    assert record["outcome"] == "resolved"
    assert record["changes"][0]["state"] == "put_back"
    markdown = (
        s3.get_object(Bucket=world.settings.bucket, Key=f"{folder}report.md")["Body"]
        .read()
        .decode()
    )
    assert "## Timeline" in markdown
    assert "prefix=incidents%2F2026%2F11%2F" in texts(header_of(world))
    assert "|Report>" in world.slack.messages[-1].text


@pytest.mark.parametrize("trouble", ["down", "503", "429", "auth"])
def test_slack_in_trouble_delays_only_slack(world: World, trouble: str) -> None:
    world.open(mode="ask")
    world.ask()
    match trouble:
        case "down":
            world.slack.down()
        case "503":
            world.slack.down(status=503)
        case "429":
            world.slack.rate_limited(9, retry_after=0)
        case _:
            world.slack.error("invalid_auth")
    with pytest.raises(NotDelivered, match=r"slack: Slack chat\.postMessage"):
        world.report()
    assert len(world.pagerduty.pages) == 1
    assert owed(world) == [world.run.incident]
    world.slack.up()
    world.report()
    assert len([m for m in world.slack.messages if m.thread_ts is None]) == 1
    assert len(world.pagerduty.incident(ALARM).events) == 1
    assert owed(world) == []


def test_a_short_rate_limit_is_waited_out(world: World) -> None:
    world.open()
    world.slack.rate_limited(1, retry_after=0)
    world.report()
    assert len(world.slack.thread(header_of(world).ts)) == 2


def test_a_slow_slack_delays_neither_pagerduty_nor_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncall.channels.TIMEOUT_SECONDS", 0.2)
    world.open(mode="ask")
    world.ask()
    world.slack.slow(1.0)
    with pytest.raises(NotDelivered, match="slack"):
        world.report()
    assert len(world.pagerduty.pages) == 1
    world.slack.up()
    world.report()
    # The first post did arrive, only its answer was late: one repeated message is the bound.
    assert len([m for m in world.slack.messages if m.thread_ts is None]) == 2


def test_pagerduty_down_delays_only_pagerduty(world: World) -> None:
    world.open(mode="ask")
    world.ask()
    world.pagerduty.down()
    with pytest.raises(NotDelivered, match="pagerduty: PagerDuty"):
        world.report()
    assert "Your decision by" in header_of(world).text
    said = len(world.slack.messages)
    world.pagerduty.up()
    world.report()
    assert len(world.pagerduty.pages) == 1
    assert len(world.slack.messages) == said


def test_pagerduty_overloaded_ends_soon(world: World) -> None:
    world.open()
    world.change()
    world.pagerduty.rate_limited(100)
    with pytest.raises(NotDelivered, match="pagerduty: PagerDuty: status 429"):
        world.report()
    assert len(world.pagerduty.requests) == 3


def test_s3_failing_delays_only_the_report(world: World) -> None:
    world.open()
    world.close("resolved", "orders: drained.")
    with pytest.raises(NotDelivered, match=r"s3: .*NoSuchBucket"):
        world.report(bucket="no-such-bucket")
    assert header_of(world).text.startswith("🟢")
    assert "Report" not in texts(header_of(world))
    world.report()
    assert "Report" in texts(header_of(world))


def test_a_crash_between_sending_and_remembering_repeats_one_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.note("changed", "Raised.")
    for n in range(2):
        world.note("verified", f"Look {n}.")

    def crash(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(report.Told, "remember", crash)
        with pytest.raises(SystemExit):
            world.report()
    world.report()
    assert len([m for m in world.slack.messages if m.thread_ts is None]) == 2
    assert len([m for m in world.slack.messages if m.thread_ts is not None]) == 1
    assert len(world.pagerduty.change_events) == 2


def test_a_killed_report_reminds_the_sweeper(world: World) -> None:
    world.open()
    world.store.claim_report(world.run.incident, report._CLAIM)
    with pytest.raises(NotDelivered, match="under way"):
        world.report()
    assert owed(world) == [world.run.incident]
    world.clock.forward(seconds=121)
    world.report()
    assert world.slack.messages
    assert owed(world) == []


def test_a_deleted_header_is_posted_anew(world: World) -> None:
    world.open()
    world.report()
    world.slack.messages.clear()
    world.note("verified", "Better.", phase="watching")
    with pytest.raises(NotDelivered, match="the next try starts another"):
        world.report()
    world.report()
    assert "orders" in header_of(world).text
    assert world.slack.messages[-1].text == "Better."


def test_what_slack_refuses_is_told_in_plain_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open(mode="ask")
    world.ask()
    monkeypatch.setattr("oncall.messages.within_limits", lambda _: [{"type": "nonsense"}])
    world.report()
    assert header_of(world).blocks == []
    assert f"runbook approve {world.run.incident}" in header_of(world).text


def test_a_record_that_cannot_be_rendered_is_told_all_the_same(world: World) -> None:
    world.open(progress={"done": "half"})
    world.report()
    assert header_of(world).text.startswith("🔵 orders: Alarm orders-backlog fired.")


def test_a_busy_target_is_told_in_the_other_runs_thread(world: World) -> None:
    world.open()
    second = world.load()
    world.store.open_closed(
        replace(second, id="second", outcome="refused", entries=()),
        Entry("refused", "refused", "Busy."),
    )
    world.reporter().deliver("second")
    assert world.slack.messages == []


def test_a_storm_has_one_header_and_one_line_for_each_incident(world: World) -> None:
    world.open(
        "storm-1", target="storm", target_name="many targets", trigger={"kind": "storm"}, mode="ask"
    )
    world.note("paged", "Many alarms at once.", severity="critical")
    joined = Entry("joined-1", "joined", "i1", data={"incident": "i1"})
    world.store.note(world.run, joined)
    world.open("i1", mode="ask", parent="storm-1")
    world.ask()
    world.report()
    tops = [m for m in world.slack.messages if m.thread_ts is None]
    assert len(tops) == 1
    assert world.slack.buttons(tops[0]) == []
    assert len(world.pagerduty.pages) == 1
    assert "1 incidents at once" in tops[0].text
    child = world.slack.messages[-1]
    assert child.thread_ts == tops[0].ts
    assert [b.text for b in world.slack.buttons(child)] == ["Approve", "Reject", "Take over"]
    world.close("rejected", "Rejected. Nothing was changed.")
    world.clock.forward(seconds=1)
    world.report()
    assert child.text.startswith("⚪ orders: Rejected.")
    assert world.slack.buttons(child) == []
    assert world.pagerduty.incident("storm:storm-1").status == "triggered"


@pytest.mark.parametrize("missing", ["slack_secret", "pagerduty_secret", "bucket"])
def test_a_channel_that_is_not_configured_is_left_out(world: World, missing: str) -> None:
    world.open(mode="ask")
    world.ask()
    world.close("rejected", "Rejected.")
    world.report(**{missing: ""})
    assert bool(world.slack.messages) == (missing != "slack_secret")
    assert owed(world) == []


def a_record(incident: str, number: int, sk: str = "RECORD", name: str = "MODIFY") -> Any:
    keys = {"pk": {"S": f"INCIDENT#{incident}"}, "sk": {"S": sk}}
    return {"eventName": name, "dynamodb": {"Keys": keys, "SequenceNumber": str(number)}}


def test_a_batch_fails_only_what_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open("one")
    world.open("two", target="arn:other", target_name="other")
    reporter = world.reporter()
    monkeypatch.setattr(report, "_reporter", lambda: reporter)
    world.store.claim_report("one", report._CLAIM)
    answer = report.handler(
        {
            "Records": [
                a_record("one", 1),
                a_record("one", 2, "ENTRY#opened"),
                a_record("two", 3),
                a_record("gone", 4),
                a_record("two", 5, "ASK#q1"),
                a_record("two", 6, "REPORT"),
                a_record("three", 7, name="REMOVE"),
            ]
        },
        Context(),
    )
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert len([m for m in world.slack.messages if m.thread_ts is None]) == 1


def test_an_outage_costs_a_batch_one_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        world.open(name, target=f"arn:{name}", target_name=name)
        world.note("changed", "Raised.")
    reporter = world.reporter()
    monkeypatch.setattr(report, "_reporter", lambda: reporter)
    world.slack.error("fatal_error")
    answer = report.handler(
        {"Records": [a_record(n, i) for i, n in enumerate(("one", "two"))]}, Context()
    )
    assert len(answer["batchItemFailures"]) == 2
    assert len(world.slack.requests) == 1
    assert len(world.pagerduty.change_events) == 2
    world.slack.up()
    assert report.handler({"incident": "one"}, Context()) == {"delivered": "one"}


def test_no_token_and_no_secret_is_ever_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.open(mode="ask")
    world.ask(people=2)
    world.report()
    decide(Decision(world.run.incident, "abort", CAROL, "invoke", reason="x"), world.services)
    decide(Decision(world.run.incident, "approve", BOB, "slack"), world.services)
    world.slack.error("fatal_error")
    with pytest.raises(NotDelivered):
        world.report()
    world.slack.up()
    world.close("aborted", "Aborted.")
    world.report()
    bodies = [r.body.decode() for r in (*world.slack.requests, *world.pagerduty.requests)]
    s3 = world.aws.client("s3")
    bodies += [
        s3.get_object(Bucket=world.settings.bucket, Key=found["Key"])["Body"].read().decode()
        for found in s3.list_objects_v2(Bucket=world.settings.bucket)["Contents"]
    ]
    for text in (*bodies, caplog.text):
        assert TOKEN not in text
        assert world.slack.signing_secret not in text
        assert world.slack.bot_token not in text
    assert world.pagerduty.routing_key not in caplog.text


# Readiness


BAD = Finding("iam:standby", "bad", None, "The runbooks may not do it.")


def found(world: World, *findings: Finding) -> None:
    world.store.put_readiness("shop", readiness_news.written("eu-west-1", findings))


def test_readiness_is_told_once_and_again_when_it_changes(world: World) -> None:
    found(world, BAD)
    world.reporter().tell_readiness("shop")
    world.reporter().tell_readiness("shop")
    found(world, replace(BAD, verdict="ok", sentence="They may."))
    world.reporter().tell_readiness("shop")
    first, second = (message.text for message in world.slack.messages)
    assert "`iam:standby` bad: The runbooks may not do it." in first
    assert "`iam:standby` bad → ok: They may." in second
    assert all(message.mentions == set() for message in world.slack.messages)


@pytest.mark.parametrize("slack", ["down", "not configured", "no token"])
def test_readiness_is_told_by_the_topic_where_slack_does_not_tell_it(
    world: World, slack: str
) -> None:
    topic = world.aws.client("sns").create_topic(Name="fallback")["TopicArn"]
    sqs = world.aws.client("sqs")
    inbox = sqs.create_queue(QueueName="inbox", Attributes={"Policy": MAY_DELIVER})["QueueUrl"]
    world.aws.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{world.aws.account}:inbox"
    )
    changed = {"fallback": topic, "slack_secret": world.settings.slack_secret}
    if slack == "down":
        world.slack.down()
    elif slack == "no token":
        world.aws.client("secretsmanager").put_secret_value(SecretId="slack", SecretString="{}")
    else:
        changed["slack_secret"] = ""
    found(world, BAD)
    for _ in range(2):
        world.reporter(**changed).tell_readiness("shop")
    assert world.slack.messages == []
    [message] = sqs.receive_message(QueueUrl=inbox, MaxNumberOfMessages=10, WaitTimeSeconds=5)[
        "Messages"
    ]
    assert "iam:standby bad: The runbooks may not do it." in json.loads(message["Body"])["Message"]


def test_what_nobody_was_told_is_told_the_next_time(world: World) -> None:
    world.slack.down()
    found(world, BAD)
    with pytest.raises(ClientError):
        world.reporter(fallback="arn:aws:sns:us-east-1:123456789012:gone").tell_readiness("shop")
    world.slack.up()
    world.reporter().tell_readiness("shop")
    assert len(world.slack.messages) == 1


def test_what_is_found_again_is_written_anew_so_that_the_stream_tells_of_it(world: World) -> None:
    key = {"pk": "READINESS#shop", "sk": "RECORD"}
    table = world.aws.session().resource("dynamodb").Table(TABLE)
    found(world, BAD)
    first = table.get_item(Key=key)["Item"]
    world.clock.forward(minutes=1)
    found(world, BAD)
    assert table.get_item(Key=key)["Item"] != first


def test_what_is_wrong_with_a_secret_is_named_without_its_values(world: World) -> None:
    assert world.reporter().channels() == {"slack": "", "pagerduty": ""}
    secrets = world.aws.client("secretsmanager")
    secrets.put_secret_value(SecretId="slack", SecretString='{"bot_token": "xoxb-canary"}')
    secrets.put_secret_value(SecretId="pagerduty", SecretString="R0canary")
    said = world.reporter().channels()
    assert said == {
        "slack": "the secret slack has no signing_secret",
        "pagerduty": "the secret pagerduty is no JSON object",
    }
    assert world.reporter(slack_secret="", pagerduty_secret="gone").channels() == {
        "pagerduty": "the secret gone cannot be read (ResourceNotFoundException)"
    }
    whole = '{"bot_token": "x", "signing_secret": "y"}'
    secrets.put_secret_value(SecretId="slack", SecretString=whole)
    unnamed = world.reporter(slack_channel="").channels()
    assert unnamed["slack"] == "the stack's parameter SlackChannel is empty"
