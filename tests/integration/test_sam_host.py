"""Every built function under AWS's Lambda runtime emulator: whole runs, step by step.

Handler, timeout, memory, variables and role are those that the template deploys; the events are
those of events/, with what a step answers put into the next one's event, as a state machine does.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ministack.core.lambda_runtime import execution_credentials

from local.playground import IAM_APPROVER, REGION, ROOT, STACK
from local.sam import steps
from local.sam.host import Host
from tests.scenarios.targets.base import OPT_IN
from tests.scenarios.targets.service import RESOURCES, Service
from tests.scenarios.world import Worlds, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.scenarios.world import World

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the runtime interface emulator runs on Linux alone"
)
TEMPLATE = steps.read(ROOT / "template.yaml")
USED: set[str] = set()
LETTERS = 12


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    with Worlds() as worlds:
        yield worlds


class Lambda:
    """The functions of a world, run on this host."""

    def __init__(self, world: World, code: Path) -> None:
        self.world = world
        self.code = code
        self.run: Mapping[str, Any] = {}
        """What the last `open_incident` answered; steps are given it."""
        self._stack = ExitStack()
        self._hosts: dict[str, Host] = {}
        self._deployed = steps.deployed(world.aws.session(), STACK)

    def close(self) -> None:
        self._stack.close()

    def event(self, verb: str, **changed: Any) -> dict[str, Any]:
        """Return the function's event in this world's account, within the run, and changed."""
        text = (ROOT / f"events/{verb}.json").read_text("utf-8")
        event = json.loads(text.replace("123456789012", self.world.aws.account))
        run = {"run": self.run} if "run" in event else {}
        return {**event, **run, **changed}

    def answer(self, verb: str, event: Any) -> Any:
        """Invoke a function and return its answer, an error's too."""
        USED.add(verb)
        if verb not in self._hosts:
            found = steps.configuration(
                self.world.aws.session(), self._deployed[steps.find(TEMPLATE, verb).id]
            )
            variables = steps.variables(found, self.world.aws.endpoint_url)
            credentials = execution_credentials(dict(found))
            host = Host(self.code, found, variables, credentials, REGION)
            self._hosts[verb] = self._stack.enter_context(host)
        answer = self._hosts[verb].invoke(event)
        return json.loads(answer)

    def __call__(self, verb: str, **changed: Any) -> Any:
        """Invoke a function with its event; it has to answer well."""
        answer = self.answer(verb, self.event(verb, **changed))
        assert steps.failure(json.dumps(answer)) == "", verb
        if verb == "open_incident":
            self.run = answer["run"]
        return answer


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> World:
    """The deployed stacks; what would act by itself in them does not."""
    world = worlds.get({"FailoverResources": RESOURCES})
    world.alarm_events(enabled=False)
    world.rules(enabled=False, scheduled=False)
    worlds.held.add(world.ground.pilot.worker_mapping_id)
    functions = world.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        if mapping["FunctionArn"].endswith(":runbooks-report"):
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    return world


@pytest.fixture(scope="module")
def host(world: World, built: Path) -> Iterator[Lambda]:
    host = Lambda(world, built)
    yield host
    host.close()


def cap(world: World) -> int:
    mapping = world.client("lambda").get_event_source_mapping(
        UUID=world.ground.pilot.worker_mapping_id
    )
    return int(mapping["ScalingConfig"]["MaximumConcurrency"])


def reserved(world: World) -> int | None:
    found = world.client("lambda").get_function_concurrency(
        FunctionName=world.ground.pilot.api_function
    )
    concurrency: int | None = found.get("ReservedConcurrentExecutions")
    return concurrency


def test_a_queue_is_relieved_step_by_step(host: Lambda, world: World) -> None:
    incident = "backlog"
    host("open_incident", name=incident)
    assert world.store.load(incident).status == "open"

    facts = host("inspect_queue")["facts"]
    assert (facts["queue"], facts["mapping_concurrency"]) == ("orders", 2)

    seen = {**host.event("plan_queue_relief")["facts"], "mapping_arn": facts["mapping_arn"]}
    plan = host("plan_queue_relief", facts=seen)
    assert plan["levers"] == ["mapping-concurrency"]
    assert world.store.load(incident).plan["hash"] == plan["plan_hash"]

    made = host("set_mapping_concurrency", plan_hash=plan["plan_hash"])
    assert (made["before"], made["after"]) == (2, 4)
    assert cap(world) == 4

    for verb in ("enable_mapping", "set_back_pressure"):
        other = host.answer(verb, host.event(verb, plan_hash=plan["plan_hash"]))
        assert other["errorType"] == "WorldMoved"
        assert "holds no change of" in other["errorMessage"]

    assert host("verify_queue", look={})["look"]["number"] == 1
    assert host("put_back")["put_back"] == ["orders-worker's maximum concurrency on orders"]
    assert cap(world) == 2

    closed = host("close_incident")
    assert (closed["outcome"], closed["good"]) == ("resolved", True)
    assert world.store.load(incident).status == "closed"

    key = {"pk": {"S": f"INCIDENT#{incident}"}, "sk": {"S": "RECORD"}}
    records = host.event("report")["Records"][:1]
    records[0]["dynamodb"]["Keys"] = key
    assert host("report", Records=records) == {"batchItemFailures": []}
    assert any("orders-worker" in message.text for message in world.slack.messages)


