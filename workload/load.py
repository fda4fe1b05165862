"""Make real trouble for the pilot: spikes, many callers, poison, an ill downstream; and end it.

    python -m workload.load --stack orders spike --count 600

A LoadGenerator can be imported as well. All sending is bounded in count and time.
"""

import json
import math
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Literal

import boto3
import click
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

MAX_COUNT = 100_000
MAX_SECONDS = 3600.0
MAX_CALLERS = 50
BATCH = 10  # messages in one SendMessageBatch
TICK_SECONDS = 0.1
LOOK_SECONDS = 0.5
# The API says with its 429 when to come back; Lambda, which throttles before it, does not.
THROTTLED_RETRY_SECONDS = 0.2

type Channel = Literal["queue", "api"]
type Order = dict[str, Any]


class BadLoadError(ValueError):
    """A load that makes no sense or has no bound."""


class SendFailedError(Exception):
    """The queue or the API answered with something that is neither yes nor "later"."""


@dataclass(frozen=True)
class Pilot:
    """The names of a deployed pilot, as its stack's outputs give them."""

    api_url: str
    api_function: str
    queue_url: str
    queue_arn: str
    dead_letter_queue_url: str
    orders_table: str
    payload_bucket: str
    worker_function: str
    worker_mapping_id: str
    back_pressure_parameter: str
    downstream_parameter: str
    backlog_alarm: str
    oldest_age_alarm: str
    api_throttles_alarm: str = ""
    """Empty where no runbook lambda-throttles is deployed."""
    dead_letters_alarm: str = ""
    """Empty where no runbook dlq-replay is deployed."""

    @classmethod
    def from_stack(cls, cloudformation: Any, stack: str) -> "Pilot":
        """Read the outputs of the stack; raises botocore's ClientError if there is none."""
        found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
        return cls.from_outputs({one["OutputKey"]: one["OutputValue"] for one in found})

    @classmethod
    def from_outputs(cls, outputs: dict[str, str]) -> "Pilot":
        """Name the outputs of workload/template.yaml."""
        return cls(
            api_url=outputs["ApiUrl"],
            api_function=outputs["ApiFunctionName"],
            queue_url=outputs["QueueUrl"],
            queue_arn=outputs["QueueArn"],
            dead_letter_queue_url=outputs["DeadLetterQueueUrl"],
            orders_table=outputs["OrdersTableName"],
            payload_bucket=outputs["PayloadBucketName"],
            worker_function=outputs["WorkerFunctionName"],
            worker_mapping_id=outputs["WorkerMappingId"],
            back_pressure_parameter=outputs["BackPressureParameterName"],
            downstream_parameter=outputs["DownstreamParameterName"],
            backlog_alarm=outputs["BacklogAlarmName"],
            oldest_age_alarm=outputs["OldestAgeAlarmName"],
            api_throttles_alarm=outputs.get("ApiThrottlesAlarmName", ""),
            dead_letters_alarm=outputs.get("DeadLettersAlarmName", ""),
        )


@dataclass(frozen=True)
class Sent:
    """What came of a load: orders accepted, answers of 429, and the seconds it took."""

    accepted: int
    rejected: int
    seconds: float

    @property
    def rate(self) -> float:
        """Accepted orders a second."""
        return self.accepted / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ApiAnswer:
    """One answer of the API: HTTP status, JSON body, and seconds to wait if it said so."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: float | None


class Api:
    """Sends orders to the function URL, signed with SigV4.

    `credentials` are botocore's, for example `session.get_credentials()`.
    """

    def __init__(self, url: str, credentials: Any, region: str) -> None:
        self._url = url
        self._signer = SigV4Auth(credentials, "lambda", region)
        self._http = URLLib3Session(timeout=30, max_pool_connections=MAX_CALLERS)

    def post(self, order: Order) -> ApiAnswer:
        """Send one order; raises botocore's HTTPClientError if nobody answers."""
        headers = {"Content-Type": "application/json"}
        request = AWSRequest("POST", self._url, headers=headers, data=json.dumps(order))
        self._signer.add_auth(request)
        answer = self._http.send(request.prepare())
        wait = answer.headers.get("Retry-After")
        try:
            body = json.loads(answer.content)
        except ValueError:
            body = {"error": answer.text}
        return ApiAnswer(answer.status_code, body, float(wait) if wait else None)


