import json
import threading
import time
from typing import Any

import pytest

from workload.functions.orders.settings import parse
from workload.functions.orders.worker import Downstream
from workload.load import (
    Api,
    ApiAnswer,
    BadLoadError,
    LoadGenerator,
    Pilot,
    SendFailedError,
)

PILOT = Pilot(
    api_url="https://api.example.com/",
    api_function="orders-api",
    queue_url="the-queue",
    queue_arn="arn:aws:sqs:us-east-1:123456789012:orders",
    dead_letter_queue_url="the-dlq",
    orders_table="orders",
    payload_bucket="payloads",
    worker_function="orders-worker",
    worker_mapping_id="mapping",
    back_pressure_parameter="/orders/back-pressure",
    downstream_parameter="/orders/downstream",
    backlog_alarm="orders-backlog",
    oldest_age_alarm="orders-oldest-age",
)


class Queue:
    def __init__(self, *, refuse: bool = False) -> None:
        self.orders: list[dict[str, Any]] = []
        self.refuse = refuse
        self.dead = iter([0] * 1000)

    def send_message_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803 -- boto3's names
        Entries: list[dict[str, str]],  # noqa: N803 -- boto3's names
    ) -> dict[str, Any]:
        assert QueueUrl == "the-queue"
        assert 1 <= len(Entries) <= 10
        if self.refuse:
            return {"Failed": [{"Id": "0", "Message": "busy"}]}
        self.orders += [json.loads(entry["MessageBody"]) for entry in Entries]
        return {}

    def get_queue_attributes(
        self,
        *,
        QueueUrl: str,  # noqa: N803 -- boto3's names
        AttributeNames: list[str],  # noqa: N803 -- boto3's names
    ) -> dict[str, Any]:
        assert QueueUrl == "the-dlq"
        (name,) = AttributeNames
        return {"Attributes": {name: str(next(self.dead))}}


class Parameters:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def put_parameter(self, *, Name: str, Value: str, **_options: Any) -> None:  # noqa: N803 -- boto3's names
        self.values[Name] = Value


class FakeApi(Api):
    """Gives the answers in turn, then 202 for ever."""

    def __init__(self, *answers: ApiAnswer) -> None:
        self.answers = list(answers)
        self.taken: list[str] = []

    def post(self, order: dict[str, Any]) -> ApiAnswer:
        answer = self.answers.pop(0) if self.answers else ApiAnswer(202, {}, None)
        if answer.status == 202:
            self.taken.append(order["order_id"])
        return answer


def generator(queue: Queue, **more: Any) -> LoadGenerator:
    return LoadGenerator(PILOT, sqs=queue, ssm=Parameters(), **more)


def test_a_spike_sends_every_order_once() -> None:
    queue = Queue()

    sent = generator(queue).spike(25)

    assert sent.accepted == len({order["order_id"] for order in queue.orders}) == 25


def test_a_steady_load_keeps_its_rate_and_ends() -> None:
    queue = Queue()

    sent = generator(queue).steady(rate=100, seconds=0.5)

    assert sent.accepted == len(queue.orders) == 50
    assert 0.45 <= sent.seconds < 1


def test_poison_is_marked() -> None:
    queue = Queue()

    generator(queue).poison(3)

    assert [order["poison"] for order in queue.orders] == [True] * 3


def test_a_refused_batch_is_an_error() -> None:
    with pytest.raises(SendFailedError, match="SQS refused 1 orders: busy"):
        generator(Queue(refuse=True)).spike(1)


def test_a_429_is_counted_waited_out_and_the_order_sent_again() -> None:
    api = FakeApi(ApiAnswer(202, {}, None), ApiAnswer(429, {}, 0.2))

    sent = generator(Queue(), api=api).spike(3, channel="api")

    assert (sent.accepted, sent.rejected) == (3, 1)
    assert len(set(api.taken)) == 3
    assert sent.seconds >= 0.2


def test_waiting_out_a_429_ends_with_the_load() -> None:
    api = FakeApi(ApiAnswer(429, {}, 60))

    sent = generator(Queue(), api=api).spike(1, seconds=0.2, channel="api")

    assert (sent.accepted, sent.rejected) == (0, 1)
    assert sent.seconds < 1


def test_a_throttled_caller_tries_again_soon() -> None:
    api = FakeApi(ApiAnswer(429, {"Reason": "ReservedFunctionConcurrentInvocationLimit"}, None))

    sent = generator(Queue(), api=api).spike(1, channel="api")

    assert (sent.accepted, sent.rejected) == (1, 1)
    assert 0.2 <= sent.seconds < 1