def test_a_function_is_relieved_step_by_step(host: Lambda, world: World) -> None:
    function, incident = world.ground.pilot.api_function, "throttles"
    world.client("lambda").put_function_concurrency(
        FunctionName=function, ReservedConcurrentExecutions=2
    )
    host(
        "open_incident",
        name=incident,
        runbook="lambda-throttles",
        input={"function": function, "by": "you"},
    )
    assert host("inspect_function")["facts"]["reserved"] == 2

    plan = host("plan_throttle_relief")
    assert plan["levers"] == ["reserved-concurrency"]
    made = host("set_reserved_concurrency", plan_hash=plan["plan_hash"])
    assert reserved(world) == made["after"] > 2
    other = host.answer(
        "set_provisioned_concurrency",
        host.event("set_provisioned_concurrency", plan_hash=plan["plan_hash"]),
    )
    assert other["errorType"] == "WorldMoved"

    assert host("verify_throttles", look={})["look"]["number"] == 1
    host("put_back")
    assert reserved(world) == 2

    pages = len(world.pagerduty.pages)
    assert host("hand_over")["paged"] is True
    ending = host.event("hand_over")["ending"]
    closed = host("close_incident", ending=ending)
    assert (closed["outcome"], closed["good"]) == ("ineffective", False)
    assert host.answer("report", {"incident": incident}) == {"delivered": incident}
    assert len(world.pagerduty.pages) == pages + 1


