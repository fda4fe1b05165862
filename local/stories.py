"""Stories: what is done to the pilot, and what there is to see of it meanwhile.

A story of a new runbook is one entry of ``STORIES``; a view only where it looks at something new.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local.aws import AwsAccount
    from local.playground import Playground
    from workload.load import LoadGenerator, Pilot


@dataclass(frozen=True, slots=True)
class Row:
    """One line of what there is to see; ``level`` is what a graph of it draws."""

    name: str
    text: str
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent to the pilot: in words, and for at most so many seconds."""

    words: str
    send: Callable[[LoadGenerator, float], object]


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
    alarm: Callable[[Pilot], str]
    """The name of the alarm that fires."""
    view: Callable[[AwsAccount, Pilot], Callable[[], Sequence[Row]]]
    relieved: str = "relieved"
    """What the trouble is when a look lets the settings go back."""
    pilot: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the pilot's template."""
    prepare: Callable[[Playground], object] = lambda _: None
    """What is done to the deployed stack before the trouble."""


def see_queue(aws: AwsAccount, pilot: Pilot) -> Callable[[], Sequence[Row]]:
    """Watch the queue's depth and how much of it is worked on at a time."""
    sqs, functions = aws.client("sqs"), aws.client("lambda")

    def look() -> Sequence[Row]:
        depth = sqs.get_queue_attributes(
            QueueUrl=pilot.queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
            ],
        )["Attributes"]
        mapping = functions.get_event_source_mapping(UUID=pilot.worker_mapping_id)
        waiting = int(depth["ApproximateNumberOfMessages"])
        in_flight = depth["ApproximateNumberOfMessagesNotVisible"]
        cap = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
        return (
            Row("queue", f"{waiting} waiting, {in_flight} in flight", waiting),
            Row("worker", f"at most {cap} at once" if cap else "no cap"),
        )

    return look


def see_api(aws: AwsAccount, pilot: Pilot) -> Callable[[], Sequence[Row]]:
    """Watch what the API is refused in a second, its concurrency and its reservation."""
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
        reserved = answer.get("ReservedConcurrentExecutions", "none")
        return (
            Row("calls", f"{throttled} throttled a second", throttled),
            Row("api", f"{running} at once, {reserved} reserved"),
        )

    return look


def set_kill_switch(ground: Playground, value: str) -> None:
    """Write the kill switch of all runbooks; ``run`` lets them."""
    ground.account.client("ssm").put_parameter(
        Name=ground.outputs["KillSwitch"], Value=value, Overwrite=True
    )


_SATURATION = Story(
    id="queue-saturation",
    title="A burst of orders saturates a queue",
    runbook="queue-saturation",
    steady=Load("15 orders a second", lambda load, seconds: load.steady(15, seconds)),
    trouble=Load("A burst of 400 orders", lambda load, seconds: load.spike(400, seconds)),
    alarm=lambda pilot: pilot.backlog_alarm,
    view=see_queue,
    relieved="drained",
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
    alarm=lambda pilot: pilot.api_throttles_alarm,
    view=see_api,
    pilot={
        "ApiReservedConcurrency": "2",
        "ApiMilliseconds": "300",
        # The orders that get through are not to saturate the queue as well.
        "WorkMilliseconds": "20",
        "LambdaThrottlesRunbook": "deployed",
    },
)

STORIES: Mapping[str, Story] = {
    story.id: story for story in (_SATURATION, _THROTTLES, _KILL_SWITCH)
}