def test_a_burst_is_sent_by_so_many_callers_at_a_time_each_order_once() -> None:
    class SlowApi(FakeApi):
        running = most = started = 0
        lock = threading.Lock()
        all_there = threading.Barrier(4)

        def post(self, order: dict[str, Any]) -> ApiAnswer:
            with self.lock:
                self.running += 1
                self.started += 1
                first = self.started <= self.all_there.parties
                self.most = max(self.most, self.running)
            if first:
                self.all_there.wait(10)
            with self.lock:
                self.running -= 1
                return super().post(order)

    api = SlowApi(ApiAnswer(429, {}, None))

    sent = generator(Queue(), api=api).burst(20, callers=4)

    assert (sent.accepted, sent.rejected) == (20, 1)
    assert len(set(api.taken)) == 20
    assert api.most == 4


def test_a_burst_ends_with_its_time_and_when_it_is_stopped() -> None:
    always = [ApiAnswer(429, {}, None)] * 1000
    stop = threading.Event()
    stop.set()

    late = generator(Queue(), api=FakeApi(*always)).burst(50, callers=5, seconds=0.3)
    stopped = generator(Queue(), api=FakeApi(*always), stop=stop).burst(50, callers=5)

    assert (late.accepted, stopped.accepted, stopped.rejected) == (0, 0, 0)
    assert late.rejected >= 5
    assert late.seconds < 1
    assert stopped.seconds < 1


def test_any_other_answer_is_an_error() -> None:
    api = FakeApi(ApiAnswer(500, {"error": "broken"}, None))

    with pytest.raises(SendFailedError, match=r"500.*broken"):
        generator(Queue(), api=api).spike(1, channel="api")


def test_stop_ends_a_load_from_another_thread() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()

    sent = generator(Queue(), stop=stop).steady(rate=20, seconds=60)

    assert sent.accepted < 20
    assert time.monotonic() - started < 2


def test_an_outage_lasts_until_so_many_more_are_dead() -> None:
    queue, parameters = Queue(), Parameters()
    queue.dead = iter([2, 3, 4])
    load = LoadGenerator(PILOT, sqs=queue, ssm=parameters)

    sent = load.outage(12, dead=2, seconds=60, notice=0.1)

    assert (sent.accepted, len(queue.orders)) == (12, 12)
    assert 0.6 <= sent.seconds < 3
    assert load.taken == [order["order_id"] for order in queue.orders]
    assert parameters.values["/orders/downstream"] == "off"


@pytest.mark.parametrize(
    ("seconds", "stopped_after"), [(0.3, 60), (60, 0.3)], ids=["its time", "a stop"]
)
def test_an_outage_ends_with(seconds: float, stopped_after: float) -> None:
    parameters, stop = Parameters(), threading.Event()
    stopping = threading.Timer(stopped_after, stop.set)
    stopping.start()

    sent = LoadGenerator(PILOT, sqs=Queue(), ssm=parameters, stop=stop).outage(
        1, dead=1, seconds=seconds, notice=0
    )

    stopping.cancel()
    assert 0.25 <= sent.seconds < 2
    assert parameters.values["/orders/downstream"] == "off"


def test_an_outage_that_cannot_go_on_leaves_the_downstream_well() -> None:
    parameters = Parameters()
    load = LoadGenerator(PILOT, sqs=Queue(refuse=True), ssm=parameters)

    with pytest.raises(SendFailedError):
        load.outage(1, dead=1, seconds=1, notice=0)

    assert parameters.values["/orders/downstream"] == "off"


def test_trouble_and_recovery_are_what_the_worker_reads() -> None:
    parameters = Parameters()
    load = LoadGenerator(PILOT, sqs=Queue(), ssm=parameters)

    def downstream() -> Downstream:
        return Downstream.parse(parse("downstream", parameters.values["/orders/downstream"]))

    load.slow_downstream(400)
    assert downstream() == Downstream(latency_ms=400)
    load.fail_downstream(0.5)
    assert downstream() == Downstream(error_rate=0.5)
    load.recover()
    assert downstream() == Downstream()


def test_loads_without_a_bound_are_refused() -> None:
    load = generator(Queue())

    for bad in (
        lambda: load.spike(100_001),
        lambda: load.spike(1, seconds=3601),
        lambda: load.burst(1, callers=51),
        lambda: load.burst(100_001, callers=1),
        lambda: load.burst(1, callers=1, seconds=3601),
        lambda: load.steady(-1, 1),
        lambda: load.steady(1, float("nan")),
        lambda: load.poison(-1),
        lambda: load.outage(1, dead=-1, seconds=1),
        lambda: load.outage(1, dead=1, seconds=3601),
        lambda: load.fail_downstream(1.1),
        lambda: load.slow_downstream(-5),
    ):
        with pytest.raises(BadLoadError, match="must be from 0 to"):
            bad()


def test_a_burst_without_callers_is_refused() -> None:
    with pytest.raises(BadLoadError, match="callers must be at least 1"):
        generator(Queue()).burst(1, callers=0)


def test_sending_by_the_api_needs_one() -> None:
    with pytest.raises(BadLoadError, match="give the load generator an Api"):
        generator(Queue()).spike(1, channel="api")
