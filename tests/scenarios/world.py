"""The worlds in which stories play: one embedded AWS, in it a deployment for each set of settings.

A world is an account of its own with the real templates deployed, every Lambda's role enforced, and
a fake Slack and PagerDuty of its own. Stories share a world one after the other; each makes targets
of its own in it.
"""

import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from ministack.core.responses import request_scope
from ministack.services import lambda_svc, stepfunctions

from local.aws import AwsAccount, EmbeddedAws, edge
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history, store
from local.aws.recorder import Call
from local.playground import REGION, STACK, Playground

MACHINES = ("QueueSaturationMachine", "WindDownMachine")
WORKER = "def handler(event, context):\n    return {'batchItemFailures': []}\n"
ALWAYS: Mapping[str, str] = {"RunsPerHour": "1000", "StormIncidents": "1000"}
"""Stories of one world must not be each other's storm; one about storms says its own."""
OPT_IN = {"runbook-automation": "enabled"}
_SEEDED_BEFORE, _SEEDED_AFTER, _WINDOW = 70, 90, 6

type Json = dict[str, Any]


def eventually[T](
    question: Callable[[], T], what: str, seconds: float = 15, every: float = 0.02
) -> T:
    """Ask again until the answer is true; AssertionError with the last answer otherwise."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s (last: {answer!r})"
        time.sleep(every)
    return answer


@dataclass(frozen=True)
class Target:
    """One queue with its consumer."""

    queue: str
    url: str
    arn: str
    dlq: str
    dlq_url: str
    dlq_arn: str
    function: str
    function_arn: str
    uuid: str
    parameter: str
    seeded: bool
    """Whether its metrics are the story's, not its own."""

    @property
    def mapping_arn(self) -> str:
        account = self.arn.split(":")[4]
        return f"arn:aws:lambda:{REGION}:{account}:event-source-mapping:{self.uuid}"


class Worlds:
    """The embedded AWS with its worlds; a context manager."""

    def __init__(self) -> None:
        self._worlds: dict[str, World] = {}
        self._accounts = itertools.count(210_000_000_001)
        self._cloudwatch = CloudWatch(Settings(resolution_seconds=1))
        self._stack = ExitStack()
        self.held: set[str] = set()
        """Mappings whose poller takes nothing, so that a queue stays as its story says."""

    def __enter__(self) -> Self:
        self.aws = self._stack.enter_context(
            EmbeddedAws(region=REGION, extensions=(self._cloudwatch,))
        )
        original = lambda_svc._sqs_esm_concurrency

        def limited(mapping: Json, *rest: Any) -> int:
            return 0 if mapping["UUID"] in self.held else int(original(mapping, *rest))

        lambda_svc._sqs_esm_concurrency = limited
        self._stack.callback(setattr, lambda_svc, "_sqs_esm_concurrency", original)
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

    def all(self) -> "list[World]":
        """Return the worlds there are."""
        return list(self._worlds.values())


