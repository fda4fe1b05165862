"""The daily readiness run as it is deployed, under its role, in both Regions: what it tells."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from cli.app import main
from local import service_files
from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings
from local.playground import ROOT, STACK
from local.slack import FakeSlack
from oncall import service
from oncall.service import ROLES
from tests.integration import two_regions
from tests.integration.reporting import MAY_DELIVER
from tests.integration.two_regions import PRIMARY, STANDBY, TwoRegions, Well, attach, replicate

APPROVERS = ("U0ALICE", "U0BOB")
FUNCTION = f"{STACK}-check-readiness"


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(CloudWatch(Settings(resolution_seconds=1)),)) as aws:
        yield aws


@dataclass
class World:
    """A service that could be failed over, and the stack in both its Regions."""

    shop: TwoRegions
    slack: FakeSlack
    inbox: str
    eventually: Callable[..., Any]

    def check(self, region: str = STANDBY) -> dict[str, Any]:
        """Run the daily run; return what it answers."""
        answer = self.shop.client("lambda", region).invoke(FunctionName=FUNCTION, Payload=b"{}")
        return dict(json.loads(answer["Payload"].read()))

    def told(self) -> list[str]:
        """Return what Slack was told, once the report knows all that was found."""
        table = self.shop.aws.for_account(self.shop.aws.account, STANDBY).session()
        name = self.shop.client("cloudformation").describe_stack_resource(
            StackName=STACK, LogicalResourceId="IncidentsTable"
        )["StackResourceDetail"]["PhysicalResourceId"]
        incidents = table.resource("dynamodb").Table(name)

        def item(sk: str) -> Any:
            found = incidents.get_item(Key={"pk": "READINESS#shop", "sk": sk}).get("Item", {})
            return found.get("found")

        self.eventually(lambda: item("RECORD") == item("TOLD"), seconds=60)
        return [message.text for message in self.slack.messages]

    def mails(self) -> list[dict[str, Any]]:
        """Return what has come by the topic since it was looked at last."""
        sqs = self.shop.client("sqs")
        found = sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10)
        for one in found.get("Messages", []):
            sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=one["ReceiptHandle"])
        return [json.loads(one["Body"]) for one in found.get("Messages", [])]

    def standby_check(self, *, disabled: bool) -> None:
        self.shop.client("route53").update_health_check(
            HealthCheckId=self.shop.service.health_checks["standby"][0], Disabled=disabled
        )


@pytest.fixture
def world(aws: AwsAccount, eventually: Callable[..., Any]) -> Iterator[World]:
    with ExitStack() as stack:
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Well))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        stack.callback(server.shutdown)
        slack = stack.enter_context(FakeSlack(channels={"C0ONCALL": "oncall"}, rate=20))
        shop = two_regions.make(aws)
        attach(shop)
        replicate(shop)
        for role in ROLES:
            aws.set_health(shop.service.health_checks[role][0], healthy=True)
        well = {"url": f"http://127.0.0.1:{server.server_address[1]}/"}
        shop.file["probes"] = dict.fromkeys(("primary", "standby", "public"), well)
        shop.file["failback"]["approvers"] = list(APPROVERS)
        for region in (PRIMARY, STANDBY):
            there = aws.for_account(aws.account, region)
            there.deploy(STACK, ROOT / "template.yaml", _parameters(shop, slack, region))
            service_files.ship(there, STACK, shop.file, {})
        yield World(shop, slack, _inbox(shop), eventually)


def _parameters(shop: TwoRegions, slack: FakeSlack, region: str) -> dict[str, str]:
    tokens = {"bot_token": slack.bot_token, "signing_secret": slack.signing_secret}
    secret = shop.client("secretsmanager", region).create_secret(
        Name="slack", SecretString=json.dumps(tokens)
    )["ARN"]
    levers, [database] = shop.file["levers"], shop.file["data"]["aurora"]
    bucket = f"arn:aws:s3:::{levers['health_check']['object']['bucket']}"
    return {
        "PeriodSeconds": "1",
        "Approvers": ",".join(APPROVERS),
        "SlackSecretArn": secret,
        "SlackChannel": "C0ONCALL",
        "SlackApiUrl": slack.base_url,
        "FailoverResources": ",".join(
            (
                f"arn:aws:route53:::hostedzone/{shop.service.zone_id}",
                *(levers["routing_control"][role] for role in ROLES),
                bucket,
                f"{bucket}/{levers['health_check']['object']['key']}",
                f"arn:aws:rds::{shop.aws.account}:global-cluster:{database['global_cluster']}",
                *(database[role] for role in ROLES),
            )
        ),
    }


def _inbox(shop: TwoRegions) -> str:
    """Subscribe a queue to the topic that reaches people otherwise; return its URL."""
    sqs, stacks = shop.client("sqs"), shop.client("cloudformation")
    url = str(sqs.create_queue(QueueName="inbox", Attributes={"Policy": MAY_DELIVER})["QueueUrl"])
    topic = stacks.describe_stack_resource(StackName=STACK, LogicalResourceId="Fallback")
    shop.client("sns").subscribe(
        TopicArn=topic["StackResourceDetail"]["PhysicalResourceId"],
        Protocol="sqs",
        Endpoint=f"arn:aws:sqs:{STANDBY}:{shop.aws.account}:inbox",
    )
    return url


def denied(world: World) -> list[str]:
    return [
        f"{call.action} on {call.resource} by {call.role}"
        for call in list(world.shop.aws.calls)
        if call.status == 403 and call.role.startswith(STACK)
        and call.account == world.shop.aws.account
    ]  # fmt: skip


def test_it_tells_what_has_changed_and_nothing_else(world: World) -> None:
    check = world.shop.service.health_checks["standby"][0]

    assert world.check() == {"checked": ["shop"], "left": []}
    [first] = world.told()
    assert first.count("•") == 1, first
    head, only, end = first.splitlines()
    assert head == "*🟠 shop could be failed over, not as well as it should*"
    assert only.startswith("• `drift:shop:live` warn: The file tells of shop:live in us-west-2 and")
    assert only.endswith("Give consumers.primary or capacity.primary.")
    assert end == "All of it: `runbook doctor shop`"

    world.check()
    assert world.told() == [first]

    world.standby_check(disabled=True)
    world.check()
    [_, second] = world.told()
    assert second.startswith("*🔴 shop could not be failed over as it is*")
    assert f"• `health_check:standby:{check}` ok → bad: {check} is disabled" in second
    assert second.count("•") == 1
    assert world.mails() == []

    world.slack.down()
    world.standby_check(disabled=False)
    world.check()
    assert len(world.told()) == 2
    [mail] = world.mails()
    assert mail["Subject"] == "shop could be failed over, not as well as it should"
    assert f"- health_check:standby:{check} bad → ok" in mail["Message"]

    world.slack.up()
    world.check()
    assert (len(world.told()), world.mails()) == (2, [])
    assert denied(world) == []


def test_the_doctor_finds_the_same_by_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", world.shop.aws.account)
    monkeypatch.setattr(service, "names", lambda: ("shop",))
    found = service.parse(world.shop.file, "shop")
    monkeypatch.setattr(service, "load", lambda _name: found)
    ended = CliRunner().invoke(main, ("doctor", "--output", "json"))
    rows = {one["name"]: one for one in json.loads(ended.stdout)}
    odd = {name: one["verdict"] for name, one in rows.items() if one["verdict"] != "ok"}
    assert odd == {"drift:shop:live": "warn"}
    assert ended.exit_code == 0
    assert rows["iam:standby"]["number"] == 17
    assert rows["secrets:primary"]["sentence"] == "The stack in us-east-1 can tell slack."


def test_what_the_stacks_lack_is_found_in_both_regions(world: World) -> None:
    ssm, lambdas = world.shop.client("ssm"), world.shop.client("lambda")
    ssm.put_parameter(
        Name=f"/{STACK}/kill-switch/route53-failover", Value="stop, INC-1", Overwrite=True
    )
    world.shop.client("secretsmanager", PRIMARY).put_secret_value(
        SecretId="slack", SecretString='{"bot_token": "xoxb-canary-1"}'
    )
    iam = world.shop.client("iam")
    role = lambdas.get_function_configuration(FunctionName=f"{STACK}-take-failover-step")["Role"]
    zone = f"arn:aws:route53:::hostedzone/{world.shop.service.zone_id}"
    iam.put_role_policy(
        RoleName=role.rpartition("/")[2],
        PolicyName="forbids",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [
                {"Effect": "Deny", "Action": "route53:ChangeResourceRecordSets", "Resource": zone}
            ]}
        ),
    )  # fmt: skip
    mapping = world.shop.service.consumers["standby"][0]
    lambdas.untag_resource(Resource=mapping, TagKeys=["runbook-automation"])

    world.check()

    [message] = world.told()
    assert f"`iam:standby` bad: The runbooks in {STANDBY} may not do " in message
    assert f"route53:ChangeResourceRecordSets on {zone}, so shop could not be failed" in message
    assert "`iam:primary`" not in message
    assert "`switch:standby` bad: The kill switch /runbooks/kill-switch/route53-failover" in message
    assert "`secrets:primary` warn" in message
    assert "has no signing_secret" in message
    assert "xoxb-canary-1" not in message
    assert f"`opted_in` bad: Not opted in, so a run would stop there: {mapping}" in message


def test_the_stack_in_the_standby_looks_and_another_only_where_there_is_none(
    world: World,
) -> None:
    assert world.check(PRIMARY) == {"checked": [], "left": ["shop"]}
    assert world.slack.messages == []
    world.shop.client("lambda").delete_function(FunctionName=FUNCTION)
    assert world.check(PRIMARY) == {"checked": ["shop"], "left": []}


def test_a_run_that_cannot_write_fails_and_what_it_found_is_told_the_next_time(
    world: World,
) -> None:
    world.shop.aws.faults.add(
        "dynamodb", "PutItem", "error", code="InternalServerError", status=400,
        role="CheckReadinessFunctionRole",
    )  # fmt: skip
    failed = world.check()
    assert failed["errorType"] == "SweepIncomplete"
    assert "shop (InternalServerError" in failed["errorMessage"]
    assert world.slack.messages == []
    world.check()
    assert len(world.told()) == 1


def test_a_broken_file_is_told(world: World) -> None:
    broken = {**world.shop.file, "targets": {"rto_seconds": "soon", "rpo_seconds": 30}}
    there = world.shop.aws.for_account(world.shop.aws.account, STANDBY)
    service_files.ship(there, STACK, broken, {})
    world.check()
    [message] = world.told()
    assert "`file` bad: runbooks/services/shop.yaml: targets.rto_seconds: 'soon'" in message
