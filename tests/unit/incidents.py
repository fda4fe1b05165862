"""Incidents, changes and entries as the tests of what people are told need them."""

from datetime import UTC, datetime
from typing import Any

from oncall.incident import Change, Entry, Incident
from oncall.links import Links

NOW = datetime(2026, 11, 23, 3, 2, 30, tzinfo=UTC)
AT = "2026-11-23T03:02:00.000Z"
DEADLINE = "2026-11-23T03:12:00.000Z"
EXECUTION = "arn:{p}:states:{r}:123456789012:execution:queue-saturation:orders-1"
LINKS = Links(execution="https://example.com/e", report="https://example.com/r")
NASTY = "<!channel> `rm` *b* \u202egnp.exe\n*What I need*  nothing & <https://evil.example|x> @here"


def an_incident(**fields: Any) -> Incident:
    return Incident(
        **{
            "id": "orders-1",
            "runbook": "queue-saturation",
            "title": "A queue fills up",
            "target": "arn:aws:sqs:us-east-1:123456789012:orders",
            "target_name": "orders",
            "mode": "auto",
            "trigger": {"kind": "alarm", "alarm": {"name": "deep", "arn": "arn:alarm"}},
            "execution": EXECUTION.format(p="aws", r="us-east-1"),
            "fence": 1,
            "started_at": AT,
            "updated_at": AT,
            "happened": "orders: 12,900 wait. The cap is reached.",
            "doing": "Raised the cap. It goes back.",
            "need": "Nothing.",
            **fields,
        }
    )


def a_change(**fields: Any) -> Change:
    return Change(
        **{
            "lever": "reserved-concurrency",
            "resource": "arn:f",
            "name": "worker cap",
            "before": 20,
            "after": 60,
            "why": "busy",
            "undo": "aws lambda put-function-concurrency …",
            "expires_at": DEADLINE,
            "state": "applied",
            **fields,
        }
    )


def asking(**fields: Any) -> Incident:
    ask = {"id": "q1", "deadline": DEADLINE, "state": "waiting", "level": 1, "people": 1}
    plan = {
        "changes": [
            {"name": "worker cap", "before": 20, "after": None, "why": "busy", "lever": "x"}
        ]
    }
    return an_incident(**{"phase": "waiting", "ask": ask, "plan": plan, "mode": "ask", **fields})


def an_entry(seq: int = 1, kind: str = "verified", text: str = "Better.", **fields: Any) -> Entry:
    return Entry(**{"id": f"e{seq}", "kind": kind, "text": text, "at": AT, "seq": seq, **fields})
