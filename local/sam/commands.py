"""`make local`, `make start-lambda`: one function, or all, as they are deployed, from this tree.

SAM passes the shell's AWS credentials on to the function, and these functions change production;
so they get dummy ones unless a flag says otherwise. And SAM exits with 0 whatever the function did;
these commands exit with 1 when it has failed, and 2 when they were not asked rightly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError

from local.emulator import running_aws
from local.sam import engine, steps
from local.sam.host import Host
from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from local.sam.steps import Step

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".aws-sam/build/template.yaml"
VARIABLES = ROOT / ".aws-sam/local.json"
"""What every function's variables are; samconfig.toml's ``local`` names it for SAM."""
SAM = ROOT / "tools/sam-cli/.venv/bin"
_FAILED, _WRONG = 1, 2
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True, slots=True)
class Aws:
    """The AWS that functions talk to, and what they sign with."""

    session: boto3.Session
    endpoint_url: str
    """``""`` for AWS's own."""
    credentials: Mapping[str, str]

    @property
    def region(self) -> str:
        """The session's Region."""
        return str(self.session.region_name)


@contextmanager
def which_aws(credentials: str, region: str | None) -> Iterator[Aws]:
    """Yield an emulator with dummy credentials, or with ``mine`` whatever the shell is set to.

    Raises ``BadInput`` for dummy credentials without an emulator to take them.
    """
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL", "")
    if credentials == "mine":
        # AWS_REGION is Lambda's and the AWS CLI's; boto3 asks for AWS_DEFAULT_REGION alone.
        session = boto3.Session(region_name=region or os.environ.get("AWS_REGION"))
        found = session.get_credentials()
        if found is None or not session.region_name:
            raise BadInput(
                "CREDENTIALS: the shell has no AWS credentials or Region. Set for example "
                "AWS_PROFILE=oncall AWS_REGION=eu-west-1."
            )
        frozen = found.get_frozen_credentials()
        keys = (frozen.access_key, frozen.secret_key, frozen.token)
        own = {name: key for name, key in zip(_CREDENTIALS, keys, strict=True) if key is not None}
        yield Aws(session, endpoint_url, own)
        return
    if not endpoint_url:
        raise BadInput(
            "AWS_ENDPOINT_URL: it is not set, so the function would ask AWS with dummy "
            "credentials. Run `python -m local.aws --playground` and set what it prints, or give "
            "CREDENTIALS=mine to act on AWS."
        )
    if region:
        os.environ["AWS_REGION"] = region
    with running_aws(endpoint_url) as aws:
        session = boto3.Session(region_name=aws.region)
        yield Aws(session, endpoint_url, {name: os.environ[name] for name in _CREDENTIALS[:2]})


@click.group(help=__doc__)
def commands() -> None:
    """Hold the commands together."""


_stack = click.option("--stack", default="runbooks", show_default=True, help="Name of the stack.")
_credentials = click.option(
    "--credentials",
    type=click.Choice(["dummy", "mine"]),
    default="dummy",
    show_default=True,
    help="mine: the shell's own. The function then acts on what they reach.",
)
_region = click.option("--region", help="AWS Region.")
_more = click.argument("more", nargs=-1, type=click.UNPROCESSED)