@dataclass
class World:
    """One deployment with its people."""

    worlds: Worlds
    aws: AwsAccount
    settings: Mapping[str, Any]
    _made: "list[Target]" = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = dict(self.settings)
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
            self._shorten_machine(int(timeout))

    def client(self, service: str) -> Any:
        """Return the client of any service, as the account's root."""
        if service not in self._clients:
            self._clients[service] = self.aws.session().client(service)  # type: ignore[call-overload]  # any service
        return self._clients[service]

    def close(self) -> None:
        """Stop what is under way and the fake servers."""
        states = self.client("stepfunctions")
        for machine in MACHINES:
            running = states.list_executions(
                stateMachineArn=self.outputs[machine], statusFilter="RUNNING"
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

    def _shorten_machine(self, seconds: int) -> None:
        """Give the machine a time limit that a story can wait for."""
        states = self.client("stepfunctions")
        arn = self.outputs["QueueSaturationMachine"]
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

    # Targets

    def pilot(self) -> Target:
        """Return the pilot, whose load, work and metrics are real."""
        pilot = self.ground.pilot
        arn = pilot.queue_arn
        dlq = pilot.dead_letter_queue_url.rsplit("/", 1)[-1]
        function = self.client("lambda").get_function_configuration(
            FunctionName=pilot.worker_function
        )
        return Target(
            queue=arn.rsplit(":", 1)[-1],
            url=pilot.queue_url,
            arn=arn,
            dlq=dlq,
            dlq_url=pilot.dead_letter_queue_url,
            dlq_arn=arn.replace(arn.rsplit(":", 1)[-1], dlq),
            function=pilot.worker_function,
            function_arn=function["FunctionArn"],
            uuid=pilot.worker_mapping_id,
            parameter=pilot.back_pressure_parameter,
            seeded=False,
        )

    def make_target(self, name: str, given: Mapping[str, Any]) -> Target:
        """Create a queue with its dead-letter queue, function and mapping, quickly."""
        sqs = self.client("sqs")
        fifo = bool(given.get("fifo"))
        ending = ".fifo" if fifo else ""
        kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        dlq = f"{name}-dlq{ending}"
        dlq_url = sqs.create_queue(QueueName=dlq, Attributes=kind)["QueueUrl"]
        dlq_arn = f"arn:aws:sqs:{REGION}:{self.aws.account}:{dlq}"
        redrive = json.dumps({"deadLetterTargetArn": dlq_arn, "maxReceiveCount": 5})
        parameter = f"/{name}/back-pressure"
        tags = {"runbook-automation": given["opted_in"]} if given.get("opted_in") else {}
        if "safe_size" in given:
            tags |= {"runbook:safe-size": str(given["safe_size"])}
            tags |= {"runbook:back-pressure": parameter}
        queue = f"{name}{ending}"
        url = sqs.create_queue(
            QueueName=queue,
            Attributes={"VisibilityTimeout": "180", "RedrivePolicy": redrive, **kind},
            tags=tags,
        )["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:{self.aws.account}:{queue}"
        function, function_arn, uuids = self._consumer(name, arn, given)
        self.client("ssm").put_parameter(
            Name=parameter,
            Value=given["back_pressure"],
            Type="String",
            Tags=[{"Key": key, "Value": value} for key, value in OPT_IN.items()],
        )
        target = Target(
            queue, url, arn, dlq, dlq_url, dlq_arn, function, function_arn,
            uuids[0] if uuids else "", parameter, seeded=True,
        )  # fmt: skip
        self.worlds.held |= set(uuids)
        self.worlds.leave_alone((arn, dlq_arn, function_arn))
        self.send(target, int(given["messages"]))
        self._made.append(target)
        return target

    def _consumer(
        self, name: str, queue_arn: str, given: Mapping[str, Any]
    ) -> tuple[str, str, list[str]]:
        functions = self.client("lambda")
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("app.py", WORKER)
        consumer = given["consumer"]
        function = f"{name}-worker"
        role = functions.get_function_configuration(FunctionName=self.ground.pilot.worker_function)[
            "Role"
        ]
        function_arn = functions.create_function(
            FunctionName=function,
            Runtime="python3.13",
            Role=role,
            Handler="app.handler",
            Code={"ZipFile": code.getvalue()},
            Timeout=30,
            Tags=OPT_IN if consumer["function_opted_in"] else {},
        )["FunctionArn"]
        if consumer["reserved"] is not None:
            functions.put_function_concurrency(
                FunctionName=function, ReservedConcurrentExecutions=consumer["reserved"]
            )
        cap = consumer["cap"]
        uuids = []
        for _ in range(consumer["mappings"]):
            mapping = functions.create_event_source_mapping(
                EventSourceArn=queue_arn,
                FunctionName=function,
                BatchSize=10,
                Enabled=False,
                Tags=OPT_IN if consumer["mapping_opted_in"] else {},
                **({} if cap is None else {"ScalingConfig": {"MaximumConcurrency": cap}}),
            )
            uuids.append(mapping["UUID"])
        self.worlds.held |= set(uuids)
        if consumer["enabled"]:
            for uuid in uuids:
                functions.update_event_source_mapping(UUID=uuid, Enabled=True)
        return function, function_arn, uuids

    def forget_targets(self) -> None:
        """Delete the targets that stories have made, so that they cost nothing any more."""
        functions, sqs = self.client("lambda"), self.client("sqs")
        for target in self._made:
            for mapping in functions.list_event_source_mappings(EventSourceArn=target.arn)[
                "EventSourceMappings"
            ]:
                functions.delete_event_source_mapping(UUID=mapping["UUID"])
            functions.delete_function(FunctionName=target.function)
            for url in (target.url, target.dlq_url):
                sqs.delete_queue(QueueUrl=url)
        self._made.clear()

    def send(self, target: Target, count: int) -> None:
        """Put messages into the queue."""
        group = {"MessageGroupId": "hot"} if target.queue.endswith(".fifo") else {}
        for start in range(0, count, 10):
            entries = [
                {"Id": str(n), "MessageBody": json.dumps({"order_id": f"{start}-{n}"}), **group}
                for n in range(min(10, count - start))
            ]
            self.client("sqs").send_message_batch(QueueUrl=target.url, Entries=entries)

    def drain(self, target: Target) -> None:
        """Empty the queue, as its consumer would."""
        self.client("sqs").purge_queue(QueueUrl=target.url)

    def depth(self, url: str) -> int:
        """Return the messages in a queue, waiting or in flight."""
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes = found["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(
            attributes["ApproximateNumberOfMessagesNotVisible"]
        )

    def settings_of(self, target: Target) -> Json:
        """Read every setting that a runbook may change."""
        functions = self.client("lambda")
        mapping: Json = {}
        if target.uuid:
            mapping = dict(functions.get_event_source_mapping(UUID=target.uuid))
        reserved = functions.get_function_concurrency(FunctionName=target.function)
        parameter = self.client("ssm").get_parameter(Name=target.parameter)
        return {
            "cap": mapping.get("ScalingConfig", {}).get("MaximumConcurrency"),
            "enabled": mapping.get("State", "") not in {"", "Disabled", "Disabling"},
            "reserved": reserved.get("ReservedConcurrentExecutions"),
            "back_pressure": parameter["Parameter"]["Value"],
        }

    def change(self, target: Target, setting: str, value: Any) -> None:
        """Change one setting as somebody else would."""
        functions = self.client("lambda")
        if setting == "cap":
            scaling = {} if value is None else {"MaximumConcurrency": value}
            functions.update_event_source_mapping(UUID=target.uuid, ScalingConfig=scaling)
        elif setting == "enabled":
            functions.update_event_source_mapping(UUID=target.uuid, Enabled=value)
        elif setting == "reserved" and value is None:
            functions.delete_function_concurrency(FunctionName=target.function)
        elif setting == "reserved":
            functions.put_function_concurrency(
                FunctionName=target.function, ReservedConcurrentExecutions=value
            )
        else:
            self.client("ssm").put_parameter(Name=target.parameter, Value=value, Overwrite=True)

    def untag(self, target: Target, what: str) -> None:
        """Take the opt-in off a ``function`` or ``mapping``, as its owner would."""
        arn = target.function_arn if what == "function" else target.mapping_arn
        self.client("lambda").untag_resource(Resource=arn, TagKeys=list(OPT_IN))

    def untag_mapping_once_read(self, target: Target, role: str) -> None:
        """Take the opt-in off the mapping right after this role has read its tags."""
        add = edge.calls.add

        def seen(call: Call) -> None:
            add(call)
            if call.account != self.aws.account or role not in call.role:
                return
            if call.action == "lambda:ListTags":
                setattr(edge.calls, "add", add)  # noqa: B010 -- mypy allows no method to be set
                with request_scope(self.aws.account, REGION):
                    lambda_svc._esms[target.uuid]["Tags"].clear()

        setattr(edge.calls, "add", seen)  # noqa: B010 -- as above

    # Metrics

    def seed(self, target: Target, picture: Mapping[str, Any]) -> None:
        """Let the target's metrics say what the picture says, for a minute back and on.

        A value is a number a second, ``{at, each_second}`` (a line through this moment),
        ``{before, now}`` (before the window and since), or ``none`` (no datapoints).
        """
        now = int(time.time())
        sqs = ("AWS/SQS", {"QueueName": target.queue})
        dead = ("AWS/SQS", {"QueueName": target.dlq})
        function = ("AWS/Lambda", {"FunctionName": target.function})
        for name, (namespace, dimensions), metric in (
            ("depth", sqs, "ApproximateNumberOfMessagesVisible"),
            ("oldest_age", sqs, "ApproximateAgeOfOldestMessage"),
            ("sent", sqs, "NumberOfMessagesSent"),
            ("received", sqs, "NumberOfMessagesReceived"),
            ("deleted", sqs, "NumberOfMessagesDeleted"),
            ("dead_letters", dead, "ApproximateNumberOfMessagesVisible"),
            ("invocations", function, "Invocations"),
            ("errors", function, "Errors"),
            ("throttles", function, "Throttles"),
            ("duration", function, "Duration"),
            ("concurrency", function, "ConcurrentExecutions"),
        ):
            value = picture[name]
            self._forget_metric(namespace, metric, dimensions)
            if value == "none":
                continue
            moments = range(now - _SEEDED_BEFORE, now + _SEEDED_AFTER)
            points = [(float(at), _value(value, at - now)) for at in moments]
            put_metric_history(self.aws.account, REGION, namespace, metric, dimensions, points)

    def _forget_metric(self, namespace: str, metric: str, dimensions: Mapping[str, str]) -> None:
        with request_scope(self.aws.account, REGION):
            known = store.find(namespace, metric, dimensions)
            if known is not None:
                known._by_unit.clear()

    # What happened

    def executions(self, machine: str) -> list[str]:
        """Return the ARNs of a machine's executions, oldest first."""
        pages = (
            self.client("stepfunctions")
            .get_paginator("list_executions")
            .paginate(stateMachineArn=self.outputs[machine])
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


def _value(value: Any, offset: int) -> float:
    if isinstance(value, int | float):
        return float(value)
    if "before" in value:
        return float(value["before"] if offset < -_WINDOW else value["now"])
    return max(0.0, float(value["at"]) + float(value["each_second"]) * offset)
