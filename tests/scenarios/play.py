"""Play a story in a world: what is given, what happens, and what has to be so then."""

import html
import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from local.block_kit import texts_of
from local.playground import STACK
from local.slack import Click, Message
from oncall import levers, messages
from oncall.record import Change, Entry, Incident, Run
from oncall.times import iso, parse
from tests.scenarios.story import Story, picture
from tests.scenarios.world import Target, World, eventually

RUN = "run"
_PRODUCTION_WRITES = frozenset(
    {
        "lambda:PutFunctionConcurrency",
        "lambda:DeleteFunctionConcurrency",
        "lambda:UpdateEventSourceMapping",
        "ssm:PutParameter",
    }
)
_DATES = ("started_at", "updated_at", "closed_at", "lease_until", "expires_at", "deadline")

_USER = re.compile(r"<@(\w+)>")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT")
_AFTERWARDS = frozenset({"settings", "denied", "failed_reports", "failed_events", "untold"})
"""What a story says of the checks that follow it."""

type Json = dict[str, Any]


@dataclass
class Play:
    """One performance of a story."""

    story: Story
    world: World
    runs: dict[str, str] = field(default_factory=dict)
    """Executions by the names that the story gives them."""
    alarms: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    dispatched: list[str] = field(default_factory=list)
    swept: list[Mapping[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        self.since = datetime.now(UTC)
        self.before = {name: len(world.executions(name)) for name in ("QueueSaturationMachine",)}
        self.started = set(world.executions("QueueSaturationMachine"))
        self.wound_down = set(world.executions("WindDownMachine"))
        self.incidents_before = {str(item["id"]) for item in self._records()}
        self.messages_before = len(world.slack.messages)
        self.pages_before = len(world.pagerduty.pages)
        self.calls_before = len(world.aws.calls)
        self.picture: Mapping[str, Any] = self.story.given["metrics"]

    # The performance

    def play(self) -> None:
        """Play the story from given to then; AssertionError says what is otherwise."""
        world = self.world
        world.waits = self.story.given["waits"]
        self._given(self.story.given)
        try:
            for step, value in self.story.when:
                getattr(self, f"_do_{step}")(self._filled(value))
            self._all_ended()
        finally:
            world.waits = 0.05
            world.aws.faults.clear()
            world.slack.up()
            world.pagerduty.up()
            world.kill_switch("run")
            world.kill_switch("run", "queue-saturation")
            world.aws.set_account_concurrency(1000)
            world.rules(enabled=True, scheduled=False)
            if "Calendar" in world.settings:
                world.calendar(str(world.settings["Calendar"]), closed=False)
            world.alarm_events(enabled=True)
            for alarm in reversed(self.alarms):
                world.client("cloudwatch").delete_alarms(AlarmNames=[alarm])
        self._all_told()
        self._check(self._filled(self.story.then))
        self._leaves_nothing()
        if self.target.seeded:
            world.forget_targets()

    @property
    def target(self) -> Target:
        return self.targets[0]

    def _filled(self, value: Any) -> Any:
        """Replace ``{queue}`` and the like by what they are here."""
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, str):
            return value
        target = self.target
        for name, text in (
            ("queue", target.queue),
            ("queue_url", target.url),
            ("queue_arn", target.arn),
            ("dlq", target.dlq),
            ("function", target.function),
            ("function_arn", target.function_arn),
            ("uuid", target.uuid),
            ("mapping_arn", target.mapping_arn),
            ("parameter", target.parameter),
            ("account", self.world.aws.account),
            ("incident", self.runs.get(RUN, "{incident}").rsplit(":", 1)[-1]),
        ):
            value = value.replace(f"{{{name}}}", text)
        return value

    # Given

    def _given(self, given: Mapping[str, Any]) -> None:
        world = self.world
        if given.get("target") == "pilot":
            self.targets.append(world.pilot())
        else:
            name = self.story.name[:40]
            self.targets.append(world.make_target(f"{name}-{uuid.uuid4().hex[:4]}", given))
            for number in range(given.get("targets", 0)):
                self.targets.append(world.make_target(f"{name}-{number}", given))
            for target in self.targets:
                world.seed(target, self.picture)
        if given.get("disabled_by_an_earlier_run"):
            self._earlier_run_left_it_disabled()
        for past in given.get("past_runs", []):
            self._past_run(**past)
        if "account_limit" in given:
            world.aws.set_account_concurrency(given["account_limit"])
        if "kill_switch" in given:
            world.kill_switch(given["kill_switch"])
        if not given.get("status_events", True):
            world.rules(enabled=False, scheduled=False)
        for fault in given.get("faults", []):
            self._do_fault(fault)
        self.settings_before = [world.settings_of(target) for target in self.targets]
        self.calls_before = len(world.aws.calls)

    def _earlier_run_left_it_disabled(self) -> None:
        """Write the record of a run that has disabled the mapping and lost its lock since."""
        world, target = self.world, self.target
        name = f"earlier-{uuid.uuid4().hex[:8]}"
        opened = world.store.open(
            Incident(
                id=name, runbook="queue-saturation", title="Earlier", target=target.arn,
                target_name=target.queue, mode="auto", trigger={"kind": "hand", "alarm": {}},
                execution="", fence=0,
            ),
            Entry(id="opened", kind="opened", text="An earlier run."),
            timedelta(hours=1),
        )  # fmt: skip
        run = Run(opened.id, opened.runbook, opened.target, opened.mode, opened.fence)
        lever = levers.LEVERS["mapping-enabled"]
        change = Change(
            lever=lever.id, resource=target.mapping_arn, name=f"{target.function}'s consumer",
            before=True, after=False, why="an earlier run", state="intended",
            undo=lever.command(target.mapping_arn, value=True),
            expires_at=iso(world.now() + timedelta(hours=1)),
        )  # fmt: skip
        world.store.lease_change(run, change, Entry(id="i", kind="intended", text="Disable."))
        self.earlier = replace(change, incident=run.incident, state="applied")
        world.store.update_change(
            run, self.earlier, Entry(id="c", kind="changed", text="Disabled.")
        )
        world.store.close(
            run, "failed", "It failed.", Entry(id="x", kind="closed", text="It failed.")
        )

    def _past_run(self, outcome: str, minutes_ago: float) -> None:
        at = iso(self.world.now() - timedelta(minutes=minutes_ago))
        table = self.world.aws.session().resource("dynamodb")
        table.Table(self.world.outputs["IncidentsTable"]).put_item(
            Item={
                "pk": f"TARGET#{self.target.arn}",
                "sk": f"RUN#{at}#past-{minutes_ago}",
                "type": "run",
                "runbook": "queue-saturation",
                "incident": f"past-{minutes_ago}",
                "outcome": outcome,
                "mode": "auto",
                "closed_at": at,
            }
        )

    # When

    def _do_start(self, given: Any) -> None:
        name = RUN
        if isinstance(given, dict):
            name = given.pop("as", RUN)
        answer = self.world.client("stepfunctions").start_execution(
            stateMachineArn=self.world.outputs["QueueSaturationMachine"],
            input=json.dumps(given),
        )
        self.runs[name] = answer["executionArn"]
        self.started.add(answer["executionArn"])

    def _do_alarm(self, given: Mapping[str, Any]) -> None:
        """Create an alarm on the target's depth that CloudWatch finds breaching."""
        name = f"{self.target.queue.removesuffix('.fifo')}-{given.get('name', 'backlog')}"
        self._put_alarm(name, given.get("dimension", self.target.queue), given)
        if given.get("from", "OK") == "OK":
            self._set_ok(f"{name}-part" if given.get("kind") == "composite" else name)
        self._expect_run(given.get("starts", RUN))

    def _put_alarm(self, name: str, queue: str, given: Mapping[str, Any]) -> None:
        wanted = {"runbook": "queue-saturation", **given.get("tags", {})}
        tags = [{"Key": key, "Value": value} for key, value in wanted.items() if value is not None]
        cloudwatch = self.world.client("cloudwatch")
        part, kind = name, given.get("kind", "metric")
        if kind == "composite":
            part = f"{name}-part"
        cloudwatch.put_metric_alarm(
            AlarmName=part,
            AlarmDescription=given.get("description", ""),
            **(self._sum_of_depths(queue) if kind == "math" else _depth(queue)),
            EvaluationPeriods=1,
            Threshold=100,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="notBreaching",
            Tags=tags if part == name else [],
        )
        if part not in self.alarms:
            self.alarms.append(part)
        if kind == "composite":
            cloudwatch.put_composite_alarm(AlarmName=name, AlarmRule=f'ALARM("{part}")', Tags=tags)
            self.alarms.append(name)

    def _sum_of_depths(self, queue: str) -> Json:
        """Return a metric-math alarm's metrics, whose dimensions name two queues."""
        stats = []
        for name, one in (("backlog", queue), ("dead", self.target.dlq)):
            metric = _depth(one)
            statistic, period = metric.pop("Statistic"), metric.pop("Period")
            stat = {"Metric": metric, "Stat": statistic, "Period": period}
            stats.append({"Id": name, "MetricStat": stat, "ReturnData": False})
        return {"Metrics": [{"Id": "all", "Expression": "backlog + dead"}, *stats]}

    def _set_ok(self, name: str) -> None:
        self.world.client("cloudwatch").set_alarm_state(
            AlarmName=name, StateValue="OK", StateReason="the story begins"
        )

    def _alarm_state(self) -> Mapping[str, Any]:
        found = self.world.client("cloudwatch").describe_alarms(
            AlarmNames=[self.alarms[-1]], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        return dict([*found["MetricAlarms"], *found["CompositeAlarms"]][0])

    def _expect_run(self, name: str | None) -> None:
        """Wait for the run that an alarm starts, or see that it starts none."""
        if name == "nothing":
            return
        if name is None:
            eventually(lambda: self._alarm_state()["StateValue"] == "ALARM", "the alarm fires")
            time.sleep(0.5)
            assert not self._new_runs(), "a run was started"
            return
        new = eventually(self._new_runs, "the alarm starts a run")
        self.runs[name] = new[0]
        self.started.add(new[0])

    def _new_runs(self) -> list[str]:
        return [
            arn
            for arn in self.world.executions("QueueSaturationMachine")
            if arn not in self.started
        ]

    def _do_event(self, given: Mapping[str, Any]) -> None:
        alarm = self._alarm_state()
        at = alarm["StateTransitionedTimestamp"].astimezone(UTC)
        at -= timedelta(seconds=given.get("seconds_ago", 0))
        event = {
            "source": "aws.cloudwatch",
            "detail-type": "CloudWatch Alarm State Change",
            "resources": [alarm["AlarmArn"]],
            "detail": {
                "alarmName": alarm["AlarmName"],
                "state": {
                    "value": given.get("state", "ALARM"),
                    "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}+0000",
                },
                "previousState": {"value": given.get("previous", "OK")},
            },
        }
        for _ in range(given.get("times", 1)):
            done = self._invoke("DispatchFunction", event)
            self.dispatched.append(done["reason"] or done["result"])
        if "starts" in given:
            self._expect_run(given["starts"])

    def _do_storm(self, given: Mapping[str, Any]) -> None:
        """Create alarms that are OK, and let the metrics of all go bad at the same moment."""
        prefix = f"{self.target.queue}-storm"
        self._do_alarm_events("lost")
        self._do_metrics("calm")
        for number in range(given["alarms"]):
            target = self.targets[number % len(self.targets)]
            self._put_alarm(f"{prefix}-{number}", target.queue, given)
        eventually(lambda: self._in_state("OK", prefix) == given["alarms"], "alarms OK", every=0.5)
        # Else each of 200 events would start a worker of its own on this one machine.
        functions, dispatch = self.world.client("lambda"), self.world.outputs["DispatchFunction"]
        functions.put_function_concurrency(FunctionName=dispatch, ReservedConcurrentExecutions=4)
        self.world.async_pause(0.5)
        self._do_alarm_events("work")
        self._do_metrics("capped")
        eventually(
            lambda: self._dispatched() >= given["alarms"],
            "every alarm is counted",
            seconds=120,
            every=2,
        )
        self.world.async_pause(30)
        functions.delete_function_concurrency(FunctionName=dispatch)
        for number, arn in enumerate(self._new_runs()):
            self.runs[f"run-{number}"] = arn
            self.started.add(arn)

    def _in_state(self, state: str, prefix: str) -> int:
        pages = self.world.client("cloudwatch").get_paginator("describe_alarms")
        found = pages.paginate(AlarmNamePrefix=prefix, StateValue=state)
        return sum(len(page["MetricAlarms"]) for page in found)

    def _dispatched(self) -> float:
        counted = ("AlarmsStarted", "AlarmsGathered", "AlarmsIgnored")
        return sum(self._counted(name) for name in counted)

    def _do_wait(self, given: Mapping[str, Any]) -> None:
        name = given.get("run", RUN)
        for what, wanted in given.items():
            if what != "run":
                getattr(self, f"_until_{what}")(name, wanted)

    def _until_seconds(self, _: str, seconds: float) -> None:
        time.sleep(seconds)

    def _until_new(self, run: str, _: object) -> None:
        self._expect_run(run)

    def _until_alarm(self, _: str, wanted: str) -> None:
        eventually(lambda: self._alarm_state()["StateValue"] == wanted, f"alarm {wanted}")

    def _until_state(self, run: str, wanted: str) -> None:
        execution = self.runs[run]
        eventually(lambda: self._last_state(execution) == wanted, f"state {wanted}")

    def _until_phase(self, run: str, wanted: str) -> None:
        eventually(
            lambda: (found := self._incident(run)) is not None and found.phase == wanted,
            f"phase {wanted}",
        )

    def _until_changed(self, run: str, lever: str) -> None:
        eventually(lambda: (lever, "applied") in self._changes(run), f"{lever} is changed")

    def _until_button(self, run: str, wanted: str) -> None:
        eventually(lambda: wanted in self._buttons(run), f"button {wanted}")

    def _until_slack(self, run: str, wanted: str) -> None:
        eventually(lambda: wanted in self._thread_text(run), f"Slack says {wanted!r}")

    def _until_paged(self, _: str, wanted: str) -> None:
        eventually(lambda: any(wanted in page for page in self._pages()), f"page {wanted!r}")

    def _until_all_ended(self, _: str, __: object) -> None:
        self._all_ended()

    def _until_ended(self, run: str, _: object) -> None:
        self._ended(self.runs[run])

    def _do_click(self, given: Mapping[str, Any]) -> None:
        slack = self.world.slack
        header = self._header(given.get("run", RUN))
        seen = len(slack.ephemerals)
        button = given["button"]
        if not given.get("stale"):
            eventually(lambda: button in self._buttons(given.get("run", RUN)), f"button {button}")
        click: Click = slack.click(
            header,
            button,
            url=self.world.outputs["DecisionUrl"],
            user=given.get("by", "U0ALICE"),
            stale=bool(given.get("stale")),
            signing_secret="forged" if given.get("forged") else None,
            timestamp=time.time() - given.get("seconds_ago", 0),
        )
        if given.get("again"):
            click = slack.replay(click)
        if click.status != 200:
            self.answers.append(f"{click.status} {click.body}")
            return
        assert click.acknowledged, click
        if not given.get("again"):
            eventually(lambda: len(slack.ephemerals) > seen, "the person is answered")
            self.answers.append(html.unescape(slack.ephemerals[-1].text))

    def _do_decide(self, given: Mapping[str, Any]) -> None:
        given = dict(given)
        name = given.pop("run", RUN)
        everyone = list(self.runs) if name == "all" else [name]
        for run in everyone:
            event = {"incident": self._incident_id(run), **given}
            event.setdefault("by", "arn:aws:iam::123456789012:user/carol")
            answer = self._invoke("DecisionFunction", event)
            self.answers.append(answer.get("text") or answer.get("errorMessage", ""))

    def _do_someone_sets(self, given: Mapping[str, Any]) -> None:
        for setting, value in given.items():
            self.world.change(self.target, setting, value)

    def _do_metrics(self, given: Any) -> None:
        self.picture = picture(given)
        for target in self.targets:
            self.world.seed(target, self.picture)

    def _do_queue(self, given: Any) -> None:
        if isinstance(given, dict):
            self.world.drain(self.target)
            self.world.send(self.target, given["holds"])
        elif given == "drains":
            for target in self.targets:
                self.world.drain(target)
            self._do_metrics("calm")
        else:
            self.world.send(self.target, self.story.given["messages"])
            self._do_metrics("capped")

    def _do_load(self, given: Mapping[str, Any]) -> None:
        load = self.world.ground.load()
        if "starts" in given:
            alarm = self.world.ground.pilot.backlog_alarm
            describe = self.world.client("cloudwatch").describe_alarms
            eventually(
                lambda: describe(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"] == "OK",
                "the pilot's alarm is OK before the load",
            )
        if "spike" in given:
            load.spike(given["spike"])
        if "steady" in given:
            steady = threading.Thread(target=load.steady, kwargs=given["steady"], daemon=True)
            steady.start()
        if "poison" in given:
            load.poison(given["poison"])
        if "latency_ms" in given:
            load.slow_downstream(given["latency_ms"])
        if "error_rate" in given:
            load.fail_downstream(given["error_rate"])
        if "starts" in given:
            self._expect_run(given["starts"])

    def _do_kill_switch(self, value: str) -> None:
        self.world.kill_switch(value)

    def _do_runbook_switch(self, value: str) -> None:
        self.world.kill_switch(value, "queue-saturation")

    def _do_calendar(self, value: str) -> None:
        self.world.calendar(str(self.world.settings["Calendar"]), closed=value == "closed")

    def _do_account_limit(self, value: int) -> None:
        self.world.aws.set_account_concurrency(value)

    def _do_fault(self, given: Mapping[str, Any]) -> None:
        faults = self.world.aws.faults
        service, _, operation = given.get("call", "*:*").partition(":")
        kind, times = given["is"], given.get("times", 1)
        if kind.startswith("crash"):
            faults.crash_lambda(
                f"{STACK}-{given['function']}", kind.removeprefix("crash_"),
                operation=operation, service=service, times=times,
            )  # fmt: skip
            return
        role = "".join(word.capitalize() for word in given["function"].split("-"))
        faults.add(
            service, operation, kind, times=times, code=given.get("code", ""),
            status=given.get("status", 0), role=f"{role}FunctionRole",
        )  # fmt: skip

    def _do_alarm_events(self, value: str) -> None:
        self.world.alarm_events(enabled=value == "work")

    def _do_untag(self, given: Mapping[str, str]) -> None:
        if "once_read_by" in given:
            self.world.untag_mapping_once_read(self.target, given["once_read_by"])
        else:
            self.world.untag(self.target, given["what"])

    def _do_faults_end(self, _: object) -> None:
        self.world.aws.faults.clear()

    def _do_slack(self, given: Any) -> None:
        _channel(self.world.slack, given)

    def _do_pagerduty(self, given: Any) -> None:
        _channel(self.world.pagerduty, given)

    def _do_stop_execution(self, name: str) -> None:
        self.world.client("stepfunctions").stop_execution(
            executionArn=self.runs[name], error="Stopped", cause="by somebody in the console"
        )

    def _do_time_passes(self, seconds: float) -> None:
        """Make the story's incidents, their locks, leases and claims older by so much."""
        table = (
            self.world.aws.session()
            .resource("dynamodb")
            .Table(self.world.outputs["IncidentsTable"])
        )
        mine = {incident.id for incident in self._incidents()}
        mine |= {incident.id for incident in self._incidents()}
        if hasattr(self, "earlier"):
            mine.add(self.earlier.incident)
        for item in self.world.items():
            owner = item.get("incident") or item.get("id")
            if owner not in mine and str(item["pk"]).partition("#")[2] not in mine:
                continue
            older = _older(item, seconds)
            if str(item["sk"]).startswith("RUN#"):
                table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
                older["sk"] = f"RUN#{older['closed_at']}#{owner}"
            table.put_item(Item=older)

    def _do_reconcile(self, given: Mapping[str, Any] | None) -> None:
        known = set(self.world.executions("WindDownMachine"))
        self.swept.append(self._invoke("ReconcileFunction", given or {}))
        for name in set(self.world.executions("WindDownMachine")) - known:
            self._ended(name)

    def _do_check(self, given: Mapping[str, Any]) -> None:
        self._check(given)

    def _invoke(self, output: str, event: Mapping[str, Any]) -> Json:
        answer = self.world.client("lambda").invoke(
            FunctionName=self.world.outputs[output], Payload=json.dumps(event)
        )
        return dict(json.loads(answer["Payload"].read()))

    def so_far(self) -> str:
        """Tell what has happened, for whoever mends a story that fails."""
        lines = []
        for name, execution in self.runs.items():
            found = self.world.client("stepfunctions").describe_execution(executionArn=execution)
            state = self._last_state(execution)
            lines.append(f"{name}: {found['status']} in {state!r} {found.get('error', '')}")
            if self._incident(name) is not None:
                lines.append(self._story_of(name))
        return "\n".join([*lines, *self.answers, *self._pages()])

    # Looking

    def _incident_id(self, name: str) -> str:
        return self.runs[name].rsplit(":", 1)[-1]

    def _incident(self, name: str) -> Incident | None:
        return self.world.store.find(self._incident_id(name))

    def _load(self, name: str) -> Incident:
        return self.world.store.load(self._incident_id(name))

    def _header(self, name: str) -> Message:
        incident = self._incident_id(name)

        def find() -> Message | None:
            ts = self.world.store.report_state(incident).get("slack", {}).get("ts")
            return next((m for m in self.world.slack.messages if m.ts == ts), None)

        found = eventually(find, f"Slack has a message on {incident}")
        assert found
        return found

    def _buttons(self, name: str) -> list[str]:
        return [button.action_id for button in self.world.slack.buttons(self._header(name))]

    def _header_text(self, name: str) -> str:
        return said(self._header(name))

    def _thread_text(self, name: str) -> str:
        header = self._header(name)
        if header.thread_ts is not None:
            return said(header)
        return "\n".join(said(message) for message in self.world.slack.thread(header.ts))

    def _pages(self) -> list[str]:
        return [page.message for page in self.world.pagerduty.pages[self.pages_before :]]

    def _records(self) -> list[Mapping[str, Any]]:
        return [item for item in self.world.items("INCIDENT#") if item["sk"] == "RECORD"]

    def _incidents(self) -> list[Incident]:
        """Return the story's incidents, storms and wound down ones too."""
        new = {str(item["id"]) for item in self._records()} - self.incidents_before
        return [self.world.store.load(name) for name in sorted(new)]

    def _is_counted(self, metric: str, by: Mapping[str, str], count: float) -> bool:
        return self._counted(metric, **by) == count

    def _counted(self, metric: str, **dimensions: str) -> float:
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

    def _ended(self, execution: str) -> Mapping[str, Any]:
        states = self.world.client("stepfunctions")
        return eventually(
            lambda: (
                (found := states.describe_execution(executionArn=execution))["status"] != "RUNNING"
                and found
            ),
            f"{execution.rsplit(':', 1)[-1]} ends (it is in {self._last_state(execution)!r})",
            seconds=60,
        )

    def _changes(self, name: str) -> list[tuple[str, str]]:
        if self._incident(name) is None:
            return []
        return [(change.lever, change.state) for change in self._load(name).changes]

    def _last_state(self, execution: str) -> str:
        entered = [
            event["stateEnteredEventDetails"]["name"]
            for event in self.world.history(execution)
            if "stateEnteredEventDetails" in event
        ]
        return entered[-1] if entered else ""

    # Then

    def _all_ended(self) -> None:
        for execution in self.runs.values():
            self._ended(execution)
        for name in self.world.executions("WindDownMachine"):
            self._ended(name)

    def _all_told(self) -> None:
        """Wait until report has caught up with the record of every incident of the story."""
        if self.story.then.get("untold"):
            return

        def behind() -> list[str]:
            late = []
            for incident in self._incidents():
                if messages.told_elsewhere(incident):
                    continue
                state = self.world.store.report_state(incident.id)
                told = state.get("slack", {}).get("seq", 0)
                last = max((entry.seq for entry in incident.entries), default=0)
                gathered = bool(incident.parent)
                if state.get("owed", True) or (told < last and not gathered):
                    late.append(f"{incident.id}: told {told} of {last}, {state}")
            return late

        eventually(lambda: not behind(), f"everything is told: {behind()}", seconds=20)

    def _check(self, then: Mapping[str, Any], run: str = RUN) -> None:
        for key, wanted in then.items():
            if key not in _AFTERWARDS:
                getattr(self, f"_then_{key}")(run, wanted)

    def _then_runs(self, _: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        for name, then in wanted.items():
            self._check(then, name)

    def _then_status(self, run: str, wanted: str) -> None:
        ended = self._ended(self.runs[run])
        assert ended["status"] == wanted, ended

    def _then_error(self, run: str, wanted: str) -> None:
        ended = self._ended(self.runs[run])
        assert ended.get("error") == wanted, ended

    def _then_cause(self, run: str, wanted: list[str]) -> None:
        ended = self._ended(self.runs[run])
        for text in wanted:
            assert text in ended.get("cause", ""), ended

    def _story_of(self, run: str) -> str:
        return "\n".join(f"{entry.kind}: {entry.text}" for entry in self._load(run).entries)

    def _then_outcome(self, run: str, wanted: str | None) -> None:
        found = self._incident(run)
        if wanted is None:
            assert found is None
        else:
            assert found is not None
            assert found.outcome == wanted, self._story_of(run)

    def _then_diagnosis(self, run: str, wanted: str) -> None:
        assert self._load(run).diagnosis == wanted, self._story_of(run)

    def _then_record(self, run: str, wanted: Mapping[str, Any]) -> None:
        incident = self._load(run)
        found = {name: getattr(incident, name) for name in wanted}
        assert found == wanted, self._story_of(run)

    def _then_timeline(self, run: str, wanted: list[str]) -> None:
        story, at = self._story_of(run), 0
        for text in wanted:
            found = story.find(text, at)
            assert found >= 0, f"{text!r} is not in the rest of:\n{story}"
            at = found + len(text)

    def _then_changes(self, run: str, wanted: list[Mapping[str, Any]]) -> None:
        shown = [
            {"lever": c.lever, "from": c.before, "to": c.after, "state": c.state}
            for c in self._load(run).changes
        ]
        assert len(shown) == len(wanted), shown
        for found, one in zip(shown, wanted, strict=True):
            assert {key: found[key] for key in one} == one, shown

    def _then_slack(self, run: str, wanted: list[str]) -> None:
        thread = self._thread_text(run)
        for text in wanted:
            assert text in thread, f"{text!r} is not in:\n{thread}"

    def _then_slack_never(self, run: str, wanted: list[str]) -> None:
        thread = self._thread_text(run)
        for text in wanted:
            assert text not in thread, f"{text!r} is in:\n{thread}"

    def _then_mentioned(self, _: str, wanted: list[str]) -> None:
        told = self.world.slack.messages[self.messages_before :]
        assert sorted({who for message in told for who in message.mentions}) == wanted

    def _then_header(self, run: str, wanted: list[str]) -> None:
        header = self._header_text(run)
        for text in wanted:
            assert text in header, f"{text!r} is not in:\n{header}"

    def _then_mentions(self, run: str, wanted: list[str]) -> None:
        thread = self.world.slack.thread(self._header(run).ts)
        assert sorted(set().union(*(m.mentions for m in thread))) == wanted

    def _then_buttons(self, run: str, wanted: list[str]) -> None:
        assert self._buttons(run) == wanted

    def _then_answers(self, _: str, wanted: list[str]) -> None:
        _alike(self.answers, wanted)

    def _then_paged(self, _: str, wanted: list[str]) -> None:
        if wanted:
            eventually(lambda: len(self._pages()) >= len(wanted), f"pages {wanted}")
        _alike(self._pages(), wanted)

    def _then_pagerduty_status(self, _: str, wanted: str) -> None:
        page = self.world.pagerduty.pages[-1].incident
        eventually(lambda: page.status == wanted, f"PagerDuty says {wanted}")

    def _then_executions(self, _: str, wanted: int) -> None:
        assert self._executions() == wanted

    def _then_wind_downs(self, _: str, wanted: int) -> None:
        assert len(set(self.world.executions("WindDownMachine")) - self.wound_down) == wanted

    def _then_dispatched(self, _: str, wanted: list[str]) -> None:
        assert self.dispatched == wanted

    def _then_counted(self, _: str, wanted: Mapping[str, float]) -> None:
        for metric, count in wanted.items():
            name, _, reason = metric.partition(" ")
            by = {"Reason": reason} if reason else {}
            eventually(partial(self._is_counted, name, by, count), f"{metric}: {count}")

    def _then_swept(self, _: str, wanted: list[Mapping[str, Any]]) -> None:
        found = [
            {key: one.get(key) for key in some}
            for one, some in zip(self.swept, wanted, strict=True)
        ]
        assert found == wanted, self.swept

    def _then_settings_now(self, _: str, wanted: Mapping[str, Any]) -> None:
        found = self.world.settings_of(self.target)
        assert {key: found[key] for key in wanted} == wanted

    def _then_queue(self, _: str, wanted: int) -> None:
        assert self.world.depth(self.target.url) == wanted

    def _then_nothing_changed(self, _: str, wanted: object) -> None:
        del wanted
        assert not self._writes(), self._writes()

    def _then_log(self, _: str, wanted: list[str]) -> None:
        logged = self.world.logs(self.since)
        for text in wanted:
            assert text in logged

    def _executions(self) -> int:
        now = len(self.world.executions("QueueSaturationMachine"))
        return now - self.before["QueueSaturationMachine"]

    def _then_storm(self, _: str, then: Mapping[str, Any]) -> None:
        storms = [one for one in self._incidents() if one.runbook == "storm"]
        assert len(storms) == 1, storms
        [storm] = storms
        texts = "\n".join(entry.text for entry in storm.entries)
        gathered = {e.data["incident"] for e in storm.entries if "incident" in e.data}
        counts = {
            name: self._counted(f"Alarms{name.capitalize()}")
            for name in ("started", "gathered", "ignored")
        }
        # A delivery that is tried again is counted again; not one may be missing.
        assert sum(counts.values()) >= then["alarms"], counts
        alarms = {str(one.trigger.get("alarm", {}).get("name", "")) for one in self._incidents()}
        alarms |= {str(e.data.get("alarm", "")) for one in self._incidents() for e in one.entries}
        assert len(alarms - {""}) == then["alarms"], sorted(alarms)
        # Two alarms may start a run each before one has the lock; the other then joins it.
        working = [one for one in self._incidents() if not messages.told_elsewhere(one)]
        assert len(working) <= then["targets"] + 1, [one.id for one in working]
        about = [page for page in self._pages() if page.startswith("many targets")]
        assert len(about) == 1, self._pages()
        assert len(self._pages()) <= then["pages"], self._pages()
        assert 0 < len(gathered) <= counts["gathered"], texts
        assert storm.outcome == then["outcome"]

    def _writes(self) -> list[str]:
        """Return what our functions have changed of production."""
        return [
            f"{call.action} by {call.role}"
            for call in list(self.world.aws.calls)[self.calls_before :]
            if call.action in _PRODUCTION_WRITES and call.role.startswith(STACK)
        ]

    def _denied(self) -> list[Any]:
        return [
            call
            for call in list(self.world.aws.calls)[self.calls_before :]
            if call.role.startswith(STACK) and call.status == 403
        ]

    # After every story

    def _leaves_nothing(self) -> None:
        then = self.story.then
        for target, before in zip(self.targets, self.settings_before, strict=True):
            wanted = {**before, **then.get("settings", {})}
            found = self.world.settings_of(target)
            assert found == wanted, f"settings of {target.queue}: {found}, not {wanted}"
        eventually(lambda: not self._opened(), f"what is open: {self._opened()}", seconds=10)
        for incident in self._incidents():
            assert incident.status == "closed", incident.id
            self._told_the_end(incident)
        for output, flag in (
            ("FailedReports", "failed_reports"),
            ("FailedEvents", "failed_events"),
        ):
            if not then.get(flag):
                depth = self.world.depth(self._dead_letters(output))
                assert depth == 0, f"{output} holds {depth}"
        denied = {call.action for call in self._denied()}
        assert denied == set(then.get("denied", [])), self._denied()
        self._no_secret_is_out()

    def _opened(self) -> list[tuple[Any, Any]]:
        """Return open incidents, held locks, leased settings and reports that are owed."""
        return [(item["pk"], item["sk"]) for item in self.world.items() if "open" in item]

    def _dead_letters(self, logical: str) -> str:
        found = self.world.client("cloudformation").describe_stack_resource(
            StackName=STACK, LogicalResourceId=logical
        )
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def _told_the_end(self, incident: Incident) -> None:
        if messages.told_elsewhere(incident) or self.story.then.get("untold"):
            return
        state = self.world.store.report_state(incident.id)
        shown = [m for m in self.world.slack.messages if m.ts == state["slack"]["ts"]]
        assert shown, f"Slack has no message on {incident.id}"
        if incident.parent:
            assert messages.emoji(incident) in said(shown[0])
            return
        thread = "\n".join(said(message) for message in self.world.slack.thread(shown[0].ts))
        # Slack shows a time of day in the reader's own zone, and of a refusal one sentence.
        sentence = messages.clean(incident.summary).partition(". ")[0]
        end = _MOMENT.split(sentence[:80])[0]
        assert end in thread, f"Slack does not say {end!r}:\n{thread}"

    def _no_secret_is_out(self) -> None:
        world = self.world
        tokens = [
            str(i["token"]) for i in world.items("INCIDENT#") if str(i["sk"]).startswith("ASK#")
        ]
        secrets = [*tokens, world.slack.bot_token, world.slack.signing_secret]
        slack = "\n".join(
            request.body.decode("utf-8", "replace") for request in world.slack.requests
        )
        pagerduty = "\n".join(
            request.body.decode("utf-8", "replace") for request in world.pagerduty.requests
        )
        logs = world.logs(self.since)
        for secret in secrets:
            for name, text in (("Slack", slack), ("PagerDuty", pagerduty), ("the log", logs)):
                assert secret not in text, f"a secret is in {name}"
        assert world.pagerduty.routing_key not in slack + logs


def said(message: Message) -> str:
    """Return a message's text as a person reads it: blocks and notification."""
    parts = [message.text, *(str(text["text"]) for text in texts_of(message.blocks))]
    for block in message.blocks:
        text = block.get("text")
        if isinstance(text, dict) and text.get("type") == "plain_text":
            parts.append(str(text["text"]))
    return html.unescape(_USER.sub(r"\1", "\n".join(parts))).replace("*", "")


def _depth(queue: str) -> Json:
    return {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateNumberOfMessagesVisible",
        "Dimensions": [{"Name": "QueueName", "Value": queue}],
        "Statistic": "Maximum",
        "Period": 1,
    }


def _older(item: Mapping[str, Any], seconds: float) -> Json:
    """Return an item as if it had been written so much earlier."""
    older = dict(item)
    for name in _DATES:
        if older.get(name):
            older[name] = iso(parse(str(older[name])) - timedelta(seconds=seconds))
    if "window_ends" in str(older.get("trigger")):
        trigger = json.loads(str(older["trigger"]))
        ends = parse(trigger["window_ends"]) - timedelta(seconds=seconds)
        older["trigger"] = json.dumps(trigger | {"window_ends": iso(ends)})
    for name in ("due", "until"):
        if older.get(name):
            older[name] = int(older[name]) - int(seconds)
    return older


def _channel(service: Any, given: Any) -> None:
    if given == "up":
        service.up()
    elif given == "down":
        service.down()
    else:
        for mode, value in given.items():
            getattr(service, mode)(value)


def _alike(found: list[str], wanted: list[str]) -> None:
    """Compare texts one by one: each wanted one is part of the found one."""
    assert len(found) == len(wanted), found
    for one, part in zip(found, wanted, strict=True):
        assert part in one, f"{part!r} is not in {one!r}"