@commands.command()
@click.argument("function")
@click.option("--event", "-e", help="A file; events/<function>.json unless given.")
@click.option("--host", is_flag=True, help="Without a container, by the emulator alone (Linux).")
@_stack
@_credentials
@_region
@_more
def invoke(
    *,
    function: str,
    event: str | None,
    host: bool,
    stack: str,
    credentials: str,
    region: str | None,
    more: tuple[str, ...],
) -> None:
    """Invoke a function once, by its logical id or verb; MORE goes to `sam local invoke`."""
    step = steps.find(steps.read(ROOT / "template.yaml"), function)
    path = Path(event or ROOT / "events" / f"{step.verb}.json").resolve()
    given = steps.read_event(path)
    with which_aws(credentials, region) as aws:
        if host:
            answer = _on_host(aws, stack, step, given)
        else:
            with _prepared(aws, stack) as sam:
                command = [*sam("invoke"), step.id, "--event", str(path), *more]
                done = subprocess.run(  # noqa: S603 -- SAM, from the lock file
                    command, cwd=ROOT, env=_environment(aws), stdout=subprocess.PIPE, text=True,
                    check=False,
                )  # fmt: skip
            if done.returncode:  # it has said why: the template, the engine or the image
                sys.exit(done.returncode)
            answer = done.stdout
    click.echo(answer.strip())
    why = steps.failure(answer)
    if why:
        click.echo(f"{step.verb} has failed. {why}", err=True)
        sys.exit(_FAILED)


@commands.command("start-lambda")
@_stack
@_credentials
@_region
@_more
def start_lambda(stack: str, credentials: str, region: str | None, more: tuple[str, ...]) -> None:
    """Serve all functions as Lambda does; MORE goes to `sam local start-lambda`."""
    with which_aws(credentials, region) as aws, _prepared(aws, stack) as sam:
        serving = subprocess.Popen(  # noqa: S603 -- SAM, from the lock file
            [*sam("start-lambda"), *more], cwd=ROOT, env=_environment(aws)
        )
        # SAM ends its containers on SIGTERM; on Ctrl-C it gets the terminal's own signal.
        signal.signal(signal.SIGTERM, lambda *_: serving.terminate())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = serving.wait()
    sys.exit(code)


def _built() -> tuple[steps.Step, ...]:
    """Return the functions that `sam build` has built. Raises ``BadInput`` where it has not."""
    if not BUILT.exists():
        raise BadInput("sam local: nothing is built yet. Run `make build`.")
    return steps.read(BUILT)


def _on_host(aws: Aws, stack: str, step: Step, event: object) -> str:
    code = BUILT.parent / steps.find(_built(), step.id).code
    deployed = steps.deployed(aws.session, stack)
    if step.id not in deployed:
        raise BadInput(f"STACK: {stack!r} has no {step.id}. Deploy this tree to it first.")
    found = steps.configuration(aws.session, deployed[step.id])
    variables = steps.variables(found, aws.endpoint_url)
    with Host(code, found, variables, aws.credentials, aws.region) as running:
        return running.invoke(event)


@contextmanager
def _prepared(aws: Aws, stack: str) -> Iterator[Callable[[str], list[str]]]:
    """Make what SAM needs; yields what begins a `sam local` command.

    Raises ``BadInput`` where nothing is built or deployed, or no engine runs.
    """
    _built()
    gateway = engine.gateway(SAM / "python")
    with ExitStack() as open_:
        there = ""
        if aws.endpoint_url:
            there = open_.enter_context(engine.reachable(aws.endpoint_url, gateway))
        found = {
            name: steps.variables(steps.configuration(aws.session, function), there)
            for name, function in steps.deployed(aws.session, stack).items()
        }
        VARIABLES.write_text(json.dumps(found, indent=2), "utf-8")
        settings = ["--config-env", "local", "--region", aws.region]
        yield lambda command: [str(SAM / "sam"), "local", command, *settings]


def _environment(aws: Aws) -> dict[str, str]:
    """Return what SAM sees: of AWS nothing but the credentials that it passes on."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**plain, **nowhere, **aws.credentials, "SAM_CLI_TELEMETRY": "0"}


def main(prog_name: str) -> None:
    """Run; what is a person's to put right is told in a sentence."""
    try:
        commands(prog_name=prog_name)
    except BadInput as error:
        click.echo(str(error), err=True)
        sys.exit(_WRONG)
    except (BotoCoreError, ClientError) as error:
        click.echo(f"The stack cannot be read: {error}", err=True)
        sys.exit(_FAILED)
