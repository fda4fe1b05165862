import itertools
import json
import os
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.aws import AwsAccount, EmbeddedAws
from local.playground import ROOT

SAM = ROOT / "tools/sam-cli/.venv/bin"

_accounts = itertools.count(100_000_000_001)


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws() as aws:
        yield aws


@pytest.fixture
def aws(embedded_aws: EmbeddedAws) -> AwsAccount:
    """An account of the test's own, so that tests cannot meet."""
    return embedded_aws.for_account(str(next(_accounts)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package: one CodeUri, so what is built for one function is that of all."""
    folder = tmp_path_factory.mktemp("sam")
    subprocess.run(  # noqa: S603 -- our own SAM CLI
        [SAM / "sam", "build", "OpenIncidentFunction", "--build-dir", folder],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{SAM}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"},
        check=True,
        capture_output=True,
    )
    return folder / "OpenIncidentFunction"


type Deploy = Callable[..., dict[str, str]]


@pytest.fixture
def stack(aws: AwsAccount, tmp_path: Path) -> Deploy:
    """Deploy resources (YAML) with `app.py` as their code; return physical ids by logical id."""

    def deploy(resources: str, code: str = "", name: str = "stack") -> dict[str, str]:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "app.py").write_text(textwrap.dedent(code))
        template = {
            "Transform": "AWS::Serverless-2016-10-31",
            "Globals": {
                "Function": {
                    "Runtime": "python3.13",
                    "CodeUri": "code",
                    "Timeout": 10,
                    "Handler": "app.handler",
                }
            },
            "Resources": yaml_parse(textwrap.dedent(resources)),
        }
        (tmp_path / "template.yaml").write_text(json.dumps(template))
        aws.deploy(name, tmp_path / "template.yaml")
        found = aws.client("cloudformation").describe_stack_resources(StackName=name)
        return {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in found["StackResources"]
        }

    return deploy


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Ask again until the answer is true; return it."""

    def ask(question: Callable[[], Any], seconds: float = 10) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s; the last answer was {answer!r}")
            time.sleep(0.02)
        return answer

    return ask
