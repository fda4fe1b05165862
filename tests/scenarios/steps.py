"""When: the steps of a story, one after the other."""

import html
import json
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from local.playground import STACK
from oncall.times import iso, parse
from tests.scenarios.alarms import Alarms
from tests.scenarios.checks import Checks
from tests.scenarios.letters import LetterSteps
from tests.scenarios.scene import RUN
from tests.scenarios.targets import Queue
from tests.scenarios.world import WIND_DOWN, eventually
from tests.widget import Widget

_DATES = ("started_at", "updated_at", "closed_at", "lease_until", "expires_at", "deadline")

type Json = dict[str, Any]


class Steps(Alarms, LetterSteps):
    """What happens in a story."""

    def do(self, step: str, value: Any) -> None:
        """Take one step."""
        getattr(self, f"_do_{step}")(value)

    def _do_start(self, given: Any) -> None:
        name = RUN
        if isinstance(given, dict):
            name = given.pop("as", RUN)
        answer = self.world.client("stepfunctions").start_execution(
            stateMachineArn=self.world.machine(self.scene.story.runbook),
            input=json.dumps(given),
        )
        self.scene.runs[name] = answer["executionArn"]
        self.scene.started.add(answer["executionArn"])

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
        eventually(lambda: self.scene.alarm_state()["StateValue"] == wanted, f"alarm {wanted}")

    def _until_state(self, run: str, wanted: str) -> None:
        execution = self.scene.runs[run]
        eventually(lambda: self.scene.last_state(execution) == wanted, f"state {wanted}")

    def _until_phase(self, run: str, wanted: str) -> None:
        eventually(
            lambda: (found := self.scene.incident(run)) is not None and found.phase == wanted,
            f"phase {wanted}",
        )

    def _until_changed(self, run: str, lever: str) -> None:
        eventually(lambda: (lever, "applied") in self.scene.changes(run), f"{lever} is changed")

    def _until_button(self, run: str, wanted: str) -> None:
        eventually(lambda: wanted in self.scene.buttons(run), f"button {wanted}")

    def _until_slack(self, run: str, wanted: str) -> None:
        eventually(lambda: wanted in self.scene.thread_text(run), f"Slack says {wanted!r}")

    def _until_paged(self, _: str, wanted: str) -> None:
        eventually(lambda: any(wanted in page for page in self.scene.pages()), f"page {wanted!r}")

    def _until_told(self, _: str, __: object) -> None:
        self.scene.all_ended()
        Checks(self.scene).all_told()

    def _until_all_ended(self, _: str, __: object) -> None:
        self.scene.all_ended()

    def _until_ended(self, run: str, _: object) -> None:
        self.scene.ended(self.scene.runs[run])

    def _do_click(self, given: Mapping[str, Any]) -> None:
        slack = self.world.slack
        header = self.scene.header(given.get("run", RUN))
        seen = len(slack.ephemerals)
        button = given["button"]
        if not given.get("stale"):
            eventually(
                lambda: button in self.scene.buttons(given.get("run", RUN)), f"button {button}"
            )
        click = slack.click(
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
            self.scene.answers.append(f"{click.status} {click.body}")
            return
        assert click.acknowledged, click
        if not given.get("again"):
            eventually(lambda: len(slack.ephemerals) > seen, "the person is answered")
            self.scene.answers.append(html.unescape(slack.ephemerals[-1].text))

    def _do_decide(self, given: Mapping[str, Any]) -> None:
        given = dict(given)
        name = given.pop("run", RUN)
        everyone = list(self.scene.runs) if name == "all" else [name]
        for run in everyone:
            event = {"incident": self.scene.incident_id(run), **given}
            event.setdefault("by", "arn:aws:iam::123456789012:user/carol")
            answer = self._invoke("DecisionFunction", event)
            if isinstance(answer, str):
                self.scene.answers.append(Widget(answer).text)
            else:
                self.scene.answers.append(answer.get("text") or answer.get("errorMessage", ""))

    def _invoke(self, output: str, event: Mapping[str, Any]) -> Any:
        answer = self.world.client("lambda").invoke(
            FunctionName=self.world.outputs.get(output, output), Payload=json.dumps(event)
        )
        return json.loads(answer["Payload"].read())

    def _do_dashboard(self, given: Mapping[str, Any]) -> None:
        """Look, then do with a button what CloudWatch does: invoke with payload and form fields."""
        context = {"forms": {"all": {}}, "theme": "light"}
        widget = Widget(self._invoke("ShowIncidentsFunction", {"widgetContext": context}))
        for text in given.get("shows", []):
            assert text in widget.text, f"{text!r} is not in {widget.text!r}"
        if "click" not in given:
            return
        runbook, label = self.scene.story.runbook, str(given["click"]).capitalize()
        typed = {"by": given.get("by", "")}
        if "type" in given:
            [field] = [name for name in widget.fields if name.startswith(f"{runbook}.")]
            typed[field] = given["type"]
            action = widget.action(label, runbook=runbook)
        else:
            action = widget.action(label, incident=self.scene.incident_id(given.get("run", RUN)))
        context["forms"] = {"all": typed}
        said = Widget(self._invoke(action.endpoint, {**action.payload, "widgetContext": context}))
        self.scene.answers.append(said.text)
        if "as" in given:
            name = said.text.partition("Started ")[2].partition(". ")[0]
            arn = self.world.machine(runbook).replace(":stateMachine:", ":execution:")
            self.scene.runs[given["as"]] = f"{arn}:{name}"
            self.scene.started.add(f"{arn}:{name}")

    def _do_scorecard(self, wanted: list[str]) -> None:
        written = self._invoke("ScorecardFunction", {})["incident"]

        def told() -> bool:
            state = self.world.store.report_state(written)
            thread = state.get("slack", {}).get("ts", "")
            said = "\n".join(m.text for m in self.world.slack.messages if m.thread_ts == thread)
            return all(text.lower() in said.lower() for text in wanted)

        eventually(told, f"Slack tells of the week: {wanted}")

    def _do_someone_sets(self, given: Mapping[str, Any]) -> None:
        for setting, value in given.items():
            self.target.change(setting, value)

    def _do_metrics(self, given: Any) -> None:
        self.scene.show(given)

    def _do_queue(self, given: Any) -> None:
        queues = [target for target in self.scene.targets if isinstance(target, Queue)]
        if isinstance(given, dict):
            queues[0].drain()
            queues[0].send(given["holds"])
        elif given == "drains":
            for queue in queues:
                queue.drain()
            self.scene.show("calm")
        else:
            queues[0].send(self.scene.story.given["messages"])
            self.scene.show("capped")

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
        self.world.kill_switch(value, self.scene.story.runbook)

    def _do_calendar(self, value: str) -> None:
        self.world.calendar(str(self.world.settings["Calendar"]), closed=value == "closed")

    def _do_account_limit(self, value: int) -> None:
        self.world.aws.set_account_concurrency(value)

    def _do_provisioning_fails(self, reason: str) -> None:
        self.world.aws.fail_next_provisioning(reason)

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

    def _do_blocked(self, regions: list[str]) -> None:
        """Let nothing through to these Regions, nor to the control planes that all share."""
        faults = self.world.aws.faults
        for region in regions:
            faults.block(region=region)
        faults.block_global_services()

    def _do_dns_change_seconds(self, seconds: float) -> None:
        self.world.aws.set_dns_change_seconds(seconds)

    def _do_alarm_events(self, value: str) -> None:
        self.world.alarm_events(enabled=value == "work")

    def _do_untag(self, given: Mapping[str, str]) -> None:
        if "once_read_by" in given:
            self.target.untag_once_read(given.get("what", ""), given["once_read_by"])
        else:
            self.target.untag(given["what"])

    def _do_faults_end(self, _: object) -> None:
        self.world.aws.faults.clear()

    def _do_slack(self, given: Any) -> None:
        _channel(self.world.slack, given)

    def _do_pagerduty(self, given: Any) -> None:
        _channel(self.world.pagerduty, given)

    def _do_stop_execution(self, name: str) -> None:
        self.world.client("stepfunctions").stop_execution(
            executionArn=self.scene.runs[name], error="Stopped", cause="by somebody in the console"
        )

    def _do_time_passes(self, seconds: float) -> None:
        """Make the story's incidents, their locks, leases and claims older by so much."""
        table = (
            self.world.aws.session()
            .resource("dynamodb")
            .Table(self.world.outputs["IncidentsTable"])
        )
        mine = {incident.id for incident in self.scene.incidents()}
        if self.scene.earlier:
            mine.add(self.scene.earlier)
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
        known = set(self.world.executions(WIND_DOWN))
        self.scene.swept.append(self.scene.invoke("ReconcileFunction", given or {}))
        for name in set(self.world.executions(WIND_DOWN)) - known:
            self.scene.ended(name)

    def _do_readiness(self, _: object) -> None:
        answer = self.scene.invoke("ReadinessFunction", {})
        assert "checked" in answer, answer

        def told(service: str) -> bool:
            found, known = self.world.store.readiness(service)
            return found == known

        for service in answer["checked"]:
            eventually(partial(told, service), f"the readiness of {service} is told")

    def _do_check(self, given: Mapping[str, Any]) -> None:
        Checks(self.scene).check(given)


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
