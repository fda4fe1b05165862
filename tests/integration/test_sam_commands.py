"""Whose AWS and whose credentials a function gets, and how a container reaches this host."""

from __future__ import annotations

import http.server
import os
import threading
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from local.sam import engine
from local.sam.commands import SAM, _environment, commands, main, which_aws
from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.aws import EmbeddedAws

MINE = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_SESSION_TOKEN": "mine",
    "AWS_REGION": "eu-west-1",
}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A shell with somebody's credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in MINE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_function_gets_dummy_credentials(
    embedded_aws: EmbeddedAws, shell: pytest.MonkeyPatch
) -> None:
    shell.setenv("AWS_ENDPOINT_URL", embedded_aws.endpoint_url)
    with which_aws("dummy", None) as aws:
        seen = _environment(aws)
        assert aws.endpoint_url == embedded_aws.endpoint_url
    assert seen["AWS_ACCESS_KEY_ID"] == "123456789012"
    assert not set(MINE.values()) & set(seen.values()) - {"eu-west-1"}
    assert os.environ["AWS_ACCESS_KEY_ID"] == MINE["AWS_ACCESS_KEY_ID"]


def test_a_function_gets_the_shells_credentials_when_told_to(shell: pytest.MonkeyPatch) -> None:
    del shell  # it is set
    with which_aws("mine", None) as aws:
        seen = _environment(aws)
        assert (aws.endpoint_url, aws.region) == ("", "eu-west-1")
    assert {name: seen.get(name) for name in aws.credentials} == {
        name: MINE[name] for name in aws.credentials
    }


@pytest.mark.parametrize(
    ("endpoint_url", "why"),
    [
        ("", r"AWS_ENDPOINT_URL: .*CREDENTIALS=mine"),
        ("https://sqs.eu-west-1.amazonaws.com", "never on AWS"),
    ],
)
def test_dummy_credentials_go_to_an_emulator_alone(
    endpoint_url: str, why: str, shell: pytest.MonkeyPatch
) -> None:
    shell.setenv("AWS_ENDPOINT_URL", endpoint_url)
    ran = CliRunner().invoke(commands, ["invoke", "inspect_queue"])
    assert isinstance(ran.exception, BadInput)
    with pytest.raises(BadInput, match=why):
        raise ran.exception


def test_an_emulator_that_does_not_answer_is_told(
    shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    shell.setattr("sys.argv", ["local.sam", "invoke", "inspect_queue", "--host"])
    with pytest.raises(SystemExit) as ended:
        main("local.sam")
    assert ended.value.code == 1
    assert "Could not connect to the endpoint URL" in capsys.readouterr().err


def test_without_an_engine_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(BadInput, match=r"no container engine answers.*HOST=1\.$"):
        engine.gateway(SAM / "python")


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello" * 100_000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def emulator() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_bridge_of_this_host_leads_to_its_loopback(emulator: str) -> None:
    with engine.reachable(emulator, "127.0.0.2") as there:
        assert there.startswith("http://127.0.0.2:")
        with urlopen(there) as answer:  # noqa: S310 -- the line above
            assert answer.read() == b"hello" * 100_000
    with pytest.raises(OSError, match="refused"):
        urlopen(there)  # noqa: S310 -- as above


def test_another_machines_bridge_is_left_to_the_engine(emulator: str) -> None:
    port = emulator.rpartition(":")[2]
    for gateway in ("192.0.2.1", ""):
        with engine.reachable(emulator, gateway) as there:
            assert there == f"http://host.docker.internal:{port}"
    with engine.reachable("http://emulator.test:4566", "127.0.0.2") as there:
        assert there == "http://emulator.test:4566"
