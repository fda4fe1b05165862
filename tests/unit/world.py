"""A small AWS in memory for the steps: what they read and change, under the real store."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from oncall import contract as contracts
from oncall.incident import Entry, Incident, Run
from oncall.record import IncidentStore
from oncall.services import Services, Settings
from tests.unit.clock import SetClock
from tests.unit.table import Death, TableInMemory

ACCOUNT = "123456789012"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:orders"
DLQ = f"arn:aws:sqs:us-east-1:{ACCOUNT}:orders-dlq"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:worker"
UUID = "11111111-2222-3333-4444-555555555555"
MAPPING = f"arn:aws:lambda:us-east-1:{ACCOUNT}:event-source-mapping:{UUID}"
PARAMETER = "/pilot/back-pressure"
CALENDAR = f"arn:aws:ssm:us-east-1:{ACCOUNT}:document/freeze"
SWITCHES = "/runbooks/kill-switch"
OPTED_IN = {"runbook-automation": "enabled"}
RUNBOOK = "queue-saturation"
CONTRACT = contracts.load(RUNBOOK)
NO_SESSION: Any = SimpleNamespace()
"""Making a client that is not listed below fails."""


def refused(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class Cloud:
    """What there is, as plain values; the fake clients below read and change it."""

    death: Death = field(default_factory=Death)
    reserved: int | None = 20
    cap: int | None = 20
    state: str = "Enabled"
    pollers: bool = False
    """Whether the mapping has provisioned pollers."""
    provisioned: int | None = None
    mappings: int = 1
    parameters: dict[str, str] = field(
        default_factory=lambda: {
            f"{SWITCHES}/all": "run",
            f"{SWITCHES}/{RUNBOOK}": "run",
            PARAMETER: "off",
        }
    )
    tags: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            name: dict(OPTED_IN) for name in (QUEUE, FUNCTION, MAPPING, PARAMETER)
        }
    )
    closed: dict[str, str] = field(default_factory=dict)
    """Closed calendars with the time of their next opening."""
    visible: dict[str, int] = field(default_factory=lambda: {"orders": 900, "orders-dlq": 0})
    in_flight: int = 0
    aliases: dict[str, Any] = field(default_factory=dict)
    provisioned_configs: list[dict[str, Any]] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    policies: dict[str, Any] = field(default_factory=dict)
    greatest: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Answers of Metrics Insights: series of the leading functions, by metric."""
    functions: set[str] = field(default_factory=lambda: {"worker"})
    gone: set[str] = field(default_factory=set)
    """Resources that have been deleted."""
    series: dict[str, list[float]] = field(default_factory=dict)
    baseline: dict[str, list[float]] = field(default_factory=dict)
    failing: dict[str, ClientError] = field(default_factory=dict)
    """Writes that fail, by operation."""
    writes: list[tuple[str, Any]] = field(default_factory=list)

    def write(self, operation: str, value: Any) -> None:
        if operation in self.failing:
            raise self.failing[operation]
        self.writes.append((operation, value))

    def there(self, resource: str) -> None:
        if resource in self.gone:
            raise refused("ResourceNotFoundException")


