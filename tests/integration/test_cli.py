import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import follow
from cli.app import main
from cli.connection import Deployed
from local import stories
from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings
from local.playground import FAST, IAM_APPROVER, ROOT, Playground
from local.stories import STORIES
from local.watch import Watch
from oncall import contract as contracts
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.times import iso, utc_now

ACCOUNT = "555555555555"
TARGET = f"arn:aws:sqs:us-east-1:{ACCOUNT}:orders"


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(CloudWatch(Settings(1)),)) as aws:
        yield aws


@pytest.fixture(scope="module")
def stacked(embedded_aws: EmbeddedAws) -> AwsAccount:
    account = embedded_aws.for_account(ACCOUNT)
    account.deploy("runbooks", ROOT / "template.yaml", FAST)
    account.client("sqs").create_queue(QueueName="orders", tags={"runbook-automation": "enabled"})
    return account


@pytest.fixture
def deployed(stacked: AwsAccount, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stacked.account)
    return Deployed("runbooks")


@pytest.fixture
def opened(deployed: Deployed, request: pytest.FixtureRequest) -> Incident:
    """An incident that is open, of the test's own on a target of its own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    machine = deployed.machine("queue-saturation").replace("stateMachine", "execution")
    incident = Incident(
        id=name,
        runbook="queue-saturation",
        title="Drain a saturated queue",
        target=f"{TARGET}-{name}",
        target_name="orders",
        mode="auto",
        trigger={"kind": "alarm", "by": "", "reason": "", "alarm": {"name": "orders-backlog"}},
        execution=f"{machine}:{name}",
        fence=0,
        happened="orders: 400 waiting.",
        doing="Watching.",
        need="Nothing.",
    )
    entry = Entry("opened", "opened", "Alarm orders-backlog fired.")
    return deployed.store.open(incident, entry, timedelta(hours=1))


@pytest.fixture
def waiting(
    stacked: AwsAccount, eventually: Callable[..., Any], request: pytest.FixtureRequest
) -> tuple[str, str]:
    """An execution that waits for an answer, and its task token."""
    sqs, sfn = stacked.client("sqs"), stacked.client("stepfunctions")
    name = request.node.name.partition("[")[0][-40:] + request.node.callspec.params["command"]
    queue = sqs.create_queue(QueueName=f"tokens-{name}")["QueueUrl"]
    role = stacked.client("iam").create_role(
        RoleName=f"waiting-{name}", AssumeRolePolicyDocument='{"Statement": []}'
    )
    ask = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": queue, "MessageBody.$": "$$.Task.Token"},
        "End": True,
    }
    machine = sfn.create_state_machine(
        name=f"waiting-{name}",
        definition=json.dumps({"StartAt": "Ask", "States": {"Ask": ask}}),
        roleArn=role["Role"]["Arn"],
    )
    run = sfn.start_execution(stateMachineArn=machine["stateMachineArn"])
    (message,) = eventually(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))
    return run["executionArn"], message["Body"]


def runbook(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def run_of(incident: Incident) -> Run:
    return Run(incident.id, incident.runbook, incident.target, incident.mode, incident.fence)


def close(deployed: Deployed, incident: Incident, outcome: str) -> None:
    entry = Entry("closed", "closed", f"It is {outcome}.")
    deployed.store.close(run_of(incident), outcome, f"orders: {outcome}.", entry)


def play(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(  # noqa: S603 -- our own command
        [ROOT / "runbook", "play", *words, "--headless", "--output", "json"],
        capture_output=True,
        check=False,
        env=ours | environment,
        text=True,
        timeout=180,
    )


def depths(aws: AwsAccount) -> dict[str, tuple[int, int]]:
    """Messages waiting and in flight, by queue."""
    sqs = aws.client("sqs")
    found = {}
    for name in ("orders", "orders-dlq"):
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        has = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        waiting = int(has["ApproximateNumberOfMessages"])
        found[name] = (waiting, int(has["ApproximateNumberOfMessagesNotVisible"]))
    return found


def sent_to(aws: AwsAccount, queue: str) -> int:
    """Count every message that was ever sent to a queue, as CloudWatch knows."""
    now = datetime.now(UTC)
    points = aws.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="NumberOfMessagesSent",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    return round(sum(point["Sum"] for point in points))


def runs_of(aws: AwsAccount, machine: str) -> int:
    sfn = aws.client("stepfunctions")
    (arn,) = (
        found["stateMachineArn"]
        for found in sfn.list_state_machines()["stateMachines"]
        if found["name"] == machine
    )
    return len(sfn.list_executions(stateMachineArn=arn)["executions"])


def orders_written(aws: AwsAccount) -> set[str]:
    pages = aws.client("dynamodb").get_paginator("scan").paginate(TableName="orders")
    return {item["order_id"]["S"] for page in pages for item in page["Items"]}


def test_play_saturates_a_queue_and_ends_resolved_with_nothing_left() -> None:
    ended = play("queue-saturation")

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert list(told) == [
        "incident",
        "runbook",
        "target",
        "mode",
        "outcome",
        "timeline",
        "changes",
        "effect",
        "slack",
        "pagerduty",
    ]
    assert told["outcome"] == "resolved"
    assert told["target"].endswith(":orders")
    kinds = [entry["kind"] for entry in told["timeline"]]
    assert kinds[0] == "opened"
    assert kinds[-1] == "closed"
    assert kinds.index("planned") < kinds.index("changed") < kinds.index("put_back")
    (change,) = told["changes"]
    assert change["before"] == change["now"] == 2
    assert change["after"] > 2
    assert change["state"] == "put_back"
    assert "MaximumConcurrency=2" in change["undo"]
    header, *replies = told["slack"]
    assert header["text"].startswith("🟢")
    assert header["edited"] > told["timeline"][-1]["at"]
    assert {reply["thread_ts"] for reply in replies} == {header["ts"]}
    assert any(told["timeline"][-1]["text"] in reply["text"] for reply in replies)
    assert [(event["kind"], event["woke"]) for event in told["pagerduty"]] == [("change", False)]
    for state in ("Inspect queue", "Plan relief", "Close incident"):
        assert state in ended.stderr


def test_play_throttles_a_function_and_ends_resolved_with_its_reservation_as_it_was() -> None:
    ended = play("lambda-throttles")

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["outcome"] == "resolved"
    assert told["target"].endswith(":function:orders-api")
    (change,) = told["changes"]
    assert change["before"] == change["now"] == 2
    assert 2 < change["after"] <= 10
    assert change["state"] == "put_back"
    assert told["slack"][0]["text"].startswith("🟢")
    assert [event["woke"] for event in told["pagerduty"]] == [False]
    assert "throttled a second, 2 at once, 2 reserved, alarm ALARM" in ended.stderr


def test_play_replays_dead_letters_and_ends_resolved_with_every_order_written_once(
    embedded_aws: EmbeddedAws, eventually: Callable[..., Any]
) -> None:
    aws = embedded_aws.for_account("888888888888")
    address = {"AWS_ACCESS_KEY_ID": aws.account, "AWS_REGION": aws.region}

    ended = play("dlq-replay", "--endpoint-url", aws.endpoint_url, **address)

    # Code 0: every order that was taken is written, by id, and nothing is left.
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["outcome"], told["mode"], told["changes"]) == ("resolved", "auto", [])
    assert told["target"].endswith(":orders-dlq")
    said = re.match(r"(\d+) letters replayed; all of them are in the archive", told["effect"])
    assert said
    replayed = int(said[1])
    assert replayed > 10  # a canary and a round
    kinds = [entry["kind"] for entry in told["timeline"]]
    assert {"asked", "changed", "put_back", "paged"}.isdisjoint(kinds)
    balance = f"All {replayed} archived letters are accounted for, by id: {replayed} replayed"
    assert any(entry["text"].startswith(balance) for entry in told["timeline"])
    assert told["slack"][0]["text"].startswith("🟢 orders-dlq is worked off and stays so")
    assert not [event for event in told["pagerduty"] if event["woke"]]
    for seen in ("downstream failing", "Replay a canary", "Replay a round", "alarm ALARM"):
        assert seen in ended.stderr
    assert depths(aws) == {"orders": (0, 0), "orders-dlq": (0, 0)}
    # What was sent and not replayed are the orders themselves; a second's count is published when
    # it is over, and that of the last order may still be to come.
    sent = len(orders_written(aws)) + replayed
    assert eventually(lambda: (count := sent_to(aws, "orders")) >= sent and count) == sent
    assert runs_of(aws, "runbooks-dlq-replay") >= 1
    assert runs_of(aws, "runbooks-queue-saturation") == 0


def test_play_of_dead_letters_whose_consumer_still_fails_replays_nothing_and_wakes() -> None:
    ended = play("dlq-replay-too-early")

    assert ended.returncode == 4, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["outcome"], told["changes"], told["effect"]) == ("handed_over", [], "")
    header = told["slack"][0]["text"]
    assert header.startswith("🔴 orders-dlq")
    assert "of orders-worker's work fails now" in header
    assert [event["kind"] for event in told["pagerduty"] if event["woke"]] == ["trigger"]
    assert "Replay a canary" not in ended.stderr


def test_play_on_a_running_emulator_with_the_kill_switch_thrown_changes_nothing_and_wakes(
    embedded_aws: EmbeddedAws,
) -> None:
    aws = embedded_aws.for_account("666666666666")
    address = {"AWS_ACCESS_KEY_ID": aws.account, "AWS_REGION": aws.region}

    ended = play("kill-switch", "--endpoint-url", aws.endpoint_url, **address)

    assert ended.returncode == 1, ended.stderr
    told = json.loads(ended.stdout)
    assert told["outcome"] == "refused"
    assert told["changes"] == []
    header = told["slack"][0]["text"]
    assert header.startswith("🟠 orders needs you: I may not act.")
    assert "kill-switch/all" in header
    assert "ApproximateNumberOfMessagesVisible" in header
    assert [event["kind"] for event in told["pagerduty"] if event["woke"]] == ["trigger"]
    switch = aws.client("ssm").get_parameter(Name="/runbooks/kill-switch/all")
    assert switch["Parameter"]["Value"] == "run"


def test_whatever_a_play_leaves_behind_is_found_in_aws_itself(embedded_aws: EmbeddedAws) -> None:
    with Playground(aws=embedded_aws.for_account("777777777777")) as ground:
        watch = Watch(ground, STORIES["queue-saturation"])
        before = watch.settings()
        assert watch.left(before, None) == ()
        lambda_, pilot = ground.account.client("lambda"), ground.pilot
        lambda_.update_event_source_mapping(
            UUID=pilot.worker_mapping_id, ScalingConfig={"MaximumConcurrency": 9}, Enabled=False
        )
        lambda_.put_function_concurrency(
            FunctionName=pilot.worker_function, ReservedConcurrentExecutions=7
        )
        lambda_.put_function_concurrency(
            FunctionName=pilot.api_function, ReservedConcurrentExecutions=8
        )
        ground.account.client("ssm").put_parameter(
            Name=pilot.back_pressure_parameter, Value="on", Overwrite=True
        )
        incident = Incident("one", "r", "t", "arn:q", "q", "auto", {}, "arn:e", fence=0)
        opened = ground.store.open(incident, Entry("o", "opened", "x"), timedelta(hours=1))
        change = Change("mapping-concurrency", "arn:m", "the cap", 2, 9, "", "", "2099-01-01")
        ground.store.lease_change(run_of(opened), change, Entry("i", "intended", "x"))

        left = watch.left(before, ground.store.load("one"))

    said = "\n".join(left)
    for part in (
        "is 9, was 2",
        "mapping-enabled of",
        "is 7, was",
        "is 8, was",
        "back-pressure of",
        "the cap is recorded as intended",
        "a lock is held",
        "a setting is leased",
        "an incident is open",
    ):
        assert part in said


def test_orders_that_are_not_written_and_letters_that_lie_dead_are_found(
    embedded_aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "_LAST_ORDERS_SECONDS", 10)
    with Playground(aws=embedded_aws.for_account("999999999999")) as ground:
        load = ground.load()
        load.spike(3)
        assert stories.missing_orders(ground, load.taken) == []
        ground.account.client("sqs").send_message(
            QueueUrl=ground.pilot.dead_letter_queue_url, MessageBody="x"
        )
        monkeypatch.setattr(stories, "_LAST_ORDERS_SECONDS", 0)

        said = stories.missing_orders(ground, [*load.taken, "lost"])

    assert said == ["1 of 4 orders are not written", "1 orders lie dead"]


def test_list_shows_the_latest_first(deployed: Deployed, opened: Incident) -> None:
    close(deployed, opened, "handed_over")
    later = replace(opened, id="later", target=f"{TARGET}-later")
    deployed.store.open(later, Entry("opened", "opened", "x"), timedelta(hours=1))
    card = replace(opened, id="scorecard-2026-W48", runbook="scorecard", target="scorecard#1")
    deployed.store.open(card, Entry("opened", "opened", "x"), timedelta(hours=1))

    table = runbook("list")
    rows = json.loads(runbook("list", "--output", "json").stdout)

    assert table.exit_code == 0
    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[1][1:5] == ["later", "queue-saturation", "orders", "investigating"]
    assert lines[2][1:6] == [opened.id, "queue-saturation", "orders", "handed", "over"]
    assert [one["incident"] for one in rows[:2]] == ["later", opened.id]
    assert [one["open"] for one in rows[:2]] == [True, False]
    assert card.id not in table.stdout
    assert len(json.loads(runbook("list", "--output", "json", "--limit", "1").stdout)) == 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("resolved", 0), ("ineffective", 1), ("rejected", 3), ("handed_over", 4), ("aborted", 5)],
)
def test_watch_follows_until_the_incident_closes(
    deployed: Deployed,
    opened: Incident,
    outcome: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.05)
    closing = threading.Timer(0.3, close, (deployed, opened, outcome))
    closing.start()

    ended = runbook("watch", opened.id)

    closing.join()
    assert ended.exit_code == code
    lines = ended.stdout.splitlines()
    assert [line[10:19].strip() for line in lines[:2]] == ["opened", "closed"]
    assert lines[-1].endswith(f"orders: {outcome}.")


def test_watch_prints_one_document_for_machines(deployed: Deployed, opened: Incident) -> None:
    close(deployed, opened, "resolved")

    ended = runbook("watch", opened.id, "--output", "json")

    assert json.loads(ended.stdout)["outcome"] == "resolved"
    assert "Alarm orders-backlog fired." in ended.stderr


def test_ctrl_c_stops_the_watching_and_not_the_run(deployed: Deployed, opened: Incident) -> None:
    with subprocess.Popen(  # noqa: S603 -- our own command
        [ROOT / "runbook", "watch", opened.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert "Alarm orders-backlog fired." in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=20)

    assert watching.returncode == 130
    assert f"the run goes on. Watch it again: runbook watch {opened.id}" in said
    after = deployed.store.load(opened.id)
    assert (after.status, after.stop) == ("open", {})


@pytest.mark.parametrize(("command", "kind"), [("abort", "abort"), ("takeover", "take_over")])
def test_a_run_is_stopped_by_an_approver(
    deployed: Deployed, opened: Incident, command: str, kind: str
) -> None:
    ended = runbook(command, opened.id, "--by", IAM_APPROVER, "--reason", "a deployment runs")

    assert ended.exit_code == 0, ended.stderr
    stop = deployed.store.load(opened.id).stop
    assert stop["kind"] == kind
    assert stop["reason"] == "a deployment runs"


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_a_question_is_answered_and_the_waiting_run_is_told(
    deployed: Deployed,
    opened: Incident,
    waiting: tuple[str, str],
    command: str,
    eventually: Callable[..., Any],
) -> None:
    state, status = {"approve": ("approved", "SUCCEEDED"), "reject": ("rejected", "FAILED")}[
        command
    ]
    execution, token = waiting
    ask = Ask("ask-1", "hash", token, "2099-01-01T00:00:00.000Z", people=1, level=1)
    deployed.store.put_ask(run_of(opened), ask, Entry("ask-1", "asked", "May I?"))

    ended = runbook(command, opened.id, "--by", IAM_APPROVER)

    assert ended.exit_code == 0, ended.stderr
    answered = deployed.store.ask(opened.id, "ask-1")
    assert answered is not None
    assert answered.state == state
    sfn = deployed.session.client("stepfunctions")

    def told() -> bool:
        return sfn.describe_execution(executionArn=execution)["status"] == status

    eventually(told)


def asking(deployed: Deployed, opened: Incident, **how: Any) -> Ask:
    """Let an incident ask what is to be answered within an hour."""
    deadline = iso(utc_now() + timedelta(hours=1))
    ask = replace(Ask("ask-1", "hash", "none", deadline, people=1, level=1), **how)
    plan = {"changes": [{"name": "the cap", "before": 2, "after": 5, "why": "to drain"}]}
    entry = Entry(ask.id, "asked", "May I?")
    deployed.store.put_ask(run_of(opened), ask, entry, plan=plan)
    return ask


@pytest.mark.parametrize("command", ["approve"])
def test_of_two_approvals_the_second_must_be_proven(
    deployed: Deployed, opened: Incident, waiting: tuple[str, str], command: str
) -> None:
    _, token = waiting
    ask = asking(deployed, opened, token=token, people=2)

    first = runbook(command, opened.id, "--by", IAM_APPROVER)
    same = runbook(command, opened.id, "--by", IAM_APPROVER, "--output", "json")

    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("Noted; 1 more must approve by ")
    assert "the cap: 2 → 5, to drain" in first.stdout
    assert same.exit_code == 1
    told = json.loads(same.stdout)
    assert (told["recorded"], told["ask"], told["about"]) == (False, ask.id, [])
    assert told["text"] == "You have approved already; 2 different people must."
    assert "Nothing was decided." in same.stderr
    after = deployed.store.ask(opened.id, ask.id)
    assert after is not None
    assert (after.state, [one["by"] for one in after.approvals]) == ("waiting", [IAM_APPROVER])


@pytest.mark.parametrize("command", ["approve"])
def test_what_is_decided_already_is_said_with_who_and_when(
    deployed: Deployed, opened: Incident, waiting: tuple[str, str], command: str
) -> None:
    _, token = waiting
    asking(deployed, opened, token=token)
    assert runbook("reject", opened.id, "--by", IAM_APPROVER).exit_code == 0

    ended = runbook(command, opened.id, "--ask", "ask-1", "--by", IAM_APPROVER)

    assert ended.exit_code == 1
    assert ended.stdout.startswith(f"Already rejected by {IAM_APPROVER} at ")


def test_a_plan_that_was_not_read_is_not_approved(deployed: Deployed, opened: Incident) -> None:
    asking(deployed, opened)

    ended = runbook("approve", opened.id, "--ask", "ask-0", "--by", IAM_APPROVER)

    assert ended.exit_code == 1
    assert ended.stdout == f"Incident {opened.id} asks nothing now.\n"
    after = deployed.store.ask(opened.id, "ask-1")
    assert after is not None
    assert after.state == "waiting"


def test_an_approval_after_the_deadline_is_too_late(deployed: Deployed, opened: Incident) -> None:
    asking(deployed, opened, deadline=iso(utc_now() - timedelta(minutes=1)))

    ended = runbook("approve", opened.id, "--by", IAM_APPROVER)

    assert ended.exit_code == 1
    assert ended.stdout.startswith("Too late: this was to be answered by ")


def test_a_second_stop_is_told_of_the_first(deployed: Deployed, opened: Incident) -> None:
    first = runbook("takeover", opened.id, "--by", IAM_APPROVER)
    second = runbook("abort", opened.id, "--by", IAM_APPROVER)

    assert first.stdout.splitlines() == [
        "It is yours: the run stops before its next change and leaves everything as it is.",
        "  • Nothing is changed now.",
    ]
    assert second.exit_code == 1
    assert second.stdout.startswith(f"Already taken over by {IAM_APPROVER} (by invoke) at ")
    assert deployed.store.load(opened.id).stop["kind"] == "take_over"


@pytest.mark.usefixtures("deployed")
def test_which_runbooks_are_deployed_is_told() -> None:
    rows = json.loads(runbook("list", "--runbooks", "--output", "json").stdout)
    lines = runbook("list", "--runbooks", "--output", "text").stdout.splitlines()

    assert {row["runbook"]: row["deployed"] for row in rows} == dict.fromkeys(
        contracts.names(), True
    )
    assert lines[0] == (
        "dlq-replay\tyes\task\tdlq\trunbook run dlq-replay dlq=orders-dlq\tReplay dead letters"
    )


def test_the_latest_are_found_whatever_else_the_table_holds(
    deployed: Deployed, opened: Incident
) -> None:
    ids = [f"{opened.id}-{number}" for number in range(4)]
    for number, name in enumerate(ids):
        made = replace(opened, id=name, target=f"{TARGET}-{name}", target_name="x" * 2000)
        made = replace(made, runbook="dlq-replay" if number % 2 else "lambda-throttles")
        deployed.store.open(made, Entry("opened", "opened", "x"), timedelta(hours=1))
    time.sleep(0.01)

    def latest(*words: str) -> list[str]:
        found = json.loads(runbook("list", "--output", "json", *words).stdout)
        return [one["incident"] for one in found if one["incident"] in ids]

    assert [one.id for one in deployed.store.latest(4)] == ids[::-1]
    assert latest("--runbook", "dlq-replay") == [ids[3], ids[1]]
    for name in ids:
        close(deployed, deployed.store.load(name), "resolved")
    assert latest("--runbook", "lambda-throttles", "--limit", "1") == [ids[2]]
    assert latest("--open") == []


def test_somebody_who_may_not_decide_is_told_so(deployed: Deployed, opened: Incident) -> None:
    ended = runbook("abort", opened.id, "--by", "arn:aws:iam::123456789012:user/mallory")

    assert ended.exit_code == 1
    assert "mallory" in ended.stderr
    assert deployed.store.load(opened.id).stop == {}


def test_run_follows_the_machine_to_its_end(deployed: Deployed) -> None:
    ended = runbook(
        "run", "queue-saturation", "queue=orders", "--mode", "observe", "--reason", "a drill"
    )

    assert ended.exit_code == 0, ended.stderr
    (mine,) = [one for one in deployed.store.latest(50) if one.trigger["reason"] == "a drill"]
    assert mine.outcome == "observed"
    assert mine.trigger["by"] == deployed.caller()
    assert ended.stdout.splitlines()[-1].startswith("Observed: orders")


def test_run_without_waiting_names_the_incident(
    deployed: Deployed, eventually: Callable[..., Any]
) -> None:
    ended = runbook(
        "run", "queue-saturation", "queue=orders", "--mode=observe", "--no-wait", "--output=json"
    )

    started = json.loads(ended.stdout)
    assert started["execution"].endswith(started["incident"])
    found = eventually(lambda: deployed.store.find(started["incident"]))
    assert found.target_name == "orders"


@pytest.mark.usefixtures("deployed")
def test_report_of_an_open_incident_is_made_from_its_record(opened: Incident) -> None:
    ended = runbook("report", opened.id)

    assert ended.stdout.startswith("# ")
    assert "Alarm orders-backlog fired." in ended.stdout
    assert json.loads(runbook("report", opened.id, "--output", "json").stdout)["id"] == opened.id


def test_report_of_a_closed_incident_is_the_one_that_was_written(
    deployed: Deployed, opened: Incident, stacked: AwsAccount, eventually: Callable[..., Any]
) -> None:
    close(deployed, opened, "resolved")
    bucket = deployed.outputs["ReportBucket"]
    s3 = stacked.client("s3")
    key = f"incidents/{opened.started_at[:4]}/{opened.started_at[5:7]}/{opened.id}/report.md"
    eventually(lambda: "Contents" in s3.list_objects_v2(Bucket=bucket, Prefix=key))
    time.sleep(0.2)
    s3.put_object(Bucket=bucket, Key=key, Body=b"# As it was written")

    assert runbook("report", opened.id).stdout == "# As it was written"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["watch", "nope"], "There is no incident 'nope'"),
        (["report", "nope"], "There is no incident 'nope'"),
        (["abort", "nope", "--by", IAM_APPROVER], "There is no incident 'nope'"),
        (["list", "--stack", "nope"], "--stack: there is no stack 'nope' in us-east-1."),
        (["run", "nope", "queue=orders"], "there is no runbook 'nope'"),
        (["run", "queue-saturation"], "queue: it is missing (the saturated queue"),
        (["run", "queue-saturation", "queue=nope"], "queue: there is no queue 'nope'"),
        (["list", "--profile", "nope"], "Give for example --profile prod"),
        (["list", "--runbook", "nope"], "there is no runbook 'nope'"),
        (["explain", "nope"], "There is no incident 'nope'"),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_bad_input_is_a_sentence_and_exit_code_2(words: list[str], said: str) -> None:
    ended = runbook(*words)

    assert ended.exit_code == 2
    assert said in ended.stderr
    assert ended.stdout == ""


@pytest.mark.usefixtures("stacked")
def test_an_emulator_needs_no_credentials(
    embedded_aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    address = ("--endpoint-url", embedded_aws.endpoint_url)

    ended = runbook("list", *address)

    # Account 123456789012, which has no stack: it was reached, and asked in the default region.
    assert "there is no stack 'runbooks' in us-east-1" in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "cli"],
        [ROOT / "runbook"],
        [Path(sys.executable).parent / "runbook"],
        ["./link-to-runbook"],
    ],
)
def test_it_runs_from_any_directory(command: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "link-to-runbook").symlink_to(ROOT / "runbook")
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    ended = subprocess.run(  # noqa: S603 -- our own command
        [*command, "explain", "--output", "text"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=ours,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == (
        "dlq-replay\tReplay dead letters\trunbook run dlq-replay dlq=orders-dlq"
    )


def test_help_tells_the_exit_codes_and_does_not_wait_for_the_sdk() -> None:
    script = "import sys; from cli.__main__ import main; main()"
    imports = [sys.executable, "-X", "importtime", "-c", script, "--help"]

    ended = subprocess.run(imports, capture_output=True, check=True, cwd=ROOT, text=True)  # noqa: S603 -- our own command

    for code in ("0    verified", "3    rejected, or nobody answered", "130  Ctrl-C"):
        assert code in ended.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint({"boto3", "botocore", "rich", "jsonschema", "yaml", "oncall.errors"})
