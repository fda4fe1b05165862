"""The worlds in which stories play: one embedded AWS, in it a deployment for each set of settings.

A world is an account of its own with the real templates deployed, every Lambda's role enforced, and
a fake Slack and PagerDuty of its own. Stories share a world one after the other; each makes targets
of its own in it.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from ministack.core.responses import request_scope
from ministack.services import lambda_svc, sqs, stepfunctions

from local.aws import AwsAccount, EmbeddedAws, edge
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history, store
from local.aws.recorder import Call
from local.aws.route53.data_plane import Route53DataPlane
from local.playground import REGION, ROOT, STACK, Playground
from tools.checks import machines

WIND_DOWN = "wind-down"
ALWAYS: Mapping[str, str] = {"RunsPerHour": "1000", "StormIncidents": "1000"}
"""Stories of one world must not be each other's storm; one about storms says its own."""
_SEEDED_BEFORE, _SEEDED_AFTER, _WINDOW = 70, 90, 6

type Json = dict[str, Any]


def eventually[T](
    question: Callable[[], T], what: str, seconds: float = 30, every: float = 0.02
) -> T:
    """Ask again until the answer is true; AssertionError with the last answer otherwise."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s (last: {answer!r})"
        time.sleep(every)
    return answer


@dataclass(frozen=True)
class Metric:
    """One metric of CloudWatch."""

    namespace: str
    dimensions: Mapping[str, str]
    name: str


class Worlds:
    """The embedded AWS with its worlds; a context manager."""

    def __init__(self) -> None:
        self._worlds: dict[str, World] = {}
        self._accounts = itertools.count(210_000_000_001)
        self._cloudwatch = CloudWatch(Settings(resolution_seconds=1))
        self._route53 = Route53DataPlane(interval_seconds=3600)
        self._stack = ExitStack()
        self.held: set[str] = set()
        """Mappings whose poller takes nothing, so that a queue stays as its story says."""

    def __enter__(self) -> Self:
        self.aws = self._stack.enter_context(
            EmbeddedAws(region=REGION, extensions=(self._cloudwatch, self._route53))
        )
        original = lambda_svc._sqs_esm_concurrency

        def limited(mapping: Json, *rest: Any) -> int:
            return 0 if mapping["UUID"] in self.held else int(original(mapping, *rest))

        lambda_svc._sqs_esm_concurrency = limited
        self._stack.callback(setattr, lambda_svc, "_sqs_esm_concurrency", original)
        receive = sqs._HANDLERS["ReceiveMessage"]

        async def at_once(data: Json, url: str) -> Any:
            # A short poll here asks every host of the queue, so that a long one would only wait.
            return await receive({**data, "WaitTimeSeconds": 0}, url)

        sqs._HANDLERS["ReceiveMessage"] = at_once
        self._stack.callback(sqs._HANDLERS.__setitem__, "ReceiveMessage", receive)
        return self

    def __exit__(self, *error: object) -> None:
        for world in self._worlds.values():
            world.close()
        self._stack.close()

    def get(self, settings: Mapping[str, Any]) -> "World":
        """Return the world with these template parameters; made on first use."""
        key = json.dumps(settings, sort_keys=True)
        if key not in self._worlds:
            account = self.aws.for_account(str(next(self._accounts)))
            self._worlds[key] = World(self, account, settings)
        return self._worlds[key]

    def throw_away(self, settings: Mapping[str, Any]) -> None:
        """Forget a world in which a story has failed: nobody knows what it has left."""
        world = self._worlds.pop(json.dumps(settings, sort_keys=True), None)
        if world is not None:
            world.close()

    def leave_alone(self, arns: Iterable[str]) -> None:
        """Publish no metrics of these queues and functions: the story seeds them."""
        for arn in arns:
            self._cloudwatch.leave_alone(arn)

    def name_servers(self, account: str) -> dict[str, tuple[str, int]]:
        """Return host and port of an account's name servers by name."""
        servers = self._route53.name_servers(account)
        return {name.rstrip("."): server.address for name, server in servers.items()}

    def all(self) -> "list[World]":
        """Return the worlds there are."""
        return list(self._worlds.values())


