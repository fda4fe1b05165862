"""Each trouble that a page offers is done to the playground, and undone."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.aws import EmbeddedAws
from local.playground import Playground
from local.stories import STORIES, in_mode, see_queue
from local.troubles import Trouble, Troubles
from oncall.errors import BadInput, NotFound

STORY = STORIES["queue-saturation"]


@pytest.fixture(scope="module")
def ground(embedded_aws: EmbeddedAws) -> Iterator[Playground]:
    with Playground(aws=embedded_aws.for_account("222222222221")) as made:
        yield made


@pytest.fixture
def troubles(ground: Playground) -> Iterator[Troubles]:
    with Troubles(ground, STORY) as made:
        yield made


def on(troubles: Troubles) -> set[str]:
    return {one["id"] for one in troubles.shown() if one["on"]}


def parameter(ground: Playground, name: str) -> str:
    ssm = ground.account.client("ssm")
    return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])


def test_a_load_reaches_the_queue(
    ground: Playground, troubles: Troubles, eventually: Callable[..., Any]
) -> None:
    look = see_queue(ground)
    assert troubles.do("spike") == "Spike of 400: on its way."
    eventually(lambda: (look()[0].level or 0) > 200)
    eventually(lambda: not any(one["busy"] for one in troubles.shown()))
    assert not any(one["failed"] for one in troubles.shown())


def test_a_load_does_not_start_twice_at_once(
    troubles: Troubles, eventually: Callable[..., Any]
) -> None:
    hold = threading.Event()
    troubles.all = {"spike": Trouble("Spike", "Waits.", hold.wait)}
    troubles.do("spike")
    with pytest.raises(BadInput, match="Spike: it is on its way"):
        troubles.do("spike")
    hold.set()
    eventually(lambda: not troubles.shown()[0]["busy"])
    troubles.do("spike")


def test_what_lasts_is_read_from_where_it_is_and_undone(
    ground: Playground, troubles: Troubles
) -> None:
    downstream = ground.pilot.downstream_parameter
    assert on(troubles) == set()
    troubles.do("slow")
    assert parameter(ground, downstream) == '{"latency_ms": 900}'
    assert on(troubles) == {"slow"}
    troubles.do("failing")
    assert on(troubles) == {"failing"}
    troubles.do("failing")
    assert parameter(ground, downstream) == "off"
    troubles.do("slack")
    troubles.do("stop")
    assert not ground.slack.is_up
    assert parameter(ground, ground.outputs["KillSwitch"]) == "stopped from the page"
    assert on(troubles) == {"slack", "stop"}
    with pytest.raises(NotFound, match="There is no trouble 'primary' here, but spike, poison"):
        troubles.do("primary")


def test_leaving_undoes_what_lasts(ground: Playground) -> None:
    with Troubles(ground, STORY) as troubles:
        for id_ in ("slow", "pagerduty", "stop"):
            troubles.do(id_)
    assert parameter(ground, ground.pilot.downstream_parameter) == "off"
    assert parameter(ground, ground.outputs["KillSwitch"]) == "run"
    assert ground.pagerduty.is_up


def test_a_load_that_does_not_get_through_is_told(
    ground: Playground, troubles: Troubles, eventually: Callable[..., Any]
) -> None:
    sqs = ground.account.client("sqs")
    name = ground.pilot.queue_url.rpartition("/")[2]
    sqs.delete_queue(QueueUrl=ground.pilot.queue_url)
    try:
        troubles.do("poison")
        failed = eventually(
            lambda: next(one["failed"] for one in troubles.shown() if one["id"] == "poison")
        )
        assert "NonExistentQueue" in failed or "does not exist" in failed
    finally:
        sqs.create_queue(QueueName=name)


def test_a_mode_is_on_the_alarm_as_its_tag(ground: Playground) -> None:
    story = in_mode(STORY, "ask")
    story.prepare(ground)
    cloudwatch = ground.account.client("cloudwatch")
    alarm = cloudwatch.describe_alarms(AlarmNames=[ground.pilot.backlog_alarm])["MetricAlarms"][0]
    tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
    assert {"Key": "runbook:mode", "Value": "ask"} in tags
    assert {"Key": "runbook", "Value": "queue-saturation"} in tags
    assert story.patience > STORY.patience
