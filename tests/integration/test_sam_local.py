"""`sam local` itself, in a container engine: what `make local` and `make start-lambda` do.

`make sam-local` runs these in an engine of their own; `make test` leaves them out and says so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from local.aws import EmbeddedAws
from local.playground import REGION, ROOT, Playground

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = os.environ.get("SAM_LOCAL_IMAGE", "")
WHY_NOT = os.environ.get("SAM_LOCAL_SKIP", "`make sam-local` runs it in an engine of its own")
pytestmark = pytest.mark.skipif(not IMAGE, reason=f"no container engine: {WHY_NOT}")

SAM = [sys.executable, "-m", "local.sam"]
OWN_IMAGE = ["--", "--skip-pull-image", "--invoke-image", IMAGE]
OPENED = json.loads((ROOT / "events/open_incident.json").read_text("utf-8"))["name"]


@pytest.fixture(scope="module")
def ground() -> Iterator[Playground]:
    with EmbeddedAws(region=REGION) as aws, Playground(aws=aws) as ground:
        yield ground


@pytest.fixture(scope="module")
def shell(ground: Playground) -> dict[str, str]:
    """A shell with somebody's credentials for AWS, which must go nowhere."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": ground.account.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "mine",
        "AWS_SESSION_TOKEN": "mine",
    }


def invoke(shell: dict[str, str], function: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*SAM, "invoke", function, *more, *OWN_IMAGE]
    return subprocess.run(  # noqa: S603 -- our own command
        command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_step_writes_to_the_embedded_aws(ground: Playground, shell: dict[str, str]) -> None:
    ran = invoke(shell, "open_incident")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["run"]["incident"] == OPENED
    assert ground.store.load(OPENED).status == "open"


def test_a_step_reads_from_it(shell: dict[str, str]) -> None:
    ran = invoke(shell, "InspectQueueFunction", "--event", "events/inspect_queue.json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["facts"]["mapping_concurrency"] == 2


def test_a_step_that_fails_exits_with_1(shell: dict[str, str]) -> None:
    ran = invoke(shell, "set_mapping_concurrency")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["errorType"] == "WorldMoved"
    assert "set_mapping_concurrency has failed. WorldMoved: " in ran.stderr


def test_an_image_that_is_not_there_is_no_success(shell: dict[str, str]) -> None:
    command = [
        *SAM,
        "invoke",
        "inspect_queue",
        "--",
        "--skip-pull-image",
        "--invoke-image",
        "no/x:1",
    ]
    ran = subprocess.run(  # noqa: S603 -- our own command
        command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode != 0


def test_functions_are_served(shell: dict[str, str]) -> None:
    port = "3100"
    serving = subprocess.Popen(  # noqa: S603 -- our own command
        [*SAM, "start-lambda", *OWN_IMAGE, "--port", port], cwd=ROOT, env=shell,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert serving.stderr is not None
    for line in serving.stderr:
        if re.search(r"Running on http://127\.0\.0\.1", line):
            break
    client = boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{port}",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )
    event = (ROOT / "events/inspect_queue.json").read_bytes()
    try:
        answers = [
            json.loads(
                client.invoke(FunctionName="InspectQueueFunction", Payload=event)["Payload"].read()
            )
            for _ in range(2)
        ]
    finally:
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=60)
    assert [answer["facts"]["queue"] for answer in answers] == ["orders", "orders"]
    assert serving.returncode == 0, said
    assert containers() == []


def containers() -> list[str]:
    """Return SAM's containers that are left; it labels them."""
    asked = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=sam.cli.container.type"],  # noqa: S607 -- the engine's
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return asked.stdout.split()
