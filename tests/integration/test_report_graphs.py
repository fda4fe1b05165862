"""Graphs in the thread: the report with Slack's own client, the fake Slack and the embedded AWS."""

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image

import report
from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings
from local.slack import File, Message
from oncall import graph_images, step
from oncall.channels import SlackChannel
from oncall.graph_images import NoGraph
from tests.integration.reporting import PLAN, Context, World, a_world

OPENED = "Alarm orders-backlog fired. Runbook queue-saturation on orders, mode auto."
TITLE = "orders: messages waiting and age of the oldest in seconds"


@pytest.fixture(scope="module", autouse=True)
def cloudwatch(embedded_aws: EmbeddedAws) -> Iterator[CloudWatch]:
    running = CloudWatch(Settings(resolution_seconds=60))
    running.install(embedded_aws)
    yield running
    running.uninstall()


@pytest.fixture
def world(aws: AwsAccount) -> Iterator[World]:
    with a_world(aws) as made:
        made.aws.client("cloudwatch").put_metric_alarm(
            AlarmName="orders-backlog",
            Namespace="AWS/SQS",
            MetricName="ApproximateNumberOfMessagesVisible",
            Dimensions=[{"Name": "QueueName", "Value": "orders"}],
            Statistic="Maximum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=5000,
            ComparisonOperator="GreaterThanThreshold",
        )
        yield made


def thread(world: World) -> list[Message]:
    return world.slack.thread(world.slack.messages[0].ts)[1:]


def pictures(world: World) -> list[File]:
    return [file for message in thread(world) for file in message.files]


def told(world: World) -> str:
    return world.slack.render_text(world.slack.thread(world.slack.messages[0].ts), width=1000)


def owed(world: World) -> list[str]:
    return [str(row["incident"]) for row in world.store.opened("report")]


def plan(world: World, **fields: Any) -> None:
    world.open(**fields)
    world.note("planned", "Raise it from 20 to 60.", plan=PLAN, phase="acting")


def act(world: World) -> None:
    world.clock.forward(minutes=2)
    world.change()
    world.clock.forward(minutes=10)
    world.note("verified", "orders is drained.")
    world.clock.forward(minutes=2)
    world.put_back()
    world.close("resolved", "orders: drained in 16 min.")


def test_the_thread_has_one_graph_at_the_plan_and_one_at_the_end(world: World) -> None:
    plan(world)
    world.report_with_graphs()
    assert [message.text or message.files[0].title[:57] for message in thread(world)] == [
        f"{OPENED}\nRaise it from 20 to 60.",
        TITLE,
    ]
    act(world)
    world.report_with_graphs()
    world.report_with_graphs()
    first, last = pictures(world)
    assert first.title.startswith(f"{TITLE}, 02:")
    for file in (first, last):
        assert Image.open(io.BytesIO(file.content)).size == (1000, 420)
        assert file.alt.startswith(f"Graph of {file.title}. Threshold: alarm above 5000. Marked: ")
    assert first.content != last.content
    assert "reserved-concurrency 20 to 60 at" in last.alt
    assert last.alt.endswith("orders: drained in 16 min.")
    assert f"[graph: {last.title}]" in told(world)
    assert thread(world)[-1].files == [last]
    assert owed(world) == []


