"""The steps of a story that are about alarms and their events."""

import time
from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

from tests.scenarios.scene import RUN, Part
from tests.scenarios.world import eventually

type Json = dict[str, Any]


class Alarms(Part):
    """Alarms on the story's targets, and the runs that they start."""

    def _do_alarm(self, given: Mapping[str, Any]) -> None:
        """Create an alarm on the target that CloudWatch finds breaching."""
        target = self.target
        name = f"{target.name.removesuffix('.fifo')}-{given.get('name', target.ALARM)}"
        self._put_alarm(name, given.get("dimension", target.name), given)
        if given.get("from", "OK") == "OK":
            self._set_ok(f"{name}-part" if given.get("kind") == "composite" else name)
        self._expect_run(given.get("starts", RUN))

    def _put_alarm(self, name: str, dimension: str, given: Mapping[str, Any]) -> None:
        wanted = {"runbook": self.scene.story.runbook, **given.get("tags", {})}
        tags = [{"Key": key, "Value": value} for key, value in wanted.items() if value is not None]
        cloudwatch = self.world.client("cloudwatch")
        part, kind = name, given.get("kind", "metric")
        if kind == "composite":
            part = f"{name}-part"
        cloudwatch.put_metric_alarm(
            AlarmName=part,
            AlarmDescription=given.get("description", ""),
            **(self._sum(dimension) if kind == "math" else self.target.alarm(dimension)),
            EvaluationPeriods=1,
            Threshold=self.target.THRESHOLD,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="notBreaching",
            Tags=tags if part == name else [],
        )
        if part not in self.scene.alarms:
            self.scene.alarms.append(part)
        if kind == "composite":
            cloudwatch.put_composite_alarm(AlarmName=name, AlarmRule=f'ALARM("{part}")', Tags=tags)
            self.scene.alarms.append(name)

    def _sum(self, dimension: str) -> Json:
        """Return a metric-math alarm's metrics, whose dimensions name two resources."""
        stats = []
        for name, one in (("one", dimension), ("other", self.target.beside)):
            metric = self.target.alarm(one)
            statistic, period = metric.pop("Statistic"), metric.pop("Period")
            stat = {"Metric": metric, "Stat": statistic, "Period": period}
            stats.append({"Id": name, "MetricStat": stat, "ReturnData": False})
        return {"Metrics": [{"Id": "all", "Expression": "one + other"}, *stats]}

    def _set_ok(self, name: str) -> None:
        self.world.client("cloudwatch").set_alarm_state(
            AlarmName=name, StateValue="OK", StateReason="the story begins"
        )

    def _expect_run(self, name: str | None) -> None:
        """Wait for the run that an alarm starts, or see that it starts none."""
        if name == "nothing":
            return
        if name is None:
            eventually(lambda: self.scene.alarm_state()["StateValue"] == "ALARM", "the alarm fires")
            time.sleep(0.5)
            assert not self.scene.new_runs(), "a run was started"
            return
        new = eventually(self.scene.new_runs, "the alarm starts a run")
        self.scene.runs[name] = new[0]
        self.scene.started.add(new[0])

    def _do_event(self, given: Mapping[str, Any]) -> None:
        alarm = self.scene.alarm_state()
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
            done = self.scene.invoke("DispatchFunction", event)
            self.scene.dispatched.append(done["reason"] or done["result"])
        if "starts" in given:
            self._expect_run(given["starts"])

    def _do_storm(self, given: Mapping[str, Any]) -> None:
        """Create alarms that are OK, and let the metrics of all go bad at the same moment."""
        prefix = f"{self.target.name}-storm"
        self.world.alarm_events(enabled=False)
        self.scene.show("calm")
        for number in range(given["alarms"]):
            target = self.scene.targets[number % len(self.scene.targets)]
            self._put_alarm(f"{prefix}-{number}", target.name, given)
        eventually(lambda: self._in_state("OK", prefix) == given["alarms"], "alarms OK", every=0.5)
        # Else each of 200 events would start a worker of its own on this one machine.
        functions, dispatch = self.world.client("lambda"), self.world.outputs["DispatchFunction"]
        functions.put_function_concurrency(FunctionName=dispatch, ReservedConcurrentExecutions=4)
        self.world.async_pause(0.5)
        self.world.alarm_events(enabled=True)
        self.scene.show("capped")
        eventually(
            lambda: self._dispatched() >= given["alarms"],
            "every alarm is counted",
            seconds=120,
            every=2,
        )
        self.world.async_pause(30)
        functions.delete_function_concurrency(FunctionName=dispatch)
        for number, arn in enumerate(self.scene.new_runs()):
            self.scene.runs[f"run-{number}"] = arn
            self.scene.started.add(arn)

    def _in_state(self, state: str, prefix: str) -> int:
        pages = self.world.client("cloudwatch").get_paginator("describe_alarms")
        found = pages.paginate(AlarmNamePrefix=prefix, StateValue=state)
        return sum(len(page["MetricAlarms"]) for page in found)

    def _dispatched(self) -> float:
        counted = ("AlarmsStarted", "AlarmsGathered", "AlarmsIgnored")
        return sum(self.scene.counted(name) for name in counted)
