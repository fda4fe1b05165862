import pytest
from click.testing import CliRunner

from cli import connection
from cli.app import main
from oncall import service
from oncall.incident import Incident
from tests.unit.closed import an_incident

WAITING = an_incident(
    id="waits", status="open", phase="waiting", ask={"id": "a", "state": "waiting"}
)
ACTING = an_incident(id="works", status="open", phase="acting")
CLOSED = an_incident(id="was")


def completed(words: str, incomplete: str = "", shell: str = "bash") -> list[str]:
    """Return what click's own protocol offers after some words."""
    line = " ".join(["runbook", *words.split(), incomplete]).rstrip()
    environment = {
        "_RUNBOOK_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(1 + len(words.split())),
    }
    if shell == "fish":
        environment |= {
            "COMP_WORDS": " ".join(["runbook", *words.split()]),
            "COMP_CWORD": incomplete,
        }
    ended = CliRunner(env=environment).invoke(main, prog_name="runbook")
    assert ended.exit_code == 0, ended.exception
    assert ended.stderr == ""
    return [line.split(",", 1)[-1].split("\n")[0] for line in ended.stdout.splitlines() if line]


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[connection.Deployed]:
    """The stack can be reached: three incidents, and who was asked for them."""
    asked: list[connection.Deployed] = []

    class Store:
        def latest(self, _limit: int) -> list[Incident]:
            return [WAITING, ACTING, CLOSED]

    def open_incidents(deployed: connection.Deployed) -> list[Incident]:
        asked.append(deployed)
        return [WAITING, ACTING]

    monkeypatch.setattr(connection.Deployed, "open_incidents", open_incidents)
    monkeypatch.setattr(connection.Deployed, "store", Store())
    return asked


def test_commands_and_options_are_completed() -> None:
    assert {"run", "report", "reject"} == set(completed("", "r"))
    assert "--endpoint-url" in completed("list", "--e")
    assert completed("run queue-saturation --mode", "o") == ["observe"]


@pytest.mark.parametrize("command", ["run", "explain", "list --runbook"])
def test_runbooks_are_completed(command: str) -> None:
    assert completed(command, "route") == ["route53-failback", "route53-failover"]


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("run queue-saturation", "", ["queue="]),
        ("run queue-saturation", "x", []),
        ("run queue-saturation queue=orders", "", []),
        ("run route53-failover", "n", ["name=", "not_the_deploy="]),
        ("run route53-failover name=shop", "", ["not_the_deploy="]),
        ("explain route53-failover name=shop", "", ["not_the_deploy="]),
        # As bash breaks words at "=":
        ("run queue-saturation queue", "=", []),
        ("run queue-saturation queue =", "or", []),
        ("run route53-failover name = shop", "", ["not_the_deploy="]),
        ("run nope", "", []),
    ],
)
def test_the_keys_of_an_input_are_completed(
    words: str, incomplete: str, offered: list[str]
) -> None:
    assert completed(words, incomplete) == offered


def test_stories_and_services_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "names", lambda: ("shop", "till"))
    assert {"dlq-replay", "dlq-replay-too-early"} <= set(completed("play", "dlq"))
    assert completed("doctor", "s") == ["shop"]


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(
    ("command", "offered"),
    [
        ("approve", ["waits"]),
        ("reject", ["waits"]),
        ("abort", ["waits", "works"]),
        ("takeover", ["waits", "works"]),
        ("watch", ["waits", "works"]),
        ("report", ["waits", "works", "was"]),
    ],
)
def test_the_incidents_that_a_command_fits_are_completed(command: str, offered: list[str]) -> None:
    assert completed(command) == offered
    assert completed(command, "work") == [one for one in offered if one == "works"]


@pytest.mark.usefixtures("reached")
def test_explain_completes_incidents_where_no_runbook_fits() -> None:
    assert completed("explain", "wa") == ["waits", "was"]


def test_incidents_are_looked_for_where_the_line_says(
    reached: list[connection.Deployed],
) -> None:
    completed("--region eu-west-1 watch --stack other")

    (deployed,) = reached
    assert (deployed.stack, deployed.region) == ("other", "eu-west-1")
    assert deployed.config is connection.IMPATIENT


def test_what_cannot_be_reached_is_not_offered_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "there-is-none")
    assert completed("watch --region eu-west-1") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_speaks_the_protocol(shell: str) -> None:
    assert "queue-saturation" in "\n".join(completed("run", "queue", shell))
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert f"_RUNBOOK_COMPLETE={shell}_complete" in script


def test_the_tweaks_of_clicks_scripts_are_in_force() -> None:
    def script(shell: str) -> str:
        return CliRunner().invoke(main, ["completion", shell]).stdout

    assert "[[ $value == *= ]] && compopt -o nospace" in script("bash")
    assert 'compadd "${suffix[@]}" -U -V unsorted' in script("zsh")
