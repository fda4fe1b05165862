"""What the tests of report and receive_decision share: a table, a queue's incident, channels."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from local.aws import AwsAccount
from local.pagerduty import FakePagerDuty
from local.slack import FakeSlack
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.record import IncidentStore
from oncall.secret_values import SecretValues
from oncall.services import Services, Settings
from report import Reporter, ReportSettings
from tests.integration.tables import TABLE, make_table
from tests.unit.clock import SetClock

ALICE, BOB, MALLORY = "U0ALICE", "U0BOB", "U0MALLORY"
CAROL = "arn:aws:iam::123456789012:user/carol"
DAVE = "arn:aws:iam::123456789012:user/dave"
ALARM = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:orders-backlog"
EXECUTION = (
    "arn:aws:states:us-east-1:123456789012:execution:queue-saturation:"
    "orders-backlog-20261123T025400Z"
)
QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:orders-worker"
TOKEN = "task-token-canary-9f2c61"
ESCALATION_KEY = "R0000000000000000000000000000002"
MAY_DELIVER = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": "*",
            }
        ],
    }
)
"""The policy of a queue that topics deliver to."""
UNDO = (
    f"aws lambda put-function-concurrency --function-name {FUNCTION} "
    "--reserved-concurrent-executions 20"
)
CHANGE = Change(
    lever="reserved-concurrency",
    resource=FUNCTION,
    name="orders-worker reserved concurrency",
    before=20,
    after=60,
    why="20 of 20 in use, 0 errors, 412 free in the account",
    undo=UNDO,
    expires_at="2026-11-23T03:34:00.000Z",
)
PLAN: dict[str, Any] = {
    "hash": "c0ffee00" * 8,
    "ask": "May I raise it for 32 minutes?",
    "changes": [
        {
            "lever": CHANGE.lever,
            "resource": CHANGE.resource,
            "name": CHANGE.name,
            "before": 20,
            "after": 60,
            "why": CHANGE.why,
        }
    ],
}


@dataclass
class Context:
    """What Lambda hands a function besides the event."""

    seconds_left: float = 120

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds_left * 1000)


@dataclass
class World:
    """A deployment with its people: tests write the record, report, and look at what was told."""

    aws: AwsAccount
    services: Services
    slack: FakeSlack
    pagerduty: FakePagerDuty
    clock: SetClock
    settings: ReportSettings
    run: Run = field(init=False)
    machine: str = ""

    @property
    def store(self) -> IncidentStore:
        return self.services.store

    def reporter(self, **changed: Any) -> Reporter:
        """Make a new reporter, as a new container would be."""
        return Reporter(self.services, replace(self.settings, **changed))

    def report(self, **changed: Any) -> None:
        self.reporter(**changed).deliver(self.run.incident)

    def report_with_graphs(self, seconds: float = 10) -> None:
        """Report as the function does: first the texts, then the graphs."""
        reporter = self.reporter()
        reporter.deliver(self.run.incident)
        reporter.show_graphs(seconds)

    def open(self, name: str = "orders-backlog-20261123T025400Z", **fields: Any) -> Incident:
        new = Incident(
            **{
                "id": name,
                "runbook": "queue-saturation",
                "title": "A queue grows faster than it is drained",
                "target": QUEUE,
                "target_name": "orders",
                "mode": "auto",
                "trigger": {
                    "kind": "alarm",
                    "by": "",
                    "reason": "",
                    "alarm": {
                        "name": "orders-backlog",
                        "arn": ALARM,
                        "changed_at": "2026-11-23T02:54:00.000Z",
                    },
                },
                "execution": EXECUTION,
                "fence": 0,
                "happened": "Alarm orders-backlog fired.",
                "doing": "Looking at the metrics.",
                "need": "Nothing yet.",
                **fields,
            }
        )
        entry = Entry(
            id="opened",
            kind="opened",
            text=f"Alarm orders-backlog fired. Runbook {new.runbook} on orders, mode {new.mode}.",
        )
        opened = self.store.open(new, entry, timedelta(hours=1))
        self.run = Run(opened.id, opened.runbook, opened.target, opened.mode, opened.fence)
        return opened

    def note(self, kind: str, text: str, *, severity: str = "", **fields: Any) -> None:
        number = len(self.load().entries)
        entry = Entry(id=f"{kind}-{number}", kind=kind, text=text, severity=severity)
        self.store.note(self.run, entry, **fields)

    def ask(self, *, people: int = 1, level: int = 1, token: str = "", minutes: int = 10) -> Ask:
        deadline = self.clock() + timedelta(minutes=minutes)
        at = f"{deadline:%H:%M} UTC"
        ask = Ask(
            id=f"c0ffee00-1-{level}",
            plan_hash=PLAN["hash"],
            token=token or TOKEN,
            deadline=deadline.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            people=people,
            level=level,
        )
        silence = f"No answer: {'I page the next in line' if level == 1 else 'I change nothing'}."
        self.store.put_ask(
            self.run,
            ask,
            Entry(
                id=f"asked-{ask.id}",
                kind="asked",
                text=f"{PLAN['ask']} I need a yes from somebody by {at}. {silence}",
            ),
            plan=PLAN,
            happened="orders: 12,900 messages wait, the oldest 6 min. Its function is at its cap.",
            doing="I would give orders-worker more room.",
            need=f"A yes or no from somebody by {at}. {silence}",
        )
        return ask

    def change(self) -> None:
        self.store.lease_change(
            self.run,
            CHANGE,
            Entry(id="intend", kind="intended", text="About to set it."),
        )
        self.store.update_change(
            self.run,
            replace(self._own(), state="applied"),
            Entry(
                id="changed",
                kind="changed",
                text=f"Set {CHANGE.name} from 20 to 60: {CHANGE.why}.",
                data={"by_hand": "…", "undo": UNDO},
            ),
            doing=f"Set {CHANGE.name} 20 → 60; it goes back to 20 when this is over.",
        )

    def put_back(self) -> None:
        note = f"Put {CHANGE.name} back from 60 to 20."
        self.store.update_change(
            self.run,
            replace(self._own(), state="put_back", note=note),
            Entry(id="put-back", kind="put_back", text=note),
        )

    def close(self, outcome: str, summary: str, **fields: Any) -> None:
        entry = Entry(id="closed", kind="closed", text=summary)
        self.store.close(self.run, outcome, summary, entry, **fields)

    def _own(self) -> Change:
        return next(change for change in self.load().changes)

    def load(self) -> Incident:
        return self.store.load(self.run.incident)

    def waiting_token(self) -> str:
        """Start an execution that waits for a task token and return the token."""
        states = self.aws.client("stepfunctions")
        queue = self.aws.client("sqs").create_queue(QueueName="tokens")["QueueUrl"]
        if not self.machine:
            role = self.aws.client("iam").create_role(
                RoleName="machine", AssumeRolePolicyDocument="{}"
            )["Role"]["Arn"]
            self.machine = states.create_state_machine(
                name="asking", definition=json.dumps(_asking(queue)), roleArn=role
            )["stateMachineArn"]
        states.start_execution(stateMachineArn=self.machine)
        for _ in range(20):
            found = self.aws.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=1)
            for message in found.get("Messages", []):
                return str(message["Body"])
        raise AssertionError("the machine has not asked")

    def execution(self) -> Mapping[str, Any]:
        """Describe the machine's execution."""
        states = self.aws.client("stepfunctions")
        found = states.list_executions(stateMachineArn=self.machine)["executions"][0]
        return states.describe_execution(executionArn=found["executionArn"])


