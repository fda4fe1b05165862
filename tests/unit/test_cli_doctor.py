import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import doctor as doctors
from cli.app import main
from oncall import service
from oncall.errors import BadInput
from oncall.readiness_seen import Finding


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample as a service of this deployment."""
    load = service.load
    monkeypatch.setattr(service, "names", lambda *_: ("shop",))
    monkeypatch.setattr(service, "load", lambda name: load(name, service.SAMPLE))


def doctor(*words: str) -> Result:
    return CliRunner().invoke(main, ("doctor", *words))


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("ok", "warn"), 0),
        (("ok", "bad"), 1),
        (("ok", "unknown"), 1),
    ],
)
def test_only_what_was_seen_and_works_is_green(verdicts: tuple[str, ...], code: int) -> None:
    found = {"shop": [Finding(str(n), one, None, "x.") for n, one in enumerate(verdicts)]}
    assert doctors.exit_code(found) == code


def test_a_service_that_there_is_no_file_of_is_bad_input() -> None:
    ended = doctor("nowhere")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "name: there is no service 'nowhere'; there are none" in ended.stderr


def test_without_service_files_there_is_nothing_to_check() -> None:
    ended = doctor()
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Copy runbooks/sample/services/shop.yaml to runbooks/services/" in ended.stderr


def test_a_broken_file_is_told_and_needs_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise BadInput(f"runbooks/services/{name}.yaml: owner: it is missing. Give shop-team.")

    monkeypatch.setattr(service, "names", lambda: ("shop",))
    monkeypatch.setattr(service, "load", broken)
    ended = doctor("--output", "text")
    assert ended.exit_code == 1
    assert ended.stdout == (
        "bad      shop  file: runbooks/services/shop.yaml: owner: it is missing. Give shop-team.\n"
    )


@pytest.mark.usefixtures("shop")
def test_without_credentials_nothing_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    ended = doctor("shop", "--output", "json")
    assert ended.exit_code == 2
    assert json.loads(ended.stdout)["exit_code"] == 2
    assert "Unable to locate credentials" in ended.stderr


@pytest.mark.usefixtures("shop")
def test_by_record_a_service_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(one: Any, stack: str, _session: Any) -> tuple[Finding, ...]:
        seen.append(f"{one.name} of {stack}")
        return (Finding("ttl", "ok", 60.0, "Fine."),)

    monkeypatch.setattr(doctors, "_look", look)
    ended = doctor("shop.example.com", "shop")
    assert seen == ["shop of runbooks"]
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[1].split() == ["shop", "ok", "ttl", "60", "Fine."]
    assert ended.stderr == "1 ok.\n"
