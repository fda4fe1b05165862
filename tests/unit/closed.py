"""An incident that has closed well, to vary."""

from datetime import timedelta
from typing import Any

from oncall.incident import Change, Entry, Incident
from oncall.times import iso, parse

START = "2026-11-23T03:00:00.000Z"


def at(seconds: float) -> str:
    return iso(parse(START) + timedelta(seconds=seconds))


def an_incident(**fields: Any) -> Incident:
    values = {
        "id": "one",
        "runbook": "queue-saturation",
        "title": "Drain a saturated queue",
        "target": "arn:aws:sqs:eu-west-1:123456789012:orders",
        "target_name": "orders",
        "mode": "auto",
        "trigger": {"kind": "alarm", "alarm": {"changed_at": at(3)}},
        "execution": "arn:aws:states:eu-west-1:123456789012:execution:m:one",
        "fence": 1,
        "status": "closed",
        "outcome": "resolved",
        "started_at": at(4),
        "closed_at": at(30),
        "entries": (
            Entry("opened", "opened", "Alarm fired.", at(4)),
            Entry("change", "changed", "Set it from 2 to 4.", at(7)),
            Entry("relief-1", "verified", "50 % drained.", at(12)),
            Entry("relief-2", "verified", "drained.", at(20)),
            Entry("back", "put_back", "Put it back.", at(21)),
            Entry("calm-1", "verified", "calm.", at(28)),
            Entry("closed", "closed", "Resolved.", at(30)),
        ),
        "changes": (
            Change(
                "mapping-concurrency", "arn:m", "the cap", 2, 4, "", "aws …", at(99), "put_back"
            ),
        ),
    }
    return Incident(**{**values, **fields})