class Client:
    """A client whose every public call may be the process's last."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def __getattr__(self, name: str) -> Any:
        work = object.__getattribute__(self, f"_{name}")
        return lambda *args, **given: self.cloud.death.call(lambda: work(*args, **given))


class Pages:
    def __init__(self, *pages: Mapping[str, Any]) -> None:
        self.pages = pages

    def paginate(self, **_given: Any) -> Iterator[Mapping[str, Any]]:
        return iter(self.pages)


class FakeLambda(Client):
    def _get_function_concurrency(self, *, FunctionName: str) -> Any:  # noqa: N803 -- boto3's
        self.cloud.there(FunctionName)
        if self.cloud.reserved is None or FunctionName != FUNCTION:
            return {}
        return {"ReservedConcurrentExecutions": self.cloud.reserved}

    def _put_function_concurrency(self, **given: Any) -> None:
        self.cloud.there(given["FunctionName"])
        self.cloud.write("put_function_concurrency", given["ReservedConcurrentExecutions"])
        self.cloud.reserved = given["ReservedConcurrentExecutions"]

    def _delete_function_concurrency(self, *, FunctionName: str) -> None:  # noqa: N803 -- boto3's
        self.cloud.there(FunctionName)
        self.cloud.write("delete_function_concurrency", None)
        self.cloud.reserved = None

    def _get_provisioned_concurrency_config(self, **given: str) -> Any:
        assert given == {"FunctionName": FUNCTION, "Qualifier": "live"}
        if self.cloud.provisioned is None:
            raise refused("ProvisionedConcurrencyConfigNotFoundException")
        return {"RequestedProvisionedConcurrentExecutions": self.cloud.provisioned}

    def _put_provisioned_concurrency_config(self, **given: Any) -> None:
        assert given["Qualifier"] == "live"
        self.cloud.provisioned = given["ProvisionedConcurrentExecutions"]
        self.cloud.write("put_provisioned_concurrency_config", self.cloud.provisioned)

    def _delete_provisioned_concurrency_config(self, **given: str) -> None:
        assert given == {"FunctionName": FUNCTION, "Qualifier": "live"}
        self.cloud.write("delete_provisioned_concurrency_config", None)
        self.cloud.provisioned = None

    def _mapping(self) -> dict[str, Any]:
        scaling = {} if self.cloud.cap is None else {"MaximumConcurrency": self.cloud.cap}
        mapping = {
            "UUID": UUID,
            "EventSourceMappingArn": MAPPING,
            "EventSourceArn": QUEUE,
            "FunctionArn": FUNCTION,
            "State": self.cloud.state,
            "BatchSize": 10,
        }
        if scaling:
            mapping["ScalingConfig"] = scaling
        if self.cloud.pollers:
            mapping["ProvisionedPollerConfig"] = {"MinimumPollers": 2}
        return mapping

    def _get_event_source_mapping(self, *, UUID: str) -> Any:  # noqa: N803 -- boto3's
        assert MAPPING.endswith(UUID)
        self.cloud.there(MAPPING)
        return self._mapping()

    def _update_event_source_mapping(self, **given: Any) -> None:
        self.cloud.there(MAPPING)
        if "Enabled" in given:
            self.cloud.write("enabled", given["Enabled"])
            self.cloud.state = "Enabled" if given["Enabled"] else "Disabled"
        else:
            cap = given["ScalingConfig"].get("MaximumConcurrency")
            self.cloud.write("cap", cap)
            self.cloud.cap = cap

    def _list_tags(self, *, Resource: str) -> Any:  # noqa: N803 -- boto3's
        return {"Tags": self.cloud.tags.get(Resource, {})}

    def _get_paginator(self, name: str) -> Pages:
        cloud = self.cloud
        key, many = {
            "list_event_source_mappings": (
                "EventSourceMappings",
                [self._mapping() for _ in range(cloud.mappings)],
            ),
            "list_aliases": (
                "Aliases",
                [{"Name": name, **routing} for name, routing in cloud.aliases.items()],
            ),
            "list_provisioned_concurrency_configs": (
                "ProvisionedConcurrencyConfigs",
                cloud.provisioned_configs,
            ),
            "list_function_url_configs": (
                "FunctionUrlConfigs",
                [{"FunctionArn": arn} for arn in cloud.urls],
            ),
        }[name]
        # A page that is empty is no reason to stop.
        return Pages({key: []}, {key: many})

    def _get_policy(self, *, FunctionName: str) -> Any:  # noqa: N803 -- boto3's
        if FunctionName not in self.cloud.policies:
            raise refused("ResourceNotFoundException")
        return {"Policy": json.dumps({"Statement": self.cloud.policies[FunctionName]})}

    def _get_function_configuration(self, *, FunctionName: str) -> Any:  # noqa: N803 -- boto3's
        name = FunctionName.rsplit(":", 1)[-1]
        if name not in self.cloud.functions:
            raise refused("ResourceNotFoundException")
        return {
            "FunctionName": name,
            "FunctionArn": FUNCTION.replace("worker", name),
            "Timeout": 30,
            "LastUpdateStatus": "Successful",
        }

    def _get_account_settings(self) -> Any:
        return {
            "AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 900}
        }


class FakeSsm(Client):
    def _get_parameters(self, *, Names: list[str]) -> Any:  # noqa: N803 -- boto3's
        there = self.cloud.parameters
        return {
            "Parameters": [{"Name": name, "Value": there[name]} for name in Names if name in there]
        }

    def _get_parameter(self, *, Name: str) -> Any:  # noqa: N803 -- boto3's
        if Name not in self.cloud.parameters:
            raise refused("ParameterNotFound")
        return {"Parameter": {"Value": self.cloud.parameters[Name]}}

    def _put_parameter(self, *, Name: str, Value: str, Overwrite: bool) -> None:  # noqa: N803 -- boto3's
        assert Overwrite
        self.cloud.write("put_parameter", Value)
        self.cloud.parameters[Name] = Value

    def _list_tags_for_resource(self, *, ResourceType: str, ResourceId: str) -> Any:  # noqa: N803 -- boto3's
        assert ResourceType == "Parameter"
        tags = self.cloud.tags.get(ResourceId, {})
        return {"TagList": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _get_calendar_state(self, *, CalendarNames: list[str]) -> Any:  # noqa: N803 -- boto3's
        (name,) = CalendarNames
        if name in self.cloud.closed:
            return {"State": "CLOSED", "NextTransitionTime": self.cloud.closed[name]}
        return {"State": "OPEN"}


class FakeSqs(Client):
    def _get_queue_url(self, *, QueueName: str, QueueOwnerAWSAccountId: str = ACCOUNT) -> Any:  # noqa: N803 -- boto3's
        if QueueName not in self.cloud.visible:
            raise refused("AWS.SimpleQueueService.NonExistentQueue")
        return {"QueueUrl": f"https://sqs.example.com/{QueueOwnerAWSAccountId}/{QueueName}"}

    def _get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: ARG002, N803 -- boto3's
        name = QueueUrl.rsplit("/", 1)[-1]
        attributes = {
            "QueueArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}",
            "ApproximateNumberOfMessages": str(self.cloud.visible[name]),
            "ApproximateNumberOfMessagesNotVisible": str(self.cloud.in_flight),
            "ApproximateNumberOfMessagesDelayed": "3",
            "VisibilityTimeout": "180",
        }
        if name == "orders":
            attributes["RedrivePolicy"] = (
                f'{{"deadLetterTargetArn": "{DLQ}", "maxReceiveCount": "5"}}'
            )
        return {"Attributes": attributes}

    def _list_queue_tags(self, *, QueueUrl: str) -> Any:  # noqa: ARG002, N803 -- boto3's
        tags = self.cloud.tags.get(QUEUE)
        return {"Tags": tags} if tags else {}


class FakeCloudWatch(Client):
    def _get_paginator(self, name: str) -> "FakeCloudWatch":
        assert name == "get_metric_data"
        return self

    def _paginate(self, **given: Any) -> Any:
        assert given["ScanBy"] == "TimestampAscending"
        whole = given["EndTime"].timestamp() % 60 == 0
        long = given["EndTime"] - given["StartTime"] > timedelta(minutes=5)
        series = self.cloud.baseline if long else self.cloud.series
        assert whole, "a period that has not ended says too little"
        (first, *_) = given["MetricDataQueries"]
        if "Expression" in first:
            assert first["Period"] == 60
            metric = first["Expression"].partition("(")[2].partition(")")[0]
            leading = self.cloud.greatest.get(metric, {})
            results = [
                {"Id": first["Id"], "Label": label, "Values": values}
                for label, values in leading.items()
            ]
            return [{"MetricDataResults": results[:1]}, {"MetricDataResults": results[1:]}]
        ids = [query["Id"] for query in given["MetricDataQueries"]]
        return [
            {
                "MetricDataResults": [
                    {"Id": name, "Values": series.get(name, [])[:2]} for name in ids
                ]
            },
            {
                "MetricDataResults": [
                    {"Id": name, "Values": series.get(name, [])[2:]} for name in ids
                ]
            },
        ]


@dataclass
class World:
    """An account with one queue and its consumer, a record, and a clock."""

    cloud: Cloud
    table: TableInMemory
    clock: SetClock
    aws: Services
    run: Run = field(init=False)

    @property
    def store(self) -> IncidentStore:
        return self.aws.store

    def open(self, name: str = "orders-1", *, mode: str = "auto", **fields: Any) -> Run:
        new = Incident(
            **{
                "id": name,
                "runbook": RUNBOOK,
                "title": "Drain a saturated queue",
                "target": QUEUE,
                "target_name": "orders",
                "mode": mode,
                "trigger": {"kind": "hand", "by": "", "reason": "", "alarm": {}},
                "execution": f"arn:aws:states:us-east-1:{ACCOUNT}:execution:{RUNBOOK}:{name}",
                "fence": 0,
                **fields,
            }
        )
        opened = self.store.open(new, Entry("opened", "opened", "Started."), timedelta(hours=3))
        run = Run(opened.id, opened.runbook, opened.target, opened.mode, opened.fence)
        self.run = run
        return run

    def load(self) -> Incident:
        return self.store.load(self.run.incident)

    def texts(self, kind: str) -> list[str]:
        return [entry.text for entry in self.load().entries if entry.kind == kind]


def a_world(**settings: Any) -> World:
    cloud, clock = Cloud(), SetClock()
    table = TableInMemory(cloud.death)
    given = Settings(
        table="incidents",
        stack="runbooks",
        kill_switch=SWITCHES,
        period_seconds=60,
        calendars=(),
        runs_per_hour=30,
        approvers=(),
        account_floor=100,
        region="us-east-1",
    )
    aws = Services(replace(given, **settings), session=NO_SESSION, clock=clock)
    aws.__dict__["store"] = IncidentStore(table, clock)  # type: ignore[arg-type]  # in memory
    aws._clients.update(
        {
            "lambda": FakeLambda(cloud),
            "ssm": FakeSsm(cloud),
            "sqs": FakeSqs(cloud),
            "cloudwatch": FakeCloudWatch(cloud),
        }
    )
    return World(cloud, table, clock, aws)
