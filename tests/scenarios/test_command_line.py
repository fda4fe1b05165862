"""The command line on real runs: what each ending tells a person and a script."""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from local.playground import IAM_APPROVER, REGION, ROOT
from oncall.incident import Incident
from tests.scenarios.story import picture
from tests.scenarios.targets.queue import Queue
from tests.scenarios.world import World, Worlds, eventually

RUNBOOK = "queue-saturation"
# Both are deployed for stories anyway.
PATIENT: dict[str, str] = {}
HASTY = {"AnswerWithinSeconds": "5"}


@dataclass
class Ended:
    """What a command has left."""

    code: int
    out: str
    err: str


class Shell:
    """A person at a prompt, with credentials for the world's account."""

    def __init__(self, world: World) -> None:
        self._env = {**os.environ, "AWS_ACCESS_KEY_ID": world.aws.account, "AWS_REGION": REGION}

    def __call__(self, *words: str) -> Ended:
        """Run a command to its end."""
        with self.started(*words) as process:
            return self.ended(process)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command."""
        with subprocess.Popen(  # noqa: S603 -- our own command
            [ROOT / "runbook", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> Ended:
        """Wait for a command's end."""
        out, err = process.communicate(timeout=90)
        return Ended(process.returncode, out, err)


@pytest.fixture
def world(worlds: Worlds, request: pytest.FixtureRequest) -> Iterator[World]:
    world = worlds.get(getattr(request, "param", PATIENT))
    world.waits = 1  # a command takes a second: no run is to be over before
    yield world
    world.kill_switch("run")
    world.aws.faults.clear()
    world.waits = 0.05


@pytest.fixture
def shell(world: World) -> Shell:
    return Shell(world)


@pytest.fixture
def queue(world: World) -> Iterator[Queue]:
    """A queue with 200 messages whose consumer is at its cap of 2."""
    name = f"cli-{uuid.uuid4().hex[:6]}"
    target = Queue.make(world, name, Queue.GIVEN)
    target.seed(picture(RUNBOOK, "capped"))
    before = target.settings()
    yield target
    assert target.settings() == before
    target.rest()
    target.forget()


def record(world: World, incident: str) -> Incident:
    return world.store.load(incident)


