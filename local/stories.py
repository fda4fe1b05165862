"""Stories: what is done to the pilot, and what there is to see of it meanwhile.

A story of a new runbook is one entry of ``STORIES``; a view only where it looks at something new.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from local import shop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

    from local.aws import AwsAccount
    from local.playground import Playground
    from workload.load import Pilot

_LAST_ORDERS_SECONDS = 15
_LOOK_SECONDS = 0.4
_LATEST_CALLS = 100
_ANSWER_SECONDS = 120
"""How long a person may read the plan before the next in line is asked."""


@dataclass(frozen=True, slots=True)
class Plotted:
    """How a level is plotted over time."""

    title: str
    unit: str
    alarmed: bool = False
    """Whether the alarm's threshold is one of this level."""
    setting: bool = False
    """Whether it is what somebody has set, and not what comes of it."""
    most: int | None = None
    """The greatest that it can be, where there is such a thing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of what there is to see; ``level`` is what a graph of it draws."""

    name: str
    text: str
    level: int | None = None
    plot: Plotted | None = None

    @property
    def is_setting(self) -> bool:
        """Whether the level is what somebody has set."""
        return self.plot is not None and self.plot.setting


_WAITING = Plotted("Orders that wait", "messages", alarmed=True)
_CAP = Plotted("The worker's maximum concurrency", "at once", setting=True)
_THROTTLED = Plotted("Calls that the API is refused", "a second", alarmed=True)
_RESERVED = Plotted("The API's reserved concurrency", "at once", setting=True)
_DEAD = Plotted("Dead letters", "messages", alarmed=True)
_BEHIND = Plotted("Orders that wait", "messages")
_FAILED = Plotted("Calls of clients that fail", "a second", alarmed=True)
_SHARE = Plotted("Name servers that send clients to the standby", "%", most=100)


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent to the pilot: in words, and for at most so many seconds."""

    words: str
    send: Callable[[Any, float], object]
    """Called with what the story's ``sender`` makes."""


@dataclass(frozen=True, slots=True)
class Story:
    """What is played: a runbook, the trouble that it is for, and where that is to be seen."""

    id: str
    title: str
    runbook: str
    steady: Load
    """Sent all along."""
    trouble: Load
    """Ends by itself."""
    alarm: Callable[[Playground], str]
    """The name of the alarm that fires."""
    view: Callable[[Playground], Callable[[], Sequence[Row]]]
    relieved: str = "relieved"
    """What the trouble is when a look lets the settings go back."""
    left: str = "nothing is left changed, locked or leased"
    """What is said where all is as it should be in the end."""
    runbooks: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the runbooks' template."""
    pilot: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the pilot's template."""
    own_aws: bool = False
    """Whether it plays only on an emulator of its own, as one that needs name servers does."""
    prepare: Callable[[Playground], object] = lambda _: None
    """What is done to the deployed stack before the trouble, and before anything is watched."""
    sender: Callable[[Playground, Event], Any] = lambda ground, stop: ground.load(stop=stop)
    """Makes what sends the loads until the event is set; has the ids of orders as ``taken``."""
    missing: Callable[[Playground, Sequence[str]], Sequence[str]] = lambda _ground, _orders: ()
    """Sentences on what the pilot owes in the end, given the ids of the orders that it took."""
    patience: float = 90.0
    """Seconds from the trouble to the last word told."""
    mode: str = ""
    """How the run is to go, ``observe``, ``ask`` or ``auto``; otherwise as the runbook has it."""
    injects: Sequence[str] = ()
    """What a person may do to it while it plays: ids of ``local.troubles``."""


