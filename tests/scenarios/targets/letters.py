"""A dead-letter queue with its letters, the queues that they come from, and who consumes those."""

import json
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Self

from ministack.core.responses import request_scope
from ministack.services import lambda_svc, sqs

from local.aws.bridges.sqs_messages import take_out
from local.playground import REGION
from tests.scenarios.targets import parts
from tests.scenarios.targets.base import OPT_IN, Target
from tests.scenarios.targets.mail import Mail
from tests.scenarios.world import Metric, World

_RECEIVES = 3
"""How often a source's consumer tries a message; with a second each, three looks show its fate."""
_FATE: Mapping[str, str] = {"VisibilityTimeout": "1"}
_EVERY_SECONDS = 0.02

type Json = dict[str, Any]


@dataclass
class Letters(Target):
    """One dead-letter queue."""

    KIND: ClassVar[str] = "letters"
    GIVEN: ClassVar[Mapping[str, Any]] = {
        "metrics": "healthy",
        "letters": 14,
        "fifo": False,
        "sources": 1,
        "opted_in": "enabled",
        "destination_opted_in": "enabled",
        "idempotent": False,
        "own_dlq": False,
        "consumer": {
            "mappings": 1,
            "enabled": True,
            "reserved": None,
            "changed_seconds_ago": 60,
        },
    }
    ALARM: ClassVar[str] = "dead-letters"
    THRESHOLD: ClassVar[float] = 1

    url: str
    sources: list[str]
    """Names of the queues whose dead letters come here."""
    urls: list[str]
    """URLs of every queue that was made, the dead-letter queue's first."""
    function: str
    uuid: str
    rules: str
    """The SSM parameter that the queue's tag names."""
    mail: Mail
    elsewhere: str = ""
    """The ARN of a queue in another account or Region."""
    unarchived: bool = False
    """Whether their owner forbids copies, so that SQS itself moves them."""
    _taken: list[tuple[Json, str]] = field(default_factory=list)
    """What was consumed, each with its queue's ARN."""
    _most: float = math.inf
    _consuming: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _bounces: Callable[[int, str], bool] = lambda number, body: False  # noqa: ARG005 -- its shape
    _undo: list[Callable[[], None]] = field(default_factory=list)
    """What puts the embedded AWS right again after the story."""

    @classmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create the queues, the consumer and the letters, quickly."""
        target = cls._make_here(world, name, given)
        if "elsewhere" in given:
            target._make_elsewhere(given["elsewhere"])
        target.give(given["letters"])
        if "said_to_hold" in given:
            target._say_it_holds(int(given["said_to_hold"]))
        return target

    @classmethod
    def _make_here(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        ending = ".fifo" if given["fifo"] else ""
        fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if ending else {}
        urls: list[str] = []
        more: Json = {}
        if given["own_dlq"]:
            url, arn = parts.queue(world, f"{name}-graveyard{ending}", {}, **fifo)
            urls.append(url)
            more["RedrivePolicy"] = {"deadLetterTargetArn": arn, "maxReceiveCount": 1000}
        if "retention_seconds" in given:
            more["MessageRetentionPeriod"] = str(given["retention_seconds"])
        rules = f"/{name}/replay-rules"
        tags = _opt_in(given["opted_in"]) | _forbidding(given)
        if "rules" in given:
            tags["runbook:replay-rules"] = rules
            if given["rules"] is not None:
                _put_rules(world, rules, given["rules"])
        dlq = f"{name}-dlq{ending}"
        url, arn = parts.queue(world, dlq, tags, **more, **fifo)
        redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": _RECEIVES}
        tags = _consumers_tags(given)
        limit = {}
        if "max_message_bytes" in given:
            limit["MaximumMessageSize"] = str(given["max_message_bytes"])
        sources = [f"{name}{ending}", f"{name}-second{ending}"][: given["sources"]]
        arns = []
        for source in sources:
            made, source_arn = parts.queue(
                world, source, tags, RedrivePolicy=redrive, **_FATE, **limit, **fifo
            )
            urls.append(made)
            arns.append(source_arn)
        function, uuid = f"{name}-worker", ""
        consumer = given["consumer"]
        function_arn = parts.function(
            world,
            function,
            opted_in=given["destination_opted_in"] == "enabled",
            reserved=consumer["reserved"],
            timeout_seconds=1,
        )
        world.client("lambda").tag_resource(Resource=function_arn, Tags=tags)
        for _ in range(consumer["mappings"] if arns else 0):
            uuid = parts.mapping(world, arns[0], function, cap=None, enabled=consumer["enabled"])
        target = cls(
            world,
            dlq,
            arn,
            url=url,
            sources=sources,
            urls=[url, *urls],
            function=function,
            uuid=uuid,
            rules=rules,
            mail=Mail(arn, arns, function_arn=function_arn),
            unarchived="archive_tag" in given,
        )
        target._hold_the_function()
        with target._in_memory():
            changed = world.now() - timedelta(seconds=consumer["changed_seconds_ago"])
            config = lambda_svc._functions[function]["config"]
            config["LastModified"] = f"{changed:%Y-%m-%dT%H:%M:%S}.000+0000"
        return target

    def _make_elsewhere(self, given: Mapping[str, Any]) -> None:
        """Create a queue in another account or Region; no redrive leads back from there."""
        account = given.get("account", self.world.aws.account)
        region = given.get("region", REGION)
        fifo = given["name"].endswith(".fifo")
        attributes = {"FifoQueue": "true"} if fifo else {}
        arn = f"arn:aws:sqs:{region}:{account}:{given['name']}"
        if "allows" in given:
            statement = {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{self.world.aws.account}:root"},
                "Action": given["allows"],
                "Resource": arn,
            }
            attributes["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": statement})
        self.elsewhere = arn
        self._sqs_elsewhere().create_queue(QueueName=given["name"], Attributes=attributes)
        self.world.worlds.leave_alone((arn,))
        self.mail.sources.append(arn)

    def _sqs_elsewhere(self) -> Any:
        _, _, _, region, account, _ = self.elsewhere.split(":")
        return self.world.aws.for_account(account, region).client("sqs")

    def come_elsewhere(self) -> int:
        """Return how many letters have come to the queue elsewhere, consumed or not."""
        with self._in_memory():
            waiting = len(self.mail.lying(self.elsewhere))
        return waiting + sum(arn == self.elsewhere for _, arn in self._taken)

    def _in_memory(self) -> Any:
        return request_scope(self.world.aws.account, REGION)

    def placeholders(self) -> Mapping[str, str]:
        names = {
            "dlq": self.name,
            "dlq_url": self.url,
            "dlq_arn": self.arn,
            "function": self.function,
            "function_arn": self.mail.function_arn,
            "rules": self.rules,
            "elsewhere_arn": self.elsewhere,
        }
        for name, arn, which in zip(
            self.sources, self.mail.sources, ("source", "second"), strict=False
        ):
            names |= {which: name, f"{which}_arn": arn}
        return names

    # Letters

    def give(self, groups: Any) -> None:
        """Let letters die: a number of them, or groups as the schema describes them."""
        with self._in_memory():
            self.mail.give(groups)

    def come_back(self, count: int) -> None:
        """Let the last so many that were taken be dead letters again."""
        with self._in_memory():
            for message, arn in self._taken[-count:]:
                self._die(message, arn)

    def reappear(self) -> None:
        """Let the time be over for which letters in flight are hidden."""
        with self._in_memory():
            for message in self.mail.lying(self.arn):
                message["visible_at"] = min(message["visible_at"], 0)

    # SQS's own move tasks

    def move_by_hand(self, each_second: int) -> None:
        """Let somebody start a move task, as the console does."""
        self.world.client("sqs").start_message_move_task(
            SourceArn=self.arn, MaxNumberOfMessagesPerSecond=each_second
        )

    def move_tasks(self) -> list[Json]:
        """Return the move tasks of the dead-letter queue, the first one first."""
        found = self.world.client("sqs").list_message_move_tasks(SourceArn=self.arn, MaxResults=10)
        return [dict(task) for task in reversed(found["Results"])]

    # Its consumer

    def consume(
        self, bounces: Callable[[int, str], bool] | None = None, most: float = math.inf
    ) -> None:
        """Take what is in the sources from now on; ``bounces`` tells what fails."""
        self._bounces = bounces or (lambda number, body: False)  # noqa: ARG005 -- its shape
        self._most = most
        if not self._consuming.is_set():
            self._consuming.set()
            threading.Thread(target=self._consume, name="consumer", daemon=True).start()

    def stop_consuming(self) -> None:
        """Take nothing any more."""
        self._consuming.clear()

    def _consume(self) -> None:
        with self._in_memory():
            while self._consuming.is_set() and not self._ended.wait(_EVERY_SECONDS):
                for arn in self.mail.sources:
                    self._take(arn)

    def _take(self, arn: str) -> None:
        queue = sqs._queue_by_arn(arn)
        if queue is None:
            return
        for message in take_out(queue, self._wants):
            self._taken.append((message, arn))
            self.mail.arrived.append((message["id"], self.mail.seen(message)))
            if self._bounces(len(self._taken), message["body"]):
                self._die(message, arn)

    def _wants(self, message: Json) -> bool:
        if self._most < 1:
            return False
        self._most -= 1
        return bool(message)

    def _die(self, message: Json, arn: str) -> None:
        """Let a message be received once too often; SQS then moves it."""
        again = {**message, "receive_count": _RECEIVES, "visible_at": 0.0}
        self.mail.returned.add(message["id"])
        self.mail.register(again, arn)
        queue = sqs._queue_by_arn(arn)
        queue["messages"].append(again)
        sqs._dlq_sweep(queue)

    # What the embedded SQS does not do by itself

    def refuse_entries(self, given: Mapping[str, Any]) -> None:
        """Let SendMessageBatch refuse entries whose body matches, so many times each call."""
        original = sqs._HANDLERS["SendMessageBatch"]
        pattern, left = re.compile(given.get("body", "")), given["times"]
        failure = {
            "Code": given.get("code", "InternalError"),
            "SenderFault": given.get("sender_fault", False),
            "Message": "as the story says",
        }

        def send(data: Json, url: str) -> Any:
            nonlocal left
            entries = data.get("Entries") or []
            if data.get("QueueUrl", url).rsplit("/", 1)[-1] not in self.sources:
                return original(data, url)
            bad = [one for one in entries if pattern.search(one["MessageBody"])][:left]
            left -= len(bad)
            ids = {one["Id"] for one in bad}
            good = [one for one in entries if one["Id"] not in ids]
            answer = original({**data, "Entries": good}, url) if good else {"Successful": []}
            failed = [*answer.get("Failed", []), *({"Id": key, **failure} for key in ids)]
            return {**answer, "Failed": failed}

        sqs._HANDLERS["SendMessageBatch"] = send
        self._undo.append(partial(sqs._HANDLERS.__setitem__, "SendMessageBatch", original))

    def _hold_the_function(self) -> None:
        """Let asynchronous calls of the function be noted and nothing else, as its pollers are."""
        original = lambda_svc.invoke_async_with_retry

        def invoke(function: Json, event: Any) -> None:
            if function["config"]["FunctionName"] != self.function:
                original(function, event)
                return
            self.mail.events.append(event)
            if self._bounces(len(self.mail.events), json.dumps(event)):
                with self._in_memory():
                    self.mail.give_again(event)

        lambda_svc.invoke_async_with_retry = invoke
        self._undo.append(partial(setattr, lambda_svc, "invoke_async_with_retry", original))

    def _say_it_holds(self, count: int) -> None:
        """Let SQS say that the queue holds so many: more than a story could give."""
        original, mine = sqs._refresh_counts, self.name

        def refresh(queue: Json) -> None:
            original(queue)
            if queue["name"] == mine:
                queue["attributes"]["ApproximateNumberOfMessages"] = str(count)

        sqs._refresh_counts = refresh
        self._undo.append(partial(setattr, sqs, "_refresh_counts", original))

    # Target

    def settings(self) -> Json:
        mapping: Json = {}
        if self.uuid:
            mapping = dict(self.world.client("lambda").get_event_source_mapping(UUID=self.uuid))
        found = self.world.client("sqs").get_queue_attributes(
            QueueUrl=self.url, AttributeNames=["All"]
        )["Attributes"]
        return {
            "enabled": mapping.get("State", "") not in {"", "Disabled", "Disabling"},
            "reserved": parts.reservation(self.world, self.function),
            "retention_seconds": int(found["MessageRetentionPeriod"]),
            "own_dlq": "RedrivePolicy" in found,
        }

    def change(self, setting: str, value: Any) -> None:
        if setting == "reserved":
            parts.reserve(self.world, self.function, value)
        elif setting == "enabled":
            self.world.client("lambda").update_event_source_mapping(UUID=self.uuid, Enabled=value)
        elif setting == "rules":
            _put_rules(self.world, self.rules, value)
        elif setting == "max_message_bytes":
            self._set_queue(1, MaximumMessageSize=str(value))
        else:
            self._set_queue(0, MessageRetentionPeriod=str(value))

    def _set_queue(self, which: int, **attributes: str) -> None:
        url = (self.url, *self.urls[-len(self.sources) :])[which]
        self.world.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def metrics(self) -> Mapping[str, Metric]:
        source = self.sources[0] if self.sources else f"{self.name}-none"
        return parts.queue_metrics(source, self.name, self.function)

    def alarm(self, dimension: str) -> Json:
        return parts.depth_alarm(dimension)

    @property
    def beside(self) -> str:
        return next(iter(self.sources), f"{self.name}-other")

    def untag(self, what: str) -> None:
        if what == "function":
            parts.untag(self.world, self.mail.function_arn)
            return
        url = self.url if what == "dlq" else self.urls[-len(self.sources)]
        self.world.client("sqs").untag_queue(QueueUrl=url, TagKeys=list(OPT_IN))

    def untag_once_read(self, what: str, role: str) -> None:
        if what == "function":
            tags = partial(parts.function_tags, self.function)
            self.world.once_tags_are_read(role, lambda: tags().clear())
            return
        arn = self.arn if what == "dlq" else self.mail.sources[0]

        def opt_out() -> None:
            self.mail.queue(arn)["tags"].pop(next(iter(OPT_IN)), None)

        self.world.once_tags_are_read(role, opt_out, "sqs:ListQueueTags", arn)

    def secrets(self) -> Sequence[str]:
        return (self.mail.secret,)

    def rest(self) -> None:
        self._ended.set()
        while self._undo:
            self._undo.pop()()

    def forget(self) -> None:
        for url in self.urls:
            parts.forget_queue(self.world, url)
        if self.elsewhere:
            there = self._sqs_elsewhere()
            url = there.get_queue_url(QueueName=self.elsewhere.rsplit(":", 1)[-1])["QueueUrl"]
            there.delete_queue(QueueUrl=url)
        self.world.client("lambda").delete_function(FunctionName=self.function)
        self.world.forget(self.metrics().values())


def _opt_in(value: str | None) -> dict[str, str]:
    return {} if value is None else dict.fromkeys(OPT_IN, value)


def _consumers_tags(given: Mapping[str, Any]) -> dict[str, str]:
    tags = _opt_in(given["destination_opted_in"])
    if given["idempotent"]:
        tags["runbook:idempotent"] = "yes"
    if "rate" in given:
        tags["runbook:replay-rate"] = str(given["rate"])
    return tags


def _forbidding(given: Mapping[str, Any]) -> dict[str, str]:
    return {"runbook:archive": given["archive_tag"]} if "archive_tag" in given else {}


def _put_rules(world: World, name: str, rules: Any) -> None:
    world.client("ssm").put_parameter(
        Name=name,
        Value=rules if isinstance(rules, str) else json.dumps(rules),
        Type="String",
        Overwrite=True,
    )