def incident_of(process: subprocess.Popen[str]) -> str:
    """Return the incident that `run` names as soon as it is open."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "Ctrl-C stops watching, not the run." in line, line
    return line.removeprefix("Incident ").partition(";")[0]


def asked(world: World, incident: str) -> str:
    """Return the question that an incident waits with."""
    eventually(lambda: record(world, incident).phase == "waiting", "it asks")
    return str(record(world, incident).ask["id"])


def run(queue: Queue, *more: str) -> tuple[str, ...]:
    return ("run", RUNBOOK, f"queue={queue.name}", *more)


def test_observed_is_0_and_nothing_is_changed(world: World, shell: Shell, queue: Queue) -> None:
    ended = shell(*run(queue, "--mode", "observe", "--output", "json"))

    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["outcome"], told["changes"]) == ("observed", [])
    assert told["trigger"]["by"].endswith(":root")
    assert "  planned    " in ended.err
    assert f"Incident {told['id']}; " in ended.err
    assert record(world, told["id"]).outcome == "observed"


def test_approved_and_helped_is_0(world: World, shell: Shell, queue: Queue) -> None:
    with shell.started(*run(queue, "--mode", "ask", "--output", "text")) as running:
        incident = incident_of(running)
        ask = asked(world, incident)
        (first, *_) = json.loads(shell("list", "--open", "--output", "json").out)
        explained = json.loads(shell("explain", incident, "--output", "json").out)
        approved = shell("approve", incident, "--ask", ask, "--by", IAM_APPROVER)
        eventually(lambda: record(world, incident).changes, "it changes")
        explained_later = shell("explain", incident)
        queue.drain()
        queue.seed(picture(RUNBOOK, "calm"))
        ended = shell.ended(running)

    assert (first["incident"], first["needs_you_now"]) == (incident, True)
    assert explained["waits_for"]["id"] == ask
    assert explained["why"] == "consumer_capped"
    assert {"to": "Say yes to this plan", "type": f"runbook approve {incident} --ask {ask}"} in (
        explained["commands"]
    )
    assert approved.code == 0, approved.err
    assert approved.out.splitlines()[0] == "Approved."
    assert "maximum concurrency" in approved.out
    assert f"You decided as {IAM_APPROVER}." in approved.err
    assert "undo             aws lambda update-event-source-mapping" in explained_later.out
    assert f"runbook abort {incident}" in explained_later.out
    assert ended.code == 0, ended.err
    assert f"Answer by {record(world, incident).ask['deadline'][11:16]} UTC: " in ended.err
    kinds = [line.split("\t")[1] for line in ended.out.splitlines()]
    assert [kinds[0], kinds[-2], kinds[-1]] == ["opened", "closed", "outcome"]
    assert {"asked", "decided", "changed", "put_back"} <= set(kinds)
    assert ended.out.splitlines()[-1].endswith("\toutcome\tresolved")


def test_rejected_is_3_and_ctrl_c_before_that_stops_the_watching_alone(
    world: World, shell: Shell, queue: Queue
) -> None:
    with shell.started(*run(queue, "--mode", "ask")) as running:
        incident = incident_of(running)
        asked(world, incident)
        running.send_signal(signal.SIGINT)
        left = shell.ended(running)
    assert left.code == 130
    assert f"the run goes on. Watch it again: runbook watch {incident}" in left.err
    assert record(world, incident).status == "open"

    with shell.started("watch", incident) as watching:
        rejected = shell("reject", incident, "--by", IAM_APPROVER, "--reason", "a sale runs")
        ended = shell.ended(watching)
    again = shell("reject", incident, "--by", IAM_APPROVER)

    assert rejected.code == 0, rejected.err
    assert rejected.out.splitlines()[0] == "Rejected."
    assert ended.code == 3
    assert ended.out.splitlines()[-1].startswith("Rejected: ")
    assert "a sale runs" in ended.out
    assert f"The whole story: runbook explain {incident}" in ended.err
    assert again.code == 1
    assert f"Too late: incident {incident} closed (rejected)" in again.out


@pytest.mark.parametrize("world", [HASTY], indirect=True)
def test_no_answer_in_time_is_3_and_a_human_is_called(
    world: World, shell: Shell, queue: Queue
) -> None:
    ended = shell(*run(queue, "--mode", "ask", "--output", "json"))

    assert ended.code == 3, ended.err
    told = json.loads(ended.out)
    assert (told["outcome"], told["changes"]) == ("handed_over", [])
    assert "Nobody answered in time" in told["summary"]
    assert f"You: Take care of {queue.name} yourself." in ended.err
    assert "paged" in [entry.kind for entry in record(world, told["id"]).entries]


def test_taken_over_is_4_and_says_how_to_undo_what_stays(
    world: World, shell: Shell, queue: Queue
) -> None:
    world.waits = 4  # between two looks: it is not to give up before it is told
    with shell.started(*run(queue)) as running:
        incident = incident_of(running)
        eventually(lambda: record(world, incident).phase == "watching", "it has changed")
        taken = shell("takeover", incident, "--by", IAM_APPROVER)
        ended = shell.ended(running)
    (change,) = record(world, incident).changes
    queue.change("cap", change.before)

    assert taken.code == 0, taken.err
    assert f"{change.name} stays at 5, was 2. Undo: {change.undo}" in taken.out
    assert ended.code == 4, ended.err
    assert change.state == "handed_over"
    assert f"Undo: {change.undo}" in ended.err
    (row,) = [
        one
        for one in json.loads(shell("list", "--output", "json").out)
        if one["incident"] == incident
    ]
    assert (row["state"], row["open"], row["needs_you_now"]) == ("handed_over", False, False)


def test_aborted_is_5_and_says_what_is_put_back(world: World, shell: Shell, queue: Queue) -> None:
    world.waits = 4  # between two looks: it is not to give up before it is told
    with shell.started(*run(queue)) as running:
        incident = incident_of(running)
        eventually(lambda: record(world, incident).phase == "watching", "it has changed")
        stopped = shell("abort", incident, "--by", IAM_APPROVER, "--output", "json")
        ended = shell.ended(running)

    assert stopped.code == 0, stopped.err
    told = json.loads(stopped.out)
    (change,) = record(world, incident).changes
    assert told["about"] == [f"{change.name} goes back: 5 → 2."]
    assert (told["decision"], told["recorded"], told["by"]) == ("abort", True, IAM_APPROVER)
    assert ended.code == 5, ended.err
    assert change.state == "put_back"
    assert ended.out.splitlines()[-1].startswith("Aborted: ")


def test_refused_is_1_and_says_by_what(world: World, shell: Shell, queue: Queue) -> None:
    world.kill_switch("stop")

    ended = shell(*run(queue, "--output", "json"))

    assert ended.code == 1
    told = json.loads(ended.out)
    assert told["outcome"] == "refused"
    assert "kill-switch/all" in told["summary"]


def test_refused_for_another_run_points_at_that_one(
    world: World, shell: Shell, queue: Queue
) -> None:
    with shell.started(*run(queue, "--mode", "ask")) as running:
        incident = incident_of(running)
        asked(world, incident)

        second = shell(*run(queue))

        shell("abort", incident, "--by", IAM_APPROVER)
        assert shell.ended(running).code == 5
    assert second.code == 1
    assert f"The run that works on it: runbook watch {incident}" in second.err


def test_handed_over_for_want_of_an_action_is_4(world: World, shell: Shell, queue: Queue) -> None:
    queue.seed(picture(RUNBOOK, "erroring"))

    ended = shell(*run(queue))

    assert ended.code == 4, ended.err
    assert ended.out.splitlines()[-1].startswith("Handed over: ")
    incident = ended.err.removeprefix("Incident ").partition(";")[0]
    assert record(world, incident).changes == ()


def test_broken_is_1(world: World, shell: Shell, queue: Queue) -> None:
    world.aws.faults.add(
        "cloudwatch", "GetMetricData", "error", code="InternalServerError", status=500, times=1000
    )

    ended = shell(*run(queue, "--output", "text"))

    assert ended.code == 1, ended.err
    assert ended.out.splitlines()[-1].endswith("\toutcome\tfailed")


def test_a_machine_that_takes_no_such_target_is_2(shell: Shell) -> None:
    ended = shell("run", RUNBOOK, "queue=nope", "--output", "json")

    assert ended.code == 2
    told: dict[str, Any] = json.loads(ended.out)
    assert (told["error"], told["exit_code"]) == ("BadInput", 2)
    assert told["message"] in ended.err
    assert "there is no queue 'nope'" in told["message"]
