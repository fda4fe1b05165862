"""The pilot on the embedded AWS: its troubles are real, and so is their relief."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from local.aws import AwsAccount, EmbeddedAws
from workload.load import Api, LoadGenerator, Pilot, main

TEMPLATE = Path(__file__).parents[2] / "workload/template.yaml"


@dataclass
class Running:
    aws: AwsAccount
    pilot: Pilot
    api: Api
    load: LoadGenerator

    def depth(self) -> int:
        """Messages in the queue, visible or in flight."""
        attributes = self.aws.client("sqs").get_queue_attributes(
            QueueUrl=self.pilot.queue_url, AttributeNames=["All"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(
            attributes["ApproximateNumberOfMessagesNotVisible"]
        )

    def processed(self) -> int:
        table = self.aws.client("dynamodb")
        return table.scan(TableName=self.pilot.orders_table, Select="COUNT")["Count"]

    def processed_a_second(self, seconds: float) -> float:
        before, started = self.processed(), time.monotonic()
        time.sleep(seconds)
        return (self.processed() - before) / (time.monotonic() - started)

    def order(self, order_id: str) -> dict[str, Any]:
        table = self.aws.client("dynamodb")
        key = {"order_id": {"S": order_id}}
        return table.get_item(TableName=self.pilot.orders_table, Key=key).get("Item", {})

    def cap(self, concurrency: int) -> None:
        self.aws.client("lambda").update_event_source_mapping(
            UUID=self.pilot.worker_mapping_id, ScalingConfig={"MaximumConcurrency": concurrency}
        )

    def visibility(self, seconds: int) -> None:
        self.aws.client("sqs").set_queue_attributes(
            QueueUrl=self.pilot.queue_url, Attributes={"VisibilityTimeout": str(seconds)}
        )

    def back_pressure(self, value: str) -> None:
        self.aws.client("ssm").put_parameter(
            Name=self.pilot.back_pressure_parameter, Value=value, Type="String", Overwrite=True
        )
        time.sleep(1.1)  # SettingsCacheSeconds


def wait_for(what: str, met: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Running]:
    with EmbeddedAws() as aws:
        outputs = aws.deploy("orders", TEMPLATE, {"SettingsCacheSeconds": "1"})
        pilot = Pilot.from_outputs(outputs)
        api = Api(pilot.api_url, aws.session().get_credentials(), aws.region)
        load = LoadGenerator(pilot, sqs=aws.client("sqs"), ssm=aws.client("ssm"), api=api)
        yield Running(aws, pilot, api, load)


@pytest.fixture
def running(deployed: Running) -> Iterator[Running]:
    yield deployed
    deployed.load.recover()
    deployed.back_pressure("off")
    deployed.cap(20)
    for queue in (deployed.pilot.queue_url, deployed.pilot.dead_letter_queue_url):
        deployed.aws.client("sqs").purge_queue(QueueUrl=queue)
    deployed.visibility(180)
    wait_for("queue empty", lambda: deployed.depth() == 0, 30)
    deployed.cap(2)


def test_a_spike_builds_a_backlog_that_only_more_concurrency_drains(running: Running) -> None:
    running.load.spike(400)
    time.sleep(1)

    capped = running.processed_a_second(3)
    assert running.depth() > 300
    running.cap(10)
    relieved_at = time.monotonic()
    wait_for("drained", lambda: running.depth() == 0, 15)
    drained_in = time.monotonic() - relieved_at

    # Two workers at 100 ms an order do at most 20 a second, so they would have needed 15 s more.
    assert 5 < capped <= 22
    assert drained_in < 12
    assert running.processed() >= 400


def test_a_slow_downstream_lowers_the_throughput_and_its_recovery_restores_it(
    running: Running,
) -> None:
    running.load.slow_downstream(400)
    time.sleep(1.1)
    running.load.spike(40)
    time.sleep(0.5)

    slow = running.processed_a_second(3)
    running.load.recover()

    assert (
        0 < slow <= 6
    )  # two workers at 500 ms an order do 4 a second, healthy ones four times that
    wait_for("drained", lambda: running.depth() == 0, 30)


def test_a_failing_downstream_keeps_orders_in_the_queue_until_it_recovers(running: Running) -> None:
    running.visibility(2)
    before = running.processed()
    running.load.fail_downstream(1)
    time.sleep(1.1)
    running.load.spike(20)

    time.sleep(3)
    assert (running.processed(), running.depth()) == (before, 20)
    running.load.recover()

    wait_for("processed", lambda: running.processed() == before + 20, 20)


def test_poison_goes_to_the_dead_letter_queue_after_five_receives(running: Running) -> None:
    running.visibility(1)
    before = running.processed()
    running.load.poison(2)
    running.load.spike(10)

    sqs = running.aws.client("sqs")
    dead: dict[str, dict[str, Any]] = {}

    def both_dead() -> bool:
        received = sqs.receive_message(
            QueueUrl=running.pilot.dead_letter_queue_url, WaitTimeSeconds=1
        )
        dead.update(
            {message["MessageId"]: dict(message) for message in received.get("Messages", [])}
        )
        return len(dead) == 2

    wait_for("dead letters", both_dead, 30)
    assert all(json.loads(message["Body"])["poison"] for message in dead.values())
    wait_for("the others processed", lambda: running.processed() == before + 10, 5)

    def failures() -> Counter[str]:
        events = running.aws.client("logs").filter_log_events(
            logGroupName=f"/aws/lambda/{running.pilot.worker_function}"
        )["events"]
        lines = [event["message"] for event in events if '"order_failed"' in event["message"]]
        return Counter(json.loads(line)["message_id"] for line in lines)

    wait_for("five tries each", lambda: {failures()[one] for one in dead} == {5}, 5)


def test_an_outage_lets_orders_die_and_ends_when_they_have(running: Running) -> None:
    running.visibility(1)
    before = running.processed()

    sent = running.load.outage(5, dead=3, seconds=60, notice=1)

    # Those that are not dead by now, at most two, either die or are processed.
    assert sent.accepted == 5
    assert 5 <= sent.seconds < 60
    wait_for("queue empty", lambda: running.depth() == 0, 10)
    dead = running.aws.client("sqs").get_queue_attributes(
        QueueUrl=running.pilot.dead_letter_queue_url, AttributeNames=["All"]
    )["Attributes"]["ApproximateNumberOfMessages"]
    assert int(dead) >= 3
    wait_for("the others processed", lambda: running.processed() == before + 5 - int(dead), 5)


def test_back_pressure_turns_orders_away_until_it_is_put_back(running: Running) -> None:
    running.back_pressure('{"state": "on", "retry_after_seconds": 1}')
    turned_away = running.load.spike(3, seconds=1.5, channel="api")
    answer = running.api.post({"order_id": str(uuid.uuid4())})
    running.back_pressure("off")
    taken = running.load.spike(3, channel="api")

    assert turned_away.accepted == 0
    assert turned_away.rejected >= 1
    assert (answer.status, answer.retry_after_seconds) == (429, 1)
    assert (taken.accepted, taken.rejected) == (3, 0)


def test_a_burst_is_throttled_until_the_reservation_is_raised(running: Running) -> None:
    aws = running.aws.for_account("333333333333")
    slow = {"ApiMilliseconds": "300", "ApiReservedConcurrency": "2"}
    pilot = Pilot.from_outputs(aws.deploy("orders", TEMPLATE, slow))
    api = Api(pilot.api_url, aws.session().get_credentials(), aws.region)
    load = LoadGenerator(pilot, sqs=aws.client("sqs"), ssm=aws.client("ssm"), api=api)

    alone = load.spike(2, channel="api")
    throttled = load.burst(12, callers=6)
    aws.client("lambda").put_function_concurrency(
        FunctionName=pilot.api_function, ReservedConcurrentExecutions=6
    )
    relieved = load.burst(60, callers=6)

    assert (alone.accepted, alone.rejected) == (2, 0)
    assert throttled.accepted == 12
    assert throttled.rejected > 12
    assert (relieved.accepted, relieved.rejected) == (60, 0)
    assert relieved.rate > throttled.rate
    aws.delete_stack("orders")


def test_a_big_order_travels_by_s3(running: Running) -> None:
    order_id = str(uuid.uuid4())
    order = {"order_id": order_id, "note": "x" * 300_000}

    assert running.api.post(order).status == 202

    wait_for("processed", lambda: running.order(order_id), 10)
    assert running.order(order_id)["payload_bytes"]["N"] == str(len(json.dumps(order)))
    stored = running.aws.client("s3").list_objects_v2(
        Bucket=running.pilot.payload_bucket, Prefix=f"orders/{order_id}/"
    )
    assert stored["KeyCount"] == 1


def test_an_order_sent_twice_is_kept_once(running: Running) -> None:
    order_id = str(uuid.uuid4())
    before = running.processed()

    first = running.api.post({"order_id": order_id})
    wait_for("processed", lambda: running.order(order_id), 10)
    item = running.order(order_id)
    second = running.api.post({"order_id": order_id})
    wait_for("queue empty", lambda: running.depth() == 0, 10)

    assert (first.status, second.status) == (202, 202)
    assert running.order(order_id) == item
    assert running.processed() == before + 1


def test_what_runbooks_may_touch_is_tagged(running: Running) -> None:
    sqs, functions = running.aws.client("sqs"), running.aws.client("lambda")
    worker = functions.get_function(FunctionName=running.pilot.worker_function)
    api = functions.get_function(FunctionName=running.pilot.api_function)
    mapping = functions.get_event_source_mapping(UUID=running.pilot.worker_mapping_id)
    parameter = running.aws.client("ssm").list_tags_for_resource(
        ResourceType="Parameter", ResourceId=running.pilot.back_pressure_parameter
    )

    for tags in (
        sqs.list_queue_tags(QueueUrl=running.pilot.queue_url)["Tags"],
        sqs.list_queue_tags(QueueUrl=running.pilot.dead_letter_queue_url)["Tags"],
        worker["Tags"],
        api["Tags"],
        functions.list_tags(Resource=mapping["EventSourceMappingArn"])["Tags"],
        {tag["Key"]: tag["Value"] for tag in parameter["TagList"]},
    ):
        assert tags["runbook-automation"] == "enabled"
    source = sqs.list_queue_tags(QueueUrl=running.pilot.queue_url)["Tags"]
    assert source["runbook:idempotent"] == "yes"


def test_the_command_line_makes_and_ends_trouble(running: Running) -> None:
    before = running.processed()

    def run(*arguments: str) -> str:
        options = ("--stack", "orders", "--endpoint-url", running.aws.endpoint_url)
        result = CliRunner().invoke(main, [*options, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def downstream() -> str:
        return running.aws.client("ssm").get_parameter(Name=running.pilot.downstream_parameter)[
            "Parameter"
        ]["Value"]

    sent = json.loads(run("spike", "--count", "3", "--by", "api"))
    assert (sent["accepted"], sent["rejected"]) == (3, 0)
    sent = json.loads(run("burst", "--count", "4", "--callers", "2"))
    assert (sent["accepted"], sent["rejected"]) == (4, 0)
    wait_for("processed", lambda: running.processed() == before + 7, 10)
    run("slow-downstream", "--latency-ms", "5")
    assert json.loads(downstream()) == {"latency_ms": 5}
    run("recover")
    assert downstream() == "off"


def test_a_pilot_can_be_left_alone_and_have_its_mode_and_other_runbooks(running: Running) -> None:
    other = running.aws.for_account("222222222222")
    outputs = other.deploy(
        "shop",
        TEMPLATE,
        {
            "Name": "shop",
            "RunbookAutomation": "disabled",
            "RunbookMode": "observe",
            "DlqReplayRunbook": "deployed",
            "LambdaThrottlesRunbook": "deployed",
        },
    )
    alarms = other.client("cloudwatch")
    runbooks = {}
    for alarm in alarms.describe_alarms()["MetricAlarms"]:
        found = alarms.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
        tags = {tag["Key"]: tag["Value"] for tag in found}
        runbooks[alarm["AlarmName"]] = (tags["runbook"], tags["runbook:mode"])

    assert runbooks == {
        "shop-backlog": ("queue-saturation", "observe"),
        "shop-oldest-age": ("queue-saturation", "observe"),
        "shop-dead-letters": ("dlq-replay", "observe"),
        "shop-worker-throttles": ("lambda-throttles", "observe"),
        "shop-api-throttles": ("lambda-throttles", "observe"),
    }
    queue = other.client("sqs").list_queue_tags(QueueUrl=outputs["QueueUrl"])["Tags"]
    assert queue["runbook-automation"] == "disabled"
    other.delete_stack("shop")
