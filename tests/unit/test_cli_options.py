import json
from typing import Any

import pytest
from click.testing import CliRunner

from cli import app, connection, options
from cli.app import main
from oncall import contract as contracts

VARIABLES = (
    "RUNBOOK_STACK",
    "RUNBOOK_OUTPUT",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[connection.Deployed]:
    """What `runbook list` was pointed at, in this order; it finds nothing."""
    seen: list[connection.Deployed] = []

    def open_incidents(deployed: connection.Deployed) -> list[Any]:
        seen.append(deployed)
        return []

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection.Deployed, "open_incidents", open_incidents)
    return seen


def pointed(deployed: connection.Deployed) -> tuple[str | None, ...]:
    return (deployed.stack, deployed.profile, deployed.region, deployed.endpoint_url)


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ("list --open", {}, ("runbooks", None, None, None)),
        (
            "list --open --stack s --profile p --region r --endpoint-url http://u",
            {},
            ("s", "p", "r", "http://u"),
        ),
        (
            "--stack s --profile p --region r --endpoint-url http://u list --open",
            {},
            ("s", "p", "r", "http://u"),
        ),
        ("--region before list --open --region after", {}, ("runbooks", None, "after", None)),
        (
            "list --open",
            {"RUNBOOK_STACK": "s", "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://u"},
            ("s", None, "r", "http://u"),
        ),
        ("list --open", {"AWS_DEFAULT_REGION": "r"}, ("runbooks", None, "r", None)),
        (
            "list --open",
            {"AWS_REGION": "r", "AWS_DEFAULT_REGION": "d"},
            ("runbooks", None, "r", None),
        ),
        ("--region given list --open", {"AWS_REGION": "r"}, ("runbooks", None, "given", None)),
        ("list --open --region given", {"AWS_REGION": "r"}, ("runbooks", None, "given", None)),
    ],
)
def test_where_to_look_is_said_once_before_or_after_the_command(
    words: str,
    environment: dict[str, str],
    expected: tuple[str | None, ...],
    seen: list[connection.Deployed],
) -> None:
    ended = CliRunner(env=environment).invoke(main, words.split())

    assert ended.exit_code == 0, ended.stderr
    assert [pointed(one) for one in seen] == [expected]


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("words", ["--output json list --open", "list --open --output json"])
def test_the_output_is_said_before_or_after_as_well(words: str) -> None:
    assert json.loads(CliRunner().invoke(main, words.split()).stdout) == []


@pytest.mark.usefixtures("seen")
def test_the_output_may_be_set_for_good() -> None:
    ended = CliRunner(env={"RUNBOOK_OUTPUT": "json"}).invoke(main, ["list", "--open"])

    assert json.loads(ended.stdout) == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:4566", "http://", "http://a b"])
def test_an_address_that_is_none_is_bad_input(address: str) -> None:
    ended = CliRunner().invoke(main, ["list", "--endpoint-url", address])

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"--endpoint-url: {address!r} is no address." in ended.stderr


def test_every_command_takes_the_output() -> None:
    without = {"completion"}
    for name, command in main.commands.items():
        names = {param.name for param in command.params}
        assert ("output" in names) == (name not in without), name


def test_what_stands_before_play_counts_there(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Any] = []

    def play_story(name: str, **how: Any) -> int:
        played.append((name, how["output"], how["endpoint_url"]))
        return 0

    monkeypatch.setattr("cli.play.play_story", play_story)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    CliRunner().invoke(main, ["play", "dlq-replay"])
    for given in ("--output json --endpoint-url http://e", "--output table"):
        CliRunner().invoke(main, [*given.split(), "play", "dlq-replay"])

    assert played == [
        ("dlq-replay", "text", None),
        ("dlq-replay", "json", "http://e"),
        ("dlq-replay", "text", None),
    ]


def test_the_modes_are_those_of_the_contracts() -> None:
    assert app.MODES == contracts.MODES
    assert set(options.OUTPUTS) == {"table", "json", "text"}


def test_without_a_command_it_says_what_there_is() -> None:
    ended = CliRunner().invoke(main, [])

    assert ended.exit_code == 2
    assert "Exit codes of run and watch" in ended.output
