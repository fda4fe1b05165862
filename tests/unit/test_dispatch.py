"""What dispatch decides before it talks to AWS."""

from datetime import UTC, datetime

import pytest

from oncall import dispatch
from oncall.alarms import Alarm, Misconfigured
from oncall.dispatch import DispatchSettings, Prepared

MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:queue-saturation"
SETTINGS = DispatchSettings({"queue-saturation": MACHINE, "no-contract": MACHINE}, 10)
LIVE = Alarm(
    name="orders-backlog",
    arn="arn:aws:cloudwatch:eu-west-1:123456789012:alarm:orders-backlog",
    state="ALARM",
    changed_at=datetime(2026, 11, 23, 3, 4, 59, 999_000, tzinfo=UTC),
    reason="900 > 100",
    description="",
    metrics=({"metricStat": {"metric": {"dimensions": {"QueueName": "orders"}}}, "accountId": ""},),
    silenced="",
)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_MACHINES", f'{{"queue-saturation": "{MACHINE}"}}')
    monkeypatch.setenv("STORM_INCIDENTS", "20")
    settings = DispatchSettings.from_environment()
    assert settings == DispatchSettings({"queue-saturation": MACHINE}, 20)


def test_a_tagged_alarm_is_prepared_for_its_runbooks_machine() -> None:
    prepared = dispatch._prepared(SETTINGS, LIVE, {"runbook": "queue-saturation"})
    assert isinstance(prepared, Prepared)
    assert prepared.machine == MACHINE
    assert prepared.start.target == "orders"


@pytest.mark.parametrize("runbook", ["queue-saturatoin", "", "no-contract", "../secrets"])
def test_a_runbook_that_there_is_not_is_told_with_those_there_are(runbook: str) -> None:
    with pytest.raises(Misconfigured, match="queue-saturation") as told:
        dispatch._prepared(SETTINGS, LIVE, {"runbook": runbook})
    assert "orders-backlog" in str(told.value)


def test_a_storm_is_named_by_the_window_it_falls_into() -> None:
    assert dispatch._storm_id(LIVE.changed_at) == "storm-20261123T0300Z"
    storm = dispatch._new_storm(SETTINGS, "storm-20261123T0300Z", "")
    assert storm.trigger["window_ends"] == "2026-11-23T03:05:00.000Z"
    assert storm.target == "storm#20261123T0300Z"
