"""A queue with its consumer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from oncall import levers
from oncall.incident import Change
from tests.scenarios.targets import parts
from tests.scenarios.targets.base import OPT_IN, Target
from tests.scenarios.world import Metric, World

type Json = dict[str, Any]


@dataclass
class Queue(Target):
    """One queue with its dead-letter queue, its consumer and its owner's parameter."""

    KIND: ClassVar[str] = "queue"
    GIVEN: ClassVar[Mapping[str, Any]] = {
        "messages": 200,
        "opted_in": "enabled",
        "back_pressure": "off",
        "consumer": {
            "cap": 2,
            "reserved": None,
            "enabled": True,
            "mappings": 1,
            "function_opted_in": True,
            "mapping_opted_in": True,
        },
    }
    ALARM: ClassVar[str] = "backlog"
    THRESHOLD: ClassVar[float] = 100

    url: str
    dlq: str
    dlq_url: str
    dlq_arn: str
    function: str
    function_arn: str
    uuid: str
    parameter: str
    made: bool = True
    """Whether it is the story's own."""

    @classmethod
    def pilot(cls, world: World) -> Self:
        """Return the pilot's queue."""
        pilot = world.ground.pilot
        arn = pilot.queue_arn
        name = arn.rsplit(":", 1)[-1]
        dlq = pilot.dead_letter_queue_url.rsplit("/", 1)[-1]
        function = world.client("lambda").get_function_configuration(
            FunctionName=pilot.worker_function
        )
        return cls(
            world,
            name,
            arn,
            url=pilot.queue_url,
            dlq=dlq,
            dlq_url=pilot.dead_letter_queue_url,
            dlq_arn=arn.replace(name, dlq),
            function=pilot.worker_function,
            function_arn=function["FunctionArn"],
            uuid=pilot.worker_mapping_id,
            parameter=pilot.back_pressure_parameter,
            made=False,
        )

    @classmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create a queue with its dead-letter queue, function and mapping, quickly."""
        fifo = bool(given.get("fifo"))
        ending = ".fifo" if fifo else ""
        kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        dlq_url, dlq_arn = parts.queue(world, f"{name}-dlq{ending}", {}, **kind)
        parameter = f"/{name}/back-pressure"
        tags = {"runbook-automation": given["opted_in"]} if given.get("opted_in") else {}
        if "safe_size" in given:
            tags |= {"runbook:safe-size": str(given["safe_size"])}
            tags |= {"runbook:back-pressure": parameter}
        url, arn = parts.queue(
            world,
            f"{name}{ending}",
            tags,
            VisibilityTimeout="180",
            RedrivePolicy={"deadLetterTargetArn": dlq_arn, "maxReceiveCount": 5},
            **kind,
        )
        consumer, function = given["consumer"], f"{name}-worker"
        function_arn = parts.function(
            world,
            function,
            opted_in=consumer["function_opted_in"],
            reserved=consumer["reserved"],
        )
        uuids = [
            parts.mapping(
                world,
                arn,
                function,
                cap=consumer["cap"],
                opted_in=consumer["mapping_opted_in"],
                enabled=consumer["enabled"],
            )
            for _ in range(consumer["mappings"])
        ]
        world.client("ssm").put_parameter(
            Name=parameter,
            Value=given["back_pressure"],
            Type="String",
            Tags=[{"Key": key, "Value": value} for key, value in OPT_IN.items()],
        )
        target = cls(
            world,
            f"{name}{ending}",
            arn,
            url=url,
            dlq=f"{name}-dlq{ending}",
            dlq_url=dlq_url,
            dlq_arn=dlq_arn,
            function=function,
            function_arn=function_arn,
            uuid=uuids[0] if uuids else "",
            parameter=parameter,
        )
        target.send(int(given["messages"]))
        return target

    @property
    def mapping_arn(self) -> str:
        return parts.mapping_arn(self.world, self.uuid)

    def placeholders(self) -> Mapping[str, str]:
        return {
            "queue": self.name,
            "queue_url": self.url,
            "queue_arn": self.arn,
            "dlq": self.dlq,
            "function": self.function,
            "function_arn": self.function_arn,
            "uuid": self.uuid,
            "mapping_arn": self.mapping_arn,
            "parameter": self.parameter,
        }

    def send(self, count: int) -> None:
        """Put messages into the queue."""
        group = {"MessageGroupId": "hot"} if self.name.endswith(".fifo") else {}
        for start in range(0, count, 10):
            entries = [
                {"Id": str(n), "MessageBody": json.dumps({"order_id": f"{start}-{n}"}), **group}
                for n in range(min(10, count - start))
            ]
            self.world.client("sqs").send_message_batch(QueueUrl=self.url, Entries=entries)

    def drain(self) -> None:
        """Empty the queue, as its consumer would."""
        self.world.client("sqs").purge_queue(QueueUrl=self.url)

    def settings(self) -> Json:
        mapping: Json = {}
        if self.uuid:
            mapping = dict(self.world.client("lambda").get_event_source_mapping(UUID=self.uuid))
        parameter = self.world.client("ssm").get_parameter(Name=self.parameter)
        return {
            "cap": mapping.get("ScalingConfig", {}).get("MaximumConcurrency"),
            "enabled": mapping.get("State", "") not in {"", "Disabled", "Disabling"},
            "reserved": parts.reservation(self.world, self.function),
            "back_pressure": parameter["Parameter"]["Value"],
        }

    def change(self, setting: str, value: Any) -> None:
        functions = self.world.client("lambda")
        if setting == "cap":
            scaling = {} if value is None else {"MaximumConcurrency": value}
            functions.update_event_source_mapping(UUID=self.uuid, ScalingConfig=scaling)
        elif setting == "enabled":
            functions.update_event_source_mapping(UUID=self.uuid, Enabled=value)
        elif setting == "reserved":
            parts.reserve(self.world, self.function, value)
        else:
            self.world.client("ssm").put_parameter(Name=self.parameter, Value=value, Overwrite=True)

    def metrics(self) -> Mapping[str, Metric]:
        return parts.queue_metrics(self.name, self.dlq, self.function)

    def alarm(self, dimension: str) -> Json:
        return parts.depth_alarm(dimension)

    @property
    def beside(self) -> str:
        return self.dlq

    def untag(self, what: str) -> None:
        parts.untag(self.world, self.function_arn if what == "function" else self.mapping_arn)

    def untag_once_read(self, what: str, role: str) -> None:
        if what == "function":
            tags = partial(parts.function_tags, self.function)
        else:
            tags = partial(parts.mapping_tags, self.uuid)
        self.world.once_tags_are_read(role, lambda: tags().clear())

    def left_by_an_earlier_run(self, given: Mapping[str, Any]) -> Change | None:
        if not given.get("disabled_by_an_earlier_run"):
            return None
        lever = levers.LEVERS["mapping-enabled"]
        return Change(
            lever=lever.id, resource=self.mapping_arn, name=f"{self.function}'s consumer",
            before=True, after=False, why="an earlier run",
            undo=lever.command(self.mapping_arn, value=True), expires_at="",
        )  # fmt: skip

    def forget(self) -> None:
        if not self.made:
            return
        for url in (self.url, self.dlq_url):
            parts.forget_queue(self.world, url)
        self.world.client("lambda").delete_function(FunctionName=self.function)
        self.world.forget(self.metrics().values())