def see_queue(ground: Playground) -> Callable[[], Sequence[Row]]:
    """Watch the queue's depth and how much of it is worked on at a time."""
    aws, pilot = ground.account, ground.pilot
    sqs, functions = aws.client("sqs"), aws.client("lambda")

    def look() -> Sequence[Row]:
        waiting, in_flight = _depth(sqs, pilot.queue_url)
        mapping = functions.get_event_source_mapping(UUID=pilot.worker_mapping_id)
        cap = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
        return (
            Row("queue", f"{waiting} waiting, {in_flight} in flight", waiting, _WAITING),
            Row("worker", f"at most {cap} at once" if cap else "no cap", cap, _CAP),
        )

    return look


def see_api(ground: Playground) -> Callable[[], Sequence[Row]]:
    """Watch what the API is refused in a second, its concurrency and its reservation."""
    aws, pilot = ground.account, ground.pilot
    cloudwatch, functions = aws.client("cloudwatch"), aws.client("lambda")

    def query(metric: str, statistic: str) -> Any:
        dimensions = [{"Name": "FunctionName", "Value": pilot.api_function}]
        source = {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": dimensions}
        stat = {"Metric": source, "Period": 1, "Stat": statistic}
        return {"Id": metric.lower(), "MetricStat": stat}

    def look() -> Sequence[Row]:
        # The second before this one: the running one is not published yet.
        now = datetime.now(UTC).replace(microsecond=0)
        found = cloudwatch.get_metric_data(
            MetricDataQueries=[query("Throttles", "Sum"), query("ConcurrentExecutions", "Maximum")],
            StartTime=now - timedelta(seconds=2),
            EndTime=now - timedelta(seconds=1),
        )["MetricDataResults"]
        throttled, running = (int(one["Values"][0]) if one["Values"] else 0 for one in found)
        answer = functions.get_function_concurrency(FunctionName=pilot.api_function)
        # The type stubs do not know that it is absent where nothing is reserved.
        reserved: int | None = dict(answer).get("ReservedConcurrentExecutions")  # type: ignore[assignment]  # as above
        kept = "none" if reserved is None else reserved
        return (
            Row("calls", f"{throttled} throttled a second", throttled, _THROTTLED),
            Row("api", f"{running} at once, {kept} reserved", reserved, _RESERVED),
        )

    return look


def see_dead_letters(ground: Playground) -> Callable[[], Sequence[Row]]:
    """Watch the downstream, the dead letters, the queue that they come from, and what is done."""
    aws, pilot = ground.account, ground.pilot
    sqs, ssm = aws.client("sqs"), aws.client("ssm")

    def look() -> Sequence[Row]:
        name = pilot.downstream_parameter
        well = ssm.get_parameter(Name=name)["Parameter"]["Value"] == "off"
        dead, held = _depth(sqs, pilot.dead_letter_queue_url)
        waiting, in_flight = _depth(sqs, pilot.queue_url)
        return (
            Row("downstream", "downstream well" if well else "downstream failing"),
            Row("dead letters", f"dead letters: {dead} waiting, {held} in flight", dead, _DEAD),
            Row("queue", f"orders: {waiting} waiting, {in_flight} in flight", waiting, _BEHIND),
            Row("orders", f"{len(_written(aws, pilot))} written"),
        )

    return look


def see_shop(ground: Playground) -> Callable[[], Sequence[Row]]:
    """Watch who answers the shop's clients, what name servers tell them, and the consumers."""
    watched = ground.shop

    def look() -> Sequence[Row]:
        since = time.monotonic() - 1
        calls = [call for call in watched.calls[-_LATEST_CALLS:] if call.at > since]
        failed = sum(not call.well for call in calls)
        answers = watched.answers()
        moved = [given == frozenset({shop.ADDRESSES["standby"]}) for given in answers.values()]
        share = round(100 * sum(moved) / max(1, len(moved)))
        states = ", ".join(f"{where} {state}" for where, state in watched.consumers().items())
        return (
            Row("clients", f"clients: {shop.shares(calls)}", failed, _FAILED),
            Row("errors", f"{failed} errors a second"),
            Row("dns", f"name servers: {shop.told(answers, watched.region_of())}", share, _SHARE),
            Row("consumers", f"consumers: {states}"),
        )

    return look


def missing_clients(ground: Playground, _orders: Sequence[str]) -> Sequence[str]:
    """Say who is not at the standby in the end, and that the recovery time was not told."""
    at = ground.shop
    address, region = shop.ADDRESSES["standby"], at.regions["standby"]
    said = shop.astray(at.answers(), at.calls, address, region)
    if not any("Recovery time" in message.text for message in ground.slack.messages):
        said.append("the thread does not tell the recovery time")
    return said


def missing_orders(ground: Playground, orders: Sequence[str]) -> Sequence[str]:
    """Say what of the orders is not written, waiting for the last of them, and what lies dead."""
    until = time.monotonic() + _LAST_ORDERS_SECONDS
    while lost := set(orders) - _written(ground.account, ground.pilot):
        if time.monotonic() > until:
            break
        time.sleep(_LOOK_SECONDS)
    dead = sum(_depth(ground.account.client("sqs"), ground.pilot.dead_letter_queue_url))
    said = [f"{len(lost)} of {len(orders)} orders are not written"] if lost else []
    return [*said, f"{dead} orders lie dead"] if dead else said


def _depth(sqs: SQSClient, url: str) -> tuple[int, int]:
    """Return how many of a queue's messages wait, and how many are in flight."""
    names: Sequence[QueueAttributeNameType] = (
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
    )
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def _written(aws: AwsAccount, pilot: Pilot) -> set[str]:
    """Return the ids of the orders in the pilot's table; each is a key, so it is there once."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=pilot.orders_table, ProjectionExpression="order_id")
    )
    return {item["order_id"]["S"] for page in pages for item in page["Items"]}


def set_kill_switch(ground: Playground, value: str) -> None:
    """Write the kill switch of all runbooks; ``run`` lets them."""
    ground.account.client("ssm").put_parameter(
        Name=ground.outputs["KillSwitch"], Value=value, Overwrite=True
    )


def in_mode(story: Story, mode: str) -> Story:
    """Return the story with its alarm tagged with a mode, and time for people to answer."""

    def prepare(ground: Playground) -> None:
        story.prepare(ground)
        cloudwatch = ground.account.client("cloudwatch")
        found = cloudwatch.describe_alarms(AlarmNames=[story.alarm(ground)])["MetricAlarms"]
        cloudwatch.tag_resource(
            ResourceARN=found[0]["AlarmArn"], Tags=[{"Key": "runbook:mode", "Value": mode}]
        )

    asked = replace(story, mode=mode, prepare=prepare)
    if mode == "observe":
        # What is only observed is still there in the end.
        return replace(asked, missing=lambda _ground, _orders: ())
    if mode == "ask":
        wait = {"AnswerWithinSeconds": str(_ANSWER_SECONDS)}
        patience = story.patience + 2 * _ANSWER_SECONDS
        return replace(asked, runbooks={**story.runbooks, **wait}, patience=patience)
    return asked


_ALWAYS = ("slack", "pagerduty", "stop")

_SATURATION = Story(
    id="queue-saturation",
    title="A burst of orders saturates a queue",
    runbook="queue-saturation",
    steady=Load("15 orders a second", lambda load, seconds: load.steady(15, seconds)),
    trouble=Load("A burst of 400 orders", lambda load, seconds: load.spike(400, seconds)),
    alarm=lambda ground: ground.pilot.backlog_alarm,
    view=see_queue,
    relieved="drained",
    injects=("spike", "poison", "slow", "failing", *_ALWAYS),
)
_KILL_SWITCH = replace(
    _SATURATION,
    id="kill-switch",
    title="The same burst, with the kill switch thrown: nothing is changed, on-call is woken",
    prepare=lambda ground: set_kill_switch(ground, "stopped by the story"),
)
_THROTTLES = Story(
    id="lambda-throttles",
    title="More callers than its reservation lets through are throttled at the API",
    runbook="lambda-throttles",
    # One caller never has two executions at a time: the reservation is enough for it.
    steady=Load(
        "2 orders a second by the API", lambda load, seconds: load.steady(2, seconds, "api")
    ),
    # Enough to last until the change; the reservation goes back when one execution would do again.
    trouble=Load(
        "5 callers send 70 orders by the API",
        lambda load, seconds: load.burst(70, callers=5, seconds=seconds),
    ),
    alarm=lambda ground: ground.pilot.api_throttles_alarm,
    view=see_api,
    injects=("callers", *_ALWAYS),
    pilot={
        "ApiReservedConcurrency": "2",
        "ApiMilliseconds": "300",
        # The orders that get through are not to saturate the queue as well.
        "WorkMilliseconds": "20",
        "LambdaThrottlesRunbook": "deployed",
    },
)
_DEAD_LETTERS = Story(
    id="dlq-replay",
    title="Orders die while the worker's downstream fails; it recovers, they lie there",
    runbook="dlq-replay",
    steady=Load("An order a second", lambda load, seconds: load.steady(1, seconds)),
    trouble=Load(
        "The downstream fails while 30 orders come, until the first are dead",
        lambda load, seconds: load.outage(30, dead=1, seconds=seconds, notice=1),
    ),
    alarm=lambda ground: ground.pilot.dead_letters_alarm,
    view=see_dead_letters,
    relieved="worked off",
    pilot={
        "DlqReplayRunbook": "deployed",
        # The queue's owner has declared that its worker bears a replay.
        "RunbookMode": "auto",
        "WorkerTimeoutSeconds": "1",
        # A batch fits well into the timeout; an order takes as long in a batch that fails as alone
        # in one that does not, or the worker seems slow to whoever compares the two.
        "BatchSize": "5",
        "WorkMilliseconds": "60",
        # All orders in one go: after a batch that fails, Lambda polls more slowly.
        "MaximumConcurrency": "6",
        # From the first to the last death it takes a visibility timeout and a little more.
        "DeadLettersEvaluationPeriods": "9",
    },
    missing=missing_orders,
    patience=150,
    injects=("spike", "poison", "slow", "failing", *_ALWAYS),
)
_TOO_EARLY = replace(
    _DEAD_LETTERS,
    id="dlq-replay-too-early",
    title="The same outage, still on when the alarm fires: nothing is replayed, on-call is woken",
    trouble=Load(
        "The downstream fails while 30 orders come, and goes on failing",
        lambda load, seconds: load.outage(30, dead=1000, seconds=seconds, notice=1),
    ),
    pilot={**_DEAD_LETTERS.pilot, "DeadLettersEvaluationPeriods": "1"},
    missing=lambda _ground, _orders: (),  # they lie where they were, which is the point
)
_FAILOVER = Story(
    id="route53-failover",
    title="A shop's primary Region answers 503; its clients are moved to the standby",
    runbook="route53-failover",
    steady=Load("10 calls a second, by name", lambda clients, seconds: clients.steady(10, seconds)),
    trouble=Load(
        "The primary's web server answers 503, and goes on so",
        lambda clients, _seconds: clients.break_primary(),
    ),
    alarm=lambda _ground: shop.ALARM,
    view=see_shop,
    relieved="clients arrived",
    left="traffic stays in the standby, nothing is left locked or leased",
    # The zone does not exist yet; production names its own.
    runbooks={"FailoverResources": "arn:aws:route53:::hostedzone/*"},
    own_aws=True,
    prepare=lambda ground: ground.shop,
    sender=lambda ground, stop: shop.Clients(ground.shop, stop),
    missing=missing_clients,
    patience=120,
    injects=("primary", "standby", *_ALWAYS),
)

STORIES: Mapping[str, Story] = {
    story.id: story
    for story in (_SATURATION, _THROTTLES, _DEAD_LETTERS, _TOO_EARLY, _KILL_SWITCH, _FAILOVER)
}