def test_words_come_before_pictures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole batch: the second incident's words do not wait for the first one's picture."""
    for name in ("one", "two"):
        plan(world, name=name, target=f"arn:{name}", target_name=name)
    reporter = world.reporter()
    monkeypatch.setattr(report, "_reporter", lambda: reporter)
    batch = {"Records": [_record("one"), _record("two")]}
    assert report.handler(batch, Context(120)) == {"batchItemFailures": []}
    kinds = ["picture" if message.files else "words" for message in world.slack.messages]
    assert kinds == ["words"] * 4 + ["picture"] * 2


def _record(incident: str) -> dict[str, Any]:
    keys = {"pk": {"S": f"INCIDENT#{incident}"}, "sk": {"S": "RECORD"}}
    return {"eventName": "MODIFY", "dynamodb": {"Keys": keys, "SequenceNumber": incident}}


def test_what_there_is_no_time_for_is_owed_and_made_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(world)
    reporter = world.reporter()
    monkeypatch.setattr(report, "_reporter", lambda: reporter)
    report.handler({"incident": world.run.incident}, Context(59))
    assert pictures(world) == []
    assert owed(world) == [world.run.incident]
    report.handler({"incident": world.run.incident}, Context(120))
    assert len(pictures(world)) == 1
    assert owed(world) == []


def test_a_picture_that_is_shown_does_not_settle_what_else_is_owed(world: World) -> None:
    plan(world)
    world.note("changed", "Raised.", phase="watching", progress={"done": 0.1})
    world.report()
    world.store.note(world.run, None, progress={"done": 0.2})
    world.report_with_graphs()
    assert len(pictures(world)) == 1
    assert owed(world) == [world.run.incident]


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDeniedException", 403), ("Throttling", 400), ("InternalServiceError", 500)],
)
def test_cloudwatch_refuses_and_all_is_told_nonetheless(
    world: World, code: str, status: int
) -> None:
    fault = world.aws.faults.add(
        "cloudwatch", "GetMetricWidgetImage", "error", code=code, status=status, times=99
    )
    plan(world)
    world.report_with_graphs()
    assert fault.hits <= 2
    act(world)
    world.report_with_graphs()
    assert told(world).count("no graph: ") == 1
    assert f"no graph: CloudWatch does not draw it (GetMetricWidgetImage: {code})" in told(world)
    assert "orders: drained in 16 min." in told(world)
    assert pictures(world) == []
    assert owed(world) == []


def test_slack_refuses_and_all_is_told_nonetheless(world: World) -> None:
    world.slack.lacks("files:write")
    plan(world)
    world.report_with_graphs()
    act(world)
    world.report_with_graphs()
    assert told(world).count("no graph: ") == 1
    assert (
        "no graph: Slack files_upload_v2: missing_scope; give the bot the scope files:write"
        in told(world)
    )
    assert "orders: drained in 16 min." in told(world)
    assert owed(world) == []


def test_slack_down_after_the_words_is_only_logged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(step.logger, "warning", lambda said, **_: logged.append(said))
    plan(world)
    reporter = world.reporter()
    reporter.deliver(world.run.incident)
    said = len(world.slack.messages)
    world.slack.down()
    reporter.show_graphs(10)
    world.slack.up()
    assert len(world.slack.messages) == said
    assert logged == ["no graph", "could not say so"]
    assert owed(world) == []


def test_slack_overloaded_is_not_waited_for(world: World) -> None:
    plan(world)
    reporter = world.reporter()
    reporter.deliver(world.run.incident)
    asked = len(world.slack.requests)
    world.slack.rate_limited(99, retry_after=30)
    reporter.show_graphs(10)
    # The picture and the line that would say so, once each.
    assert len(world.slack.requests) - asked == 2


def test_a_crash_between_showing_and_remembering_repeats_one_picture(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(world)
    upload = SlackChannel.upload

    def crash(self: SlackChannel, picture: bytes, **about: str) -> None:
        upload(self, picture, **about)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(SlackChannel, "upload", crash)
        for _ in range(5):
            with pytest.raises(SystemExit):
                world.report_with_graphs()
            assert owed(world) == [world.run.incident]
            world.clock.forward(minutes=5)
            if len(pictures(world)) == 2:
                break
    world.report_with_graphs()
    assert len(pictures(world)) == 2
    assert owed(world) == []


def test_a_mistake_of_ours_fails_no_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> None:
        raise KeyError("oops")

    logged: list[str] = []
    monkeypatch.setattr(step.logger, "exception", lambda said, **_: logged.append(said))
    monkeypatch.setattr(graph_images, "take", wrong)
    plan(world)
    world.report_with_graphs()
    assert "no graph: KeyError" in told(world)
    assert logged == ["no graph"]
    assert owed(world) == []


def test_the_end_is_shown_where_there_was_no_time_for_the_plan(world: World) -> None:
    plan(world)
    act(world)
    world.report_with_graphs()
    (only,) = pictures(world)
    assert only.alt.endswith("orders: drained in 16 min.")


def test_a_rejected_plan_has_its_one_graph(world: World) -> None:
    plan(world, mode="ask")
    world.report_with_graphs()
    world.close("rejected", "Rejected. Nothing was changed.")
    world.report_with_graphs()
    assert len(pictures(world)) == 1


def test_a_storm_and_what_it_gathers_have_no_graph(world: World) -> None:
    world.open("storm-1", target="storm", target_name="many", trigger={"kind": "storm"}, mode="ask")
    plan(world, name="i1", mode="ask", parent="storm-1")
    world.report_with_graphs()
    world.close("rejected", "Rejected.")
    world.report_with_graphs()
    assert world.slack.files == []


def test_a_reporter_that_somebody_else_has_overtaken_leaves_the_picture_to_him(
    world: World,
) -> None:
    plan(world)
    reporter = world.reporter()
    reporter.deliver(world.run.incident)
    world.store.claim_report(world.run.incident, timedelta(seconds=120))
    reporter.show_graphs(10)
    assert pictures(world) == []
    assert world.run.incident in owed(world)


@pytest.mark.parametrize("off", [{"slack_secret": ""}, {"graphs": False}])
def test_where_graphs_are_not_wanted_none_is_owed(world: World, off: dict[str, Any]) -> None:
    plan(world)
    world.report(**off)
    assert owed(world) == []


def test_a_metric_alarm_that_is_gone_has_no_threshold(world: World) -> None:
    world.aws.client("cloudwatch").delete_alarms(AlarmNames=["orders-backlog"])
    plan(world)
    taken = graph_images.take(world.services, world.load())
    assert taken is not None
    assert taken[0].widget["annotations"]["horizontal"] == []


def test_an_unknown_runbook_is_said_to_be_one(world: World) -> None:
    plan(world, runbook="gone")
    with pytest.raises(NoGraph, match="there is no runbook 'gone'"):
        graph_images.take(world.services, world.load())