class LoadGenerator:
    """Puts load and trouble on one pilot.

    `stop` ends any sending early from another thread.
    """

    def __init__(
        self,
        pilot: Pilot,
        *,
        sqs: Any,
        ssm: Any,
        api: Api | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._pilot = pilot
        self._sqs = sqs
        self._ssm = ssm
        self._api = api
        self._stop = stop or threading.Event()
        self.taken: list[str] = []
        """The ids of the orders that the queue or the API took."""

    def steady(self, rate: float, seconds: float, channel: Channel = "queue") -> Sent:
        """Send `rate` orders a second for `seconds`."""
        count = math.floor(
            bounded("rate", rate, MAX_COUNT) * bounded("seconds", seconds, MAX_SECONDS)
        )
        # The last orders of the last tick may leave a tick late.
        return self._send(new_orders(count), seconds + TICK_SECONDS, channel, rate)

    def spike(self, count: int, seconds: float = 60, channel: Channel = "queue") -> Sent:
        """Send `count` orders as fast as they are taken, for at most `seconds`."""
        return self._send(new_orders(count), seconds, channel)

    def burst(self, count: int, callers: int, seconds: float = 60) -> Sent:
        """Send `count` orders by the API, `callers` at a time, for at most `seconds`.

        A caller that is throttled tries again until its order is taken: the less the API is let
        do at a time, the longer it lasts.
        """
        if callers < 1:
            raise BadLoadError(f"callers must be at least 1; it is {callers}.")
        bounded("callers", callers, MAX_CALLERS)
        orders = iter(new_orders(count))
        started = time.monotonic()
        deadline = started + bounded("seconds", seconds, MAX_SECONDS)

        def call(_caller: int) -> list[Sent]:
            return [
                self._send([order], max(0.0, deadline - time.monotonic()), "api")
                for order in orders  # which the callers share
            ]

        with ThreadPoolExecutor(callers) as pool:
            sent = [one for done in pool.map(call, range(callers)) for one in done]
        return Sent(
            accepted=sum(one.accepted for one in sent),
            rejected=sum(one.rejected for one in sent),
            seconds=time.monotonic() - started,
        )

    def poison(self, count: int) -> Sent:
        """Send `count` orders that the worker can never process."""
        return self._send(new_orders(count, poison=True), MAX_SECONDS, "queue")

    def outage(self, count: int, dead: int, seconds: float, notice: float = 5) -> Sent:
        """Let the downstream fail until `dead` letters are there, for at most `seconds`.

        `count` orders come `notice` seconds after it began, when every worker has read of it
        (SettingsCacheSeconds). An order is dead when its visibility timeout is over for the
        MaxReceiveCount-th time, so some more die when the downstream is well again.
        """
        bounded("dead", dead, MAX_COUNT)
        started = time.monotonic()
        deadline = started + bounded("seconds", seconds, MAX_SECONDS)
        before = self._dead()
        self.fail_downstream(1)
        try:
            self._stop.wait(min(bounded("notice", notice, MAX_SECONDS), seconds))
            sent = self.spike(count, max(0.0, deadline - time.monotonic()))
            while self._dead() - before < dead and (left := deadline - time.monotonic()) > 0:
                if self._stop.wait(min(LOOK_SECONDS, left)):
                    break
        finally:
            self.recover()
        return Sent(sent.accepted, sent.rejected, time.monotonic() - started)

    def slow_downstream(self, latency_ms: float) -> None:
        """Make every call of the worker's downstream take this much longer."""
        self._set_downstream({"latency_ms": bounded("latency_ms", latency_ms, 60_000)})

    def fail_downstream(self, error_rate: float) -> None:
        """Make this share (0 to 1) of the calls of the worker's downstream fail."""
        self._set_downstream({"error_rate": bounded("error_rate", error_rate, 1)})

    def recover(self) -> None:
        """Make the downstream healthy again; sent orders stay where they are."""
        self._put_parameter(self._pilot.downstream_parameter, "off")

    def _dead(self) -> int:
        name = "ApproximateNumberOfMessages"
        url = self._pilot.dead_letter_queue_url
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return int(found["Attributes"][name])

    def _set_downstream(self, behaviour: dict[str, float]) -> None:
        self._put_parameter(self._pilot.downstream_parameter, json.dumps(behaviour))

    def _put_parameter(self, name: str, value: str) -> None:
        self._ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)

    def _send(
        self,
        orders: list[Order],
        seconds: float,
        channel: Channel,
        rate: float = math.inf,
    ) -> Sent:
        send, size = (self._to_api, 1) if channel == "api" else (self._to_queue, BATCH)
        started = time.monotonic()
        deadline = started + bounded("seconds", seconds, MAX_SECONDS + TICK_SECONDS)
        accepted = rejected = 0
        while accepted < len(orders) and not self._stop.is_set():
            now = time.monotonic()
            if now >= deadline:
                break
            due = min(len(orders), (now - started) * rate) if rate < math.inf else len(orders)
            if due - accepted < 1:
                self._stop.wait(min(TICK_SECONDS, deadline - now))
                continue
            some = orders[accepted : min(math.floor(due), accepted + size)]
            taken, retry_after = send(some)
            self.taken.extend(order["order_id"] for order in some[:taken])
            accepted += taken
            if retry_after is not None:
                rejected += 1
                self._stop.wait(min(retry_after, max(0.0, deadline - time.monotonic())))
        return Sent(accepted, rejected, time.monotonic() - started)

    def _to_queue(self, orders: list[Order]) -> tuple[int, float | None]:
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(order)}
            for number, order in enumerate(orders)
        ]
        answer = self._sqs.send_message_batch(QueueUrl=self._pilot.queue_url, Entries=entries)
        # SendMessageBatch answers 200 for a batch of which a part failed.
        if failed := answer.get("Failed"):
            raise SendFailedError(f"SQS refused {len(failed)} orders: {failed[0]['Message']}.")
        return len(orders), None

    def _to_api(self, orders: list[Order]) -> tuple[int, float | None]:
        if self._api is None:
            raise BadLoadError("To send by the API, give the load generator an Api.")
        (order,) = orders
        answer = self._api.post(order)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return 0, answer.retry_after_seconds or THROTTLED_RETRY_SECONDS
        if answer.status != HTTPStatus.ACCEPTED:
            raise SendFailedError(f"The API answered {answer.status}: {answer.body}.")
        return 1, None


