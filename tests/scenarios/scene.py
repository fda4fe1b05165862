"""One performance of a story: what it has made so far, and what can be seen of it."""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.block_kit import texts_of
from local.playground import STACK
from local.slack import Message
from oncall.incident import Incident
from tests.scenarios.story import Story, picture
from tests.scenarios.targets import Target
from tests.scenarios.world import WIND_DOWN, World, eventually

RUN = "run"
_PRODUCTION_WRITES = frozenset(
    {
        "lambda:PutFunctionConcurrency",
        "lambda:DeleteFunctionConcurrency",
        "lambda:PutProvisionedConcurrencyConfig",
        "lambda:DeleteProvisionedConcurrencyConfig",
        "lambda:UpdateEventSourceMapping",
        "ecs:UpdateService",
        "rds:FailoverGlobalCluster",
        "rds:SwitchoverGlobalCluster",
        "route53:ChangeResourceRecordSets",
        "route53-recovery-cluster:UpdateRoutingControlStates",
        "sqs:DeleteMessage",
        "sqs:SendMessage",
        "sqs:StartMessageMoveTask",
        "ssm:PutParameter",
    }
)
_REFUSED = 400
_USER = re.compile(r"<@(\w+)>")

type Json = dict[str, Any]


@dataclass
class Scene:
    """What a story and those who look at it share."""

    story: Story
    world: World
    runs: dict[str, str] = field(default_factory=dict)
    """Executions by the names that the story gives them."""
    alarms: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    dispatched: list[str] = field(default_factory=list)
    swept: list[Mapping[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    settings_before: list[Mapping[str, Any]] = field(default_factory=list)
    earlier: str = ""
    """The incident of a run before the story."""

    def __post_init__(self) -> None:
        world = self.world
        self.since = datetime.now(UTC)
        self.started = set(world.executions(self.story.runbook))
        self.executions_before = len(self.started)
        self.wound_down = set(world.executions(WIND_DOWN))
        self.incidents_before = {str(item["id"]) for item in self.records()}
        self.messages_before = len(world.slack.messages)
        self.pages_before = len(world.pagerduty.pages)
        self.calls_before = len(world.aws.calls)
        self.picture: Mapping[str, Any] = self.story.given["metrics"]

    @property
    def target(self) -> Target:
        """The target that the story is about."""
        return self.targets[0]

    def show(self, given: Any) -> None:
        """Let the metrics of every target say what a picture says."""
        self.picture = picture(self.story.runbook, given)
        for target in self.targets:
            target.seed(self.picture)

    def filled(self, value: Any) -> Any:
        """Replace ``{queue}`` and the like by what they are here."""
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        names = {
            **self.target.placeholders(),
            "account": self.world.aws.account,
            "incident": self.runs.get(RUN, "{incident}").rsplit(":", 1)[-1],
        }
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value

    def so_far(self) -> str:
        """Tell what has happened, for whoever mends a story that fails."""
        lines = []
        for name, execution in self.runs.items():
            found = self.world.client("stepfunctions").describe_execution(executionArn=execution)
            state = self.last_state(execution)
            lines.append(f"{name}: {found['status']} in {state!r} {found.get('error', '')}")
            if self.incident(name) is not None:
                lines.append(self.story_of(name))
        return "\n".join([*lines, *self.answers, *self.pages()])

    def invoke(self, output: str, event: Mapping[str, Any]) -> Json:
        answer = self.world.client("lambda").invoke(
            FunctionName=self.world.outputs[output], Payload=json.dumps(event)
        )
        return dict(json.loads(answer["Payload"].read()))

    def incident_id(self, name: str) -> str:
        return self.runs[name].rsplit(":", 1)[-1]

    def incident(self, name: str) -> Incident | None:
        return self.world.store.find(self.incident_id(name))

    def load(self, name: str) -> Incident:
        return self.world.store.load(self.incident_id(name))

    def story_of(self, run: str) -> str:
        return "\n".join(f"{entry.kind}: {entry.text}" for entry in self.load(run).entries)

    def header(self, name: str) -> Message:
        incident = self.incident_id(name)

        def find() -> Message | None:
            ts = self.world.store.report_state(incident).get("slack", {}).get("ts")
            return next((m for m in self.world.slack.messages if m.ts == ts), None)

        found = eventually(find, f"Slack has a message on {incident}")
        assert found
        return found

    def buttons(self, name: str) -> list[str]:
        return [button.action_id for button in self.world.slack.buttons(self.header(name))]

    def header_text(self, name: str) -> str:
        return said(self.header(name))

    def thread_text(self, name: str) -> str:
        header = self.header(name)
        if header.thread_ts is not None:
            return said(header)
        return "\n".join(said(message) for message in self.world.slack.thread(header.ts))

    def pages(self) -> list[str]:
        return [page.message for page in self.world.pagerduty.pages[self.pages_before :]]

    def records(self) -> list[Mapping[str, Any]]:
        return [item for item in self.world.items("INCIDENT#") if item["sk"] == "RECORD"]

    def incidents(self) -> list[Incident]:
        """Return the story's incidents, storms and wound down ones too."""
        new = {str(item["id"]) for item in self.records()} - self.incidents_before
        return [self.world.store.load(name) for name in sorted(new)]

    def changes(self, name: str) -> list[tuple[str, str]]:
        if self.incident(name) is None:
            return []
        return [(change.lever, change.state) for change in self.load(name).changes]

    def is_counted(self, metric: str, by: Mapping[str, str], count: float) -> bool:
        return self.counted(metric, **by) == count

    def counted(self, metric: str, **dimensions: str) -> float:
        wanted = [{"Name": key, "Value": value} for key, value in dimensions.items()]
        cloudwatch = self.world.client("cloudwatch")
        total = 0.0
        for one in cloudwatch.list_metrics(Namespace="Runbooks", MetricName=metric)["Metrics"]:
            if not all(pair in one["Dimensions"] for pair in wanted):
                continue
            points = cloudwatch.get_metric_statistics(
                Namespace="Runbooks",
                MetricName=metric,
                Dimensions=one["Dimensions"],
                StartTime=self.since.replace(microsecond=0),
                EndTime=self.world.now() + timedelta(seconds=5),
                Period=1,
                Statistics=["Sum"],
            )["Datapoints"]
            total += sum(point["Sum"] for point in points)
        return total

    def alarm_state(self) -> Mapping[str, Any]:
        found = self.world.client("cloudwatch").describe_alarms(
            AlarmNames=[self.alarms[-1]], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        return dict([*found["MetricAlarms"], *found["CompositeAlarms"]][0])

    def executions(self) -> int:
        return len(self.world.executions(self.story.runbook)) - self.executions_before

    def executions_of_the_story(self) -> list[str]:
        return self.world.executions(self.story.runbook)[self.executions_before :]

    def new_runs(self) -> list[str]:
        found = self.world.executions(self.story.runbook)
        return [arn for arn in found if arn not in self.started]

    def ended(self, execution: str) -> Mapping[str, Any]:
        states = self.world.client("stepfunctions")
        return eventually(
            lambda: (
                (found := states.describe_execution(executionArn=execution))["status"] != "RUNNING"
                and found
            ),
            f"{execution.rsplit(':', 1)[-1]} ends (it is in {self.last_state(execution)!r})",
            seconds=60,
        )

    def all_ended(self) -> None:
        for execution in self.runs.values():
            self.ended(execution)
        for name in self.world.executions(WIND_DOWN):
            self.ended(name)

    def last_state(self, execution: str) -> str:
        entered = [
            event["stateEnteredEventDetails"]["name"]
            for event in self.world.history(execution)
            if "stateEnteredEventDetails" in event
        ]
        return entered[-1] if entered else ""

    def writes(self) -> list[str]:
        """Return what our functions have changed of production."""
        return [
            f"{call.action} by {call.role}"
            for call in list(self.world.aws.calls)[self.calls_before :]
            if call.action in _PRODUCTION_WRITES and call.role.startswith(STACK)
        ]

    def answered(self, action: str) -> int:
        """Count the calls of an action by our functions that had their effect."""
        return sum(
            call.action == action and call.role.startswith(STACK) and 0 < call.status < _REFUSED
            for call in list(self.world.aws.calls)[self.calls_before :]
        )

    def denied(self) -> list[Any]:
        return [
            call
            for call in list(self.world.aws.calls)[self.calls_before :]
            if call.role.startswith(STACK) and call.status == 403
        ]


@dataclass
class Part:
    """What has a part in a performance: its steps, and those who check them."""

    scene: Scene

    @property
    def world(self) -> World:
        return self.scene.world

    @property
    def target(self) -> Target:
        return self.scene.target


def said(message: Message) -> str:
    """Return a message's text as a person reads it: blocks and notification."""
    parts = [message.text, *(str(text["text"]) for text in texts_of(message.blocks))]
    for block in message.blocks:
        text = block.get("text")
        if isinstance(text, dict) and text.get("type") == "plain_text":
            parts.append(str(text["text"]))
    return html.unescape(_USER.sub(r"\1", "\n".join(parts))).replace("*", "")