def _asking(queue: str) -> dict[str, Any]:
    return {
        "QueryLanguage": "JSONata",
        "StartAt": "Ask",
        "States": {
            "Ask": {
                "Type": "Task",
                "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
                "Arguments": {
                    "QueueUrl": queue,
                    "MessageBody": "{% $states.context.Task.Token %}",
                },
                "TimeoutSeconds": 60,
                "End": True,
            }
        },
    }


@contextmanager
def a_world(aws: AwsAccount) -> Iterator[World]:
    """Make the table, the bucket, the secrets and the channels."""
    clock = SetClock()
    make_table(aws.session())
    aws.client("s3").create_bucket(Bucket=f"reports-{aws.account}")
    with (
        FakeSlack(rate=100, clock=clock.seconds) as slack,
        FakePagerDuty(
            routing_keys=("R0000000000000000000000000000001", ESCALATION_KEY),
            clock=clock.seconds,
        ) as pagerduty,
    ):
        secrets = aws.client("secretsmanager")
        for name, value in (
            ("slack", {"bot_token": slack.bot_token, "signing_secret": slack.signing_secret}),
            (
                "pagerduty",
                {
                    "routing_key": pagerduty.routing_key,
                    "escalation_routing_key": ESCALATION_KEY,
                },
            ),
        ):
            secrets.create_secret(Name=name, SecretString=json.dumps(value))
        services = Services(
            Settings(
                table=TABLE,
                stack="runbooks",
                kill_switch="/runbooks/kill-switch",
                period_seconds=60,
                calendars=(),
                runs_per_hour=30,
                approvers=(ALICE, BOB, CAROL, DAVE),
                account_floor=100,
                region="us-east-1",
            ),
            session=aws.session(),
            clock=clock,
        )
        settings = ReportSettings(
            slack_secret="slack",
            slack_channel="C0ONCALL",
            slack_mention="<!subteam^S0ONCALL>",
            slack_api_url=slack.base_url,
            pagerduty_secret="pagerduty",
            pagerduty_url=pagerduty.base_url,
            bucket=f"reports-{aws.account}",
            fallback="",
            docs_url="https://docs.example.com/runbooks/{runbook}",
            edit_seconds=30,
        )
        yield World(aws, services, slack, pagerduty, clock, settings)


def secrets_of(world: World) -> SecretValues:
    return SecretValues(world.services)