@dataclass
class World:
    """One deployment with its people."""

    worlds: Worlds
    aws: AwsAccount
    settings: Mapping[str, Any]
    _clients: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {
            name: value.replace("{account}", self.aws.account) if isinstance(value, str) else value
            for name, value in self.settings.items()
        }
        timeout = given.pop("MachineTimeoutSeconds", None)
        calendar = given.pop("Calendar", "")
        if calendar:
            given["ChangeCalendars"] = calendar
            self.calendar(calendar, closed=False)
        self.ground = Playground(parameters={**ALWAYS, **given}, aws=self.aws)
        self.ground.__enter__()
        self.outputs = self.ground.outputs
        self.store = self.ground.store
        self.slack = self.ground.slack
        self.pagerduty = self.ground.pagerduty
        self.rules(enabled=False, scheduled=True)
        # Slack waits three seconds for an answer; a cold start here takes longer than on AWS.
        self.client("lambda").invoke(
            FunctionName=self.outputs["DecisionFunction"],
            InvocationType="Event",
            Payload=json.dumps({"requestContext": {"http": {}}, "body": ""}),
        )
        if timeout:
            self._shorten_machines(int(timeout))

    def client(self, service: str) -> Any:
        """Return the client of any service, as the account's root."""
        if service not in self._clients:
            self._clients[service] = self.aws.session().client(service)  # type: ignore[call-overload]  # any service
        return self._clients[service]

    @property
    def machines(self) -> list[str]:
        """Return the ids of the state machines that are deployed."""
        known = machines.load(ROOT / "statemachines")
        return [name for name in known if _output(name) in self.outputs]

    def machine(self, name: str) -> str:
        """Return a machine's ARN by its id."""
        return str(self.outputs[_output(name)])

    def close(self) -> None:
        """Stop what is under way and the fake servers."""
        states = self.client("stepfunctions")
        for machine in self.machines:
            running = states.list_executions(
                stateMachineArn=self.machine(machine), statusFilter="RUNNING"
            )["executions"]
            for execution in running:
                states.stop_execution(executionArn=execution["executionArn"])
        self.ground.__exit__(None, None, None)

    # Settings of the deployment

    def rules(self, *, enabled: bool, scheduled: bool) -> None:
        """Switch the schedule of the sweep, or else the rule on ended runs, on or off."""
        events = self.client("events")
        for rule in events.list_rules()["Rules"]:
            on_schedule = "ScheduleExpression" in rule
            on_runs = "Execution Status Change" in rule.get("EventPattern", "")
            if on_schedule if scheduled else on_runs:
                switch = events.enable_rule if enabled else events.disable_rule
                switch(Name=rule["Name"])

    def alarm_events(self, *, enabled: bool) -> None:
        """Switch the rule on alarms on or off: an event that comes meanwhile is lost."""
        events = self.client("events")
        for rule in events.list_rules()["Rules"]:
            if "Alarm State Change" in rule.get("EventPattern", ""):
                switch = events.enable_rule if enabled else events.disable_rule
                switch(Name=rule["Name"])

    def _shorten_machines(self, seconds: int) -> None:
        """Give the runbooks' machines a time limit that a story can wait for."""
        states = self.client("stepfunctions")
        for name in self.machines:
            if name != WIND_DOWN:
                arn = self.machine(name)
                found = states.describe_state_machine(stateMachineArn=arn)
                definition = json.loads(found["definition"]) | {"TimeoutSeconds": seconds}
                states.update_state_machine(stateMachineArn=arn, definition=json.dumps(definition))

    def calendar(self, name: str, *, closed: bool) -> None:
        """Create or change a change calendar that is open or closed all day."""
        kind = "DEFAULT_CLOSED" if closed else "DEFAULT_OPEN"
        text = (
            "BEGIN:VCALENDAR\r\nPRODID:-//AWS//Change Calendar 1.0//EN\r\nVERSION:2.0\r\n"
            f"X-CALENDAR-TYPE:{kind}\r\nEND:VCALENDAR\r\n"
        )
        ssm = self.client("ssm")
        try:
            ssm.update_document(Name=name, Content=text, DocumentVersion="$LATEST")
        except ssm.exceptions.DuplicateDocumentContent:
            return
        except ssm.exceptions.InvalidDocument:
            ssm.create_document(
                Name=name, Content=text, DocumentType="ChangeCalendar", DocumentFormat="TEXT"
            )

    def kill_switch(self, value: str, name: str = "all") -> None:
        """Set a kill switch."""
        self.client("ssm").put_parameter(
            Name=f"/{STACK}/kill-switch/{name}", Value=value, Overwrite=True
        )

    @property
    def waits(self) -> float:
        """By how much waits of state machines are shortened."""
        return float(stepfunctions._SFN_WAIT_SCALE)

    @waits.setter
    def waits(self, scale: float) -> None:
        stepfunctions._SFN_WAIT_SCALE = scale

    @staticmethod
    def async_pause(seconds: float) -> None:
        """Set the longest pause before Lambda tries a throttled event again; 30 by default."""
        lambda_svc._LAMBDA_ASYNC_RETRY_MAX_SECONDS = seconds

    def depth(self, url: str) -> int:
        """Return the messages in a queue, waiting or in flight."""
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes = found["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(
            attributes["ApproximateNumberOfMessagesNotVisible"]
        )

    def once_tags_are_read(
        self,
        role: str,
        change: Callable[[], None],
        action: str = "lambda:ListTags",
        resource: str = "",
    ) -> None:
        """Change something right after this role has read tags, of one resource or of any."""
        add = edge.calls.add

        def seen(call: Call) -> None:
            add(call)
            if call.account != self.aws.account or role not in call.role:
                return
            if call.action == action and resource in {"", call.resource}:
                setattr(edge.calls, "add", add)  # noqa: B010 -- mypy allows no method to be set
                with request_scope(self.aws.account, REGION):
                    change()

        setattr(edge.calls, "add", seen)  # noqa: B010 -- as above

    # Metrics

    def seed(self, metric: Metric, value: Any) -> None:
        """Let a metric say this, for a minute back and on.

        A value is a number a second, ``{at, each_second}`` (a line through this moment),
        ``{before, now}`` (before the window and since), or ``none`` (no datapoints).
        """
        now = int(time.time())
        self.forget([metric])
        if value == "none":
            return
        moments = range(now - _SEEDED_BEFORE, now + _SEEDED_AFTER)
        points = [(float(at), _value(value, at - now)) for at in moments]
        put_metric_history(
            self.aws.account, REGION, metric.namespace, metric.name, metric.dimensions, points
        )

    def forget(self, metrics: Iterable[Metric]) -> None:
        """Delete every datapoint of these metrics."""
        with request_scope(self.aws.account, REGION):
            for metric in metrics:
                known = store.find(metric.namespace, metric.name, metric.dimensions)
                if known is not None:
                    known._by_unit.clear()

    # What happened

    def executions(self, machine: str) -> list[str]:
        """Return the ARNs of the executions of a machine, by its id; oldest first."""
        pages = (
            self.client("stepfunctions")
            .get_paginator("list_executions")
            .paginate(stateMachineArn=self.machine(machine))
        )
        found = [one for page in pages for one in page["executions"]]
        return [one["executionArn"] for one in sorted(found, key=lambda one: one["startDate"])]

    def history(self, execution: str) -> list[Any]:
        """Return an execution's events."""
        pages = (
            self.client("stepfunctions")
            .get_paginator("get_execution_history")
            .paginate(executionArn=execution, PaginationConfig={"PageSize": 1000})
        )
        return [event for page in pages for event in page["events"]]

    def items(self, start: str = "") -> list[Mapping[str, Any]]:
        """Return what the incidents table holds under keys that begin so."""
        table = self.aws.session().resource("dynamodb").Table(self.outputs["IncidentsTable"])
        found: list[Mapping[str, Any]] = []
        page: Json = {}
        while True:
            answer = table.scan(**page)
            found += [item for item in answer["Items"] if str(item["pk"]).startswith(start)]
            if "LastEvaluatedKey" not in answer:
                return found
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def logs(self, since: datetime) -> str:
        """Return what functions and machines have logged since then."""
        logs = self.client("logs")
        lines: list[str] = []
        for group in logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            if f"/{STACK}" not in name:
                continue
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=name, startTime=int(since.timestamp() * 1000)
            )
            lines += [event["message"] for page in pages for event in page["events"]]
        return "\n".join(lines)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)


def _output(machine: str) -> str:
    """Return the stack's output that a machine's ARN is in: ``WindDownMachine``."""
    return "".join(word.capitalize() for word in machine.split("-")) + "Machine"


def _value(value: Any, offset: int) -> float:
    if isinstance(value, int | float):
        return float(value)
    if "before" in value:
        return float(value["before"] if offset < -_WINDOW else value["now"])
    return max(0.0, float(value["at"]) + float(value["each_second"]) * offset)