def test_dead_letters_are_replayed_step_by_step(host: Lambda, world: World) -> None:
    pilot, incident = world.ground.pilot, "letters"
    sqs = world.client("sqs")
    for number in range(LETTERS):
        body = json.dumps({"order_id": f"sam-{number}", "item": "book", "quantity": 1})
        sqs.send_message(QueueUrl=pilot.queue_url, MessageBody=body)

    def all_dead() -> bool:
        sqs.receive_message(QueueUrl=pilot.queue_url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return world.depth(pilot.dead_letter_queue_url) == LETTERS

    eventually(all_dead, "the letters are received too often")
    host(
        "open_incident",
        name=incident,
        runbook="dlq-replay",
        input={"dlq": pilot.dead_letter_queue_url.rpartition("/")[2], "by": "you"},
    )
    facts = host("inspect_dead_letters")["facts"]
    assert facts["visible"] == LETTERS

    plan = host("plan_replay", facts={**facts, "deployed_at": facts["now"]})
    assert plan["levers"] == ["order"], world.store.load(incident).diagnosis
    tally = host("move_dead_letters", plan_hash=plan["plan_hash"])["tally"]
    assert tally["replayed"] == tally["archived"] == 10
    assert world.depth(pilot.queue_url) == 10
    assert world.depth(pilot.dead_letter_queue_url) == LETTERS - 10

    look = host("verify_replay", look={}, tallies=[tally])["look"]
    assert look["carry"]["total"]["replayed"] == 10
    balance = host("reconcile_replay")
    assert (balance["archived"], balance["replayed"], balance["differences"]) == (10, 10, 0)


def test_a_service_fails_over_step_by_step(world: World, built: Path, tmp_path: Path) -> None:
    given = {**Service.GIVEN["service"], "unattended": True}
    service = Service.make(world, "bookshop", {"service": given})
    code = tmp_path / "package"
    shutil.copytree(built, code, symlinks=True)
    text = yaml.safe_dump(service.file)
    (code / f"runbooks/services/{service.file['name']}.yaml").write_text(text, "utf-8")
    host = Lambda(world, code)
    try:
        asked = {"name": service.record, "by": "you"}
        host("open_incident", name="failing", runbook="route53-failover", input=asked)
        facts = host("inspect_failover")["facts"]
        assert facts["direction"] == "failover"
        plan = host("plan_failover", facts=facts)
        assert plan["levers"] == ["order"], world.store.load("failing").diagnosis
        before = service.settings()
        taken = host("take_failover_step", plan_hash=plan["plan_hash"])
        assert taken["number"] == 1
        assert service.settings() != before
        assert host("verify_failover", look={})["look"]["number"] == 1
    finally:
        host.close()
        service.rest()


def test_a_question_is_asked_and_answered(host: Lambda, world: World) -> None:
    states, incident = world.client("stepfunctions"), "question"
    any_role = states.describe_state_machine(stateMachineArn=world.machine("wind-down"))["roleArn"]
    activity = states.create_activity(name="question")["activityArn"]
    machine = states.create_state_machine(
        name="question",
        roleArn=any_role,
        definition=json.dumps(
            {
                "StartAt": "Ask",
                "States": {"Ask": {"Type": "Task", "Resource": activity, "End": True}},
            }
        ),
    )["stateMachineArn"]
    waiting = states.start_execution(stateMachineArn=machine)["executionArn"]
    token = states.get_activity_task(activityArn=activity)["taskToken"]

    host("open_incident", name=incident, input={"queue": "orders", "mode": "ask"})
    plan = host("plan_queue_relief")
    asked = host("ask", token=token, plan_hash=plan["plan_hash"])
    assert world.store.load(incident).ask["id"] == asked["ask"]

    host("receive_decision", incident=incident, by=IAM_APPROVER)
    ended = eventually(
        lambda: (
            (one := states.describe_execution(executionArn=waiting))["status"] != "RUNNING" and one
        ),
        "the waiting run is told",
    )
    assert ended["status"] == "SUCCEEDED"
    host("close_incident")


def test_alarms_start_runs(host: Lambda, world: World) -> None:
    cloudwatch = world.client("cloudwatch")
    wanted = {"runbook": "queue-saturation", "runbook:mode": "observe"}
    tags = [{"Key": key, "Value": value} for key, value in wanted.items()]
    # The sweep leaves a queue alone that has just been seen to.
    world.client("sqs").create_queue(QueueName="missed", tags=dict(OPT_IN))
    for name, queue in (("first", "orders"), ("missed", "missed")):
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="AWS/SQS", MetricName="ApproximateNumberOfMessagesVisible",
            Dimensions=[{"Name": "QueueName", "Value": queue}], Statistic="Maximum", Period=60,
            EvaluationPeriods=1, Threshold=-1, ComparisonOperator="GreaterThanThreshold",
            TreatMissingData="ignore",
            Tags=tags,
        )  # fmt: skip
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="calm")
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="tried")
    alarm = cloudwatch.describe_alarms(AlarmNames=["first"])["MetricAlarms"][0]
    at = alarm["StateTransitionedTimestamp"]
    event = host.event("dispatch_alarm", resources=[alarm["AlarmArn"]])
    event["detail"] |= {
        "alarmName": "first",
        "state": {"value": "ALARM", "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.000+0000"},
    }

    answer = host("dispatch_alarm", **event)
    assert answer["result"] == "started"
    assert answer["incident"] in "".join(world.executions("queue-saturation"))

    swept = host("reconcile")
    assert swept["started"] == 1
    assert any("missed" in run for run in world.executions("queue-saturation"))


def test_a_function_that_runs_out_of_time_says_so(world: World, built: Path) -> None:
    found = {
        **steps.configuration(world.aws.session(), f"{STACK}-inspect-queue"),
        "Handler": "slow.handler",
        "Timeout": 1,
    }
    (built / "slow.py").write_text("import time\ndef handler(event, context):\n    time.sleep(9)\n")
    with Host(built, found, {}, {}, REGION) as host:
        assert "timed out" in steps.failure(host.invoke({}))


def test_nothing_but_the_package_and_the_runtime_is_seen(world: World, built: Path) -> None:
    found = {
        **steps.configuration(world.aws.session(), f"{STACK}-inspect-queue"),
        "Handler": "greedy.handler",
    }
    (built / "greedy.py").write_text(
        "import ministack\ndef handler(event, context):\n    return 1\n"
    )
    with Host(built, found, {}, {}, REGION) as host:
        assert "No module named 'ministack'" in steps.failure(host.invoke({}))


def test_what_is_not_a_step_runs_too(host: Lambda, world: World) -> None:
    runs = world.executions("queue-saturation")
    assert "Not started. Buttons are off" in host("start_run")
    assert world.executions("queue-saturation") == runs

    host("open_incident", name="shown", input={"queue": "orders", "by": "you"})
    assert "queue-saturation" in host("show_incidents")
    host("close_incident")

    scorecard = world.store.load(host("write_scorecard")["incident"])
    assert (scorecard.runbook, scorecard.status) == ("scorecard", "closed")
    # There are no service files.
    assert host.answer("check_readiness", {}) == {"checked": [], "left": []}


def test_all_functions_have_one_package() -> None:
    assert {step.code for step in TEMPLATE} == {"functions/"}


def test_every_function_was_run() -> None:
    assert {step.verb for step in TEMPLATE} == USED