def new_orders(count: int, *, poison: bool = False) -> list[Order]:
    """Make `count` orders with ids of their own."""
    bounded("count", count, MAX_COUNT)
    flag: Order = {"poison": True} if poison else {}
    return [{"order_id": str(uuid.uuid4()), **flag} for _ in range(count)]


def bounded(name: str, value: float, most: float) -> float:
    """Return the value; raises BadLoadError unless it lies between 0 and `most`."""
    if not 0 <= value <= most:
        raise BadLoadError(f"{name} must be from 0 to {most:g}, for example 1; it is {value}.")
    return value


@click.group()
@click.option("--stack", default="orders", show_default=True, help="Name of the pilot's stack.")
@click.option("--endpoint-url", envvar="AWS_ENDPOINT_URL", help="An emulator's URL.")
@click.option("--region", envvar="AWS_REGION", default="us-east-1", show_default=True)
@click.pass_context
def main(context: click.Context, stack: str, endpoint_url: str | None, region: str) -> None:
    """Put load and trouble on the pilot."""
    session = boto3.Session(region_name=region)

    def client(service: str) -> Any:
        # The stubs type each service by its literal name; here it is a variable.
        return session.client(service, endpoint_url=endpoint_url)  # type: ignore[call-overload]  # see above

    pilot = Pilot.from_stack(client("cloudformation"), stack)
    context.obj = LoadGenerator(
        pilot,
        sqs=client("sqs"),
        ssm=client("ssm"),
        api=Api(pilot.api_url, session.get_credentials(), region),
    )


CHANNEL = click.option(
    "--by",
    "channel",
    type=click.Choice(["queue", "api"]),
    default="queue",
    show_default=True,
    help="Straight to SQS, or by the function URL.",
)


@main.command()
@click.option("--rate", type=float, required=True, help="Orders a second.")
@click.option("--seconds", type=float, required=True)
@CHANNEL
@click.pass_obj
def steady(load: LoadGenerator, rate: float, seconds: float, channel: Channel) -> None:
    """Send orders at an even rate."""
    tell(load.steady(rate, seconds, channel))


@main.command()
@click.option("--count", type=int, required=True)
@click.option("--seconds", type=float, default=60, show_default=True, help="At most this long.")
@CHANNEL
@click.pass_obj
def spike(load: LoadGenerator, count: int, seconds: float, channel: Channel) -> None:
    """Send orders as fast as they are taken."""
    tell(load.spike(count, seconds, channel))


@main.command()
@click.option("--count", type=int, required=True)
@click.option("--callers", type=int, default=10, show_default=True, help="So many at a time.")
@click.option("--seconds", type=float, default=60, show_default=True, help="At most this long.")
@click.pass_obj
def burst(load: LoadGenerator, count: int, callers: int, seconds: float) -> None:
    """Send orders by the function URL, many at a time; beyond its reservation it is throttled."""
    tell(load.burst(count, callers, seconds))


@main.command()
@click.option("--count", type=int, default=10, show_default=True)
@click.pass_obj
def poison(load: LoadGenerator, count: int) -> None:
    """Send orders that can never be processed."""
    tell(load.poison(count))


@main.command()
@click.option("--count", type=int, default=10, show_default=True)
@click.option("--dead", type=int, default=1, show_default=True, help="It fails until so many are.")
@click.option("--seconds", type=float, default=1800, show_default=True, help="At most this long.")
@click.pass_obj
def outage(load: LoadGenerator, count: int, dead: int, seconds: float) -> None:
    """Let the downstream fail until orders lie dead, then recover it."""
    tell(load.outage(count, dead, seconds))


@main.command()
@click.option("--latency-ms", type=float, required=True)
@click.pass_obj
def slow_downstream(load: LoadGenerator, latency_ms: float) -> None:
    """Slow the worker's downstream down."""
    load.slow_downstream(latency_ms)


@main.command()
@click.option("--error-rate", type=float, required=True, help="0 to 1.")
@click.pass_obj
def fail_downstream(load: LoadGenerator, error_rate: float) -> None:
    """Let the worker's downstream fail."""
    load.fail_downstream(error_rate)


@main.command()
@click.pass_obj
def recover(load: LoadGenerator) -> None:
    """Make the downstream healthy again."""
    load.recover()


def tell(sent: Sent) -> None:
    """Print one JSON document."""
    click.echo(json.dumps({**asdict(sent), "rate": round(sent.rate, 1)}))


if __name__ == "__main__":
    main()
