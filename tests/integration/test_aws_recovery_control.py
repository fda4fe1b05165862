import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import dns.message
import dns.query
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.aws import AwsAccount, EmbeddedAws
from local.aws.bridges import recovery_control
from local.aws.route53.data_plane import Route53DataPlane
from local.aws.route53.routing_controls import REGIONS

type Deploy = Callable[..., dict[str, str]]

_PLANE = Route53DataPlane(interval_seconds=0.1)
_ONCE = Config(retries={"total_max_attempts": 1})
_references = itertools.count()


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(_PLANE,)) as aws:
        yield aws


@dataclass
class Cluster:
    """A cluster with a control for each of two cells."""

    aws: AwsAccount
    endpoints: dict[str, str]
    arn: str
    panel: str
    east: str
    west: str

    @property
    def config(self) -> Any:
        return _config(self.aws)

    def at(self, region: str = "us-west-2") -> Any:
        return self.aws.session().client(
            "route53-recovery-cluster", region_name=region, endpoint_url=self.endpoints[region],
            config=_ONCE,
        )  # fmt: skip

    def switch(self, region: str = "us-west-2", *override: str, **states: str) -> None:
        entries = [
            {"RoutingControlArn": getattr(self, name), "RoutingControlState": state}
            for name, state in states.items()
        ]
        self.at(region).update_routing_control_states(
            UpdateRoutingControlStateEntries=entries, SafetyRulesToOverride=list(override)
        )

    def states(self) -> tuple[str, str]:
        listed = self.at().list_routing_controls(ControlPanelArn=self.panel)["RoutingControls"]
        found = {one["RoutingControlArn"]: one["RoutingControlState"] for one in listed}
        return found[self.east], found[self.west]

    def rule(self, kind: str, wait_ms: int = 0, **controls: list[str]) -> str:
        at_least_one = {"Type": "ATLEAST", "Threshold": 1, "Inverted": False}
        rule = {
            "ControlPanelArn": self.panel, "Name": kind, "WaitPeriodMs": wait_ms,
            "RuleConfig": at_least_one, **controls,
        }  # fmt: skip
        made = self.config.create_safety_rule(**{kind: rule})
        return str(made[kind]["SafetyRuleArn"])


def _config(aws: AwsAccount) -> Any:
    return aws.session().client("route53-recovery-control-config", region_name="us-west-2")


@pytest.fixture
def cluster(aws: AwsAccount) -> Cluster:
    config = _config(aws)
    made = config.create_cluster(ClusterName="shop")["Cluster"]
    arn = made["ClusterArn"]
    panel = config.create_control_panel(ClusterArn=arn, ControlPanelName="cells")
    panel_arn = panel["ControlPanel"]["ControlPanelArn"]

    def control(name: str) -> str:
        answer = config.create_routing_control(
            ClusterArn=arn, ControlPanelArn=panel_arn, RoutingControlName=name
        )
        return str(answer["RoutingControl"]["RoutingControlArn"])

    described = config.describe_cluster(ClusterArn=arn)["Cluster"]
    assert described["Status"] == "DEPLOYED"
    endpoints = {one["Region"]: one["Endpoint"] for one in described["ClusterEndpoints"]}
    assert set(endpoints) == set(REGIONS)
    return Cluster(aws, endpoints, arn, panel_arn, control("east"), control("west"))


def conflict(call: Callable[[], None]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    response: Any = caught.value.response
    assert response["Error"]["Code"] == "ConflictException"
    return str(response["resourceId"])


def test_every_endpoint_reads_and_sets_the_same_states(cluster: Cluster) -> None:
    assert cluster.states() == ("Off", "Off")
    for region in REGIONS:
        cluster.switch(region, east="On", west="Off")
        assert cluster.states() == ("On", "Off")
        cluster.switch(region, east="Off", west="On")
        found = cluster.at(region).get_routing_control_state(RoutingControlArn=cluster.west)
        assert (found["RoutingControlName"], found["RoutingControlState"]) == ("west", "On")


def test_only_a_clusters_own_endpoints_in_their_own_region_serve_it(cluster: Cluster) -> None:
    for url, region in (
        (cluster.aws.endpoint_url, "us-east-1"),
        (cluster.endpoints["us-east-1"], "eu-west-1"),
    ):
        client = cluster.aws.session().client(
            "route53-recovery-cluster", region_name=region, endpoint_url=url
        )
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client.get_routing_control_state(RoutingControlArn=cluster.west)


def test_an_assertion_rule_is_judged_after_the_whole_change(cluster: Cluster) -> None:
    cluster.switch(east="On")
    rule = cluster.rule("AssertionRule", AssertedControls=[cluster.east, cluster.west])
    assert conflict(lambda: cluster.switch(east="Off")) == rule
    assert conflict(lambda: cluster.switch(east="Off", west="Off")) == rule
    assert cluster.states() == ("On", "Off")
    cluster.switch(east="Off", west="On")
    assert cluster.states() == ("Off", "On")
    cluster.switch("us-west-2", rule, west="Off")
    assert cluster.states() == ("Off", "Off")


def test_a_gating_rule_is_judged_by_its_gate(cluster: Cluster) -> None:
    answer = cluster.config.create_routing_control(
        ClusterArn=cluster.arn, ControlPanelArn=cluster.panel, RoutingControlName="gate"
    )
    gate = answer["RoutingControl"]["RoutingControlArn"]
    rule = cluster.rule(
        "GatingRule", GatingControls=[gate], TargetControls=[cluster.east, cluster.west]
    )
    assert conflict(lambda: cluster.switch(east="On")) == rule
    cluster.at().update_routing_control_state(RoutingControlArn=gate, RoutingControlState="On")
    cluster.switch(east="On")
    assert cluster.states() == ("On", "Off")
    listed = cluster.config.list_safety_rules(ControlPanelArn=cluster.panel)["SafetyRules"]
    assert [one["GATING"]["SafetyRuleArn"] for one in listed] == [rule]


def test_the_wait_period_prevents_flapping(cluster: Cluster) -> None:
    rule = cluster.rule("AssertionRule", 60_000, AssertedControls=[cluster.east, cluster.west])
    cluster.switch(east="On")
    assert conflict(lambda: cluster.switch(east="Off", west="On")) == rule


def test_one_unknown_control_undoes_the_whole_change(cluster: Cluster) -> None:
    entries = [
        {"RoutingControlArn": cluster.east, "RoutingControlState": "On"},
        {"RoutingControlArn": f"{cluster.west}x", "RoutingControlState": "On"},
    ]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        cluster.at().update_routing_control_states(UpdateRoutingControlStateEntries=entries)
    assert cluster.states() == ("Off", "Off")


def test_a_role_needs_every_control_that_it_sets(cluster: Cluster, stack: Deploy) -> None:
    code = """
        import boto3
        from botocore.exceptions import ClientError

        def handler(event, context):
            client = boto3.client(
                "route53-recovery-cluster", region_name="us-west-2", endpoint_url=event["endpoint"])
            try:
                client.update_routing_control_states(UpdateRoutingControlStateEntries=[
                    {"RoutingControlArn": arn, "RoutingControlState": "On"} for arn in event["arns"]
                ])
            except ClientError as error:
                return error.response["Error"]["Code"]
            return "allowed"
    """
    names = stack(
        f"""
        Switch:
          Type: AWS::Serverless::Function
          Properties:
            Policies:
              - Version: "2012-10-17"
                Statement:
                  - Effect: Allow
                    Action: route53-recovery-cluster:UpdateRoutingControlStates
                    Resource: {cluster.east}
        """,
        code,
    )

    def switch(*arns: str) -> Any:
        event = {"endpoint": cluster.endpoints["us-west-2"], "arns": arns}
        answer = cluster.aws.client("lambda").invoke(
            FunctionName=names["Switch"], Payload=json.dumps(event)
        )
        return json.loads(answer["Payload"].read())

    assert switch(cluster.east, cluster.west) == switch(cluster.west) == "AccessDeniedException"
    assert cluster.states() == ("Off", "Off")
    assert switch(cluster.east) == "allowed"


def test_without_the_bridge_there_are_no_routing_controls(aws: AwsAccount) -> None:
    with recovery_control.BRIDGE.off(), pytest.raises((ClientError, BotoCoreError)):
        _config(aws).create_cluster(ClusterName="shop")


def _failover_record(cluster: Cluster) -> Callable[[], str]:
    """Make a failover record by routing controls; return what asks a name server for it."""
    aws, route53 = cluster.aws, cluster.aws.client("route53")
    aws.set_dns_change_seconds(0)
    made = route53.create_hosted_zone(Name="example.com", CallerReference=str(next(_references)))
    changes: Any = []
    for role, arn, value in (
        ("PRIMARY", cluster.east, "192.0.2.1"),
        ("SECONDARY", cluster.west, "192.0.2.2"),
    ):
        check = route53.create_health_check(
            CallerReference=arn,
            HealthCheckConfig={"Type": "RECOVERY_CONTROL", "RoutingControlArn": arn},
        )
        record = {
            "Name": "www.example.com", "Type": "A", "TTL": 60, "Failover": role,
            "SetIdentifier": role, "ResourceRecords": [{"Value": value}],
            "HealthCheckId": check["HealthCheck"]["Id"],
        }  # fmt: skip
        changes.append({"Action": "CREATE", "ResourceRecordSet": record})
    route53.change_resource_record_sets(
        HostedZoneId=made["HostedZone"]["Id"], ChangeBatch={"Changes": changes}
    )

    def answered() -> str:
        host, port = next(iter(_PLANE.name_servers(aws.account).values())).address
        query = dns.message.make_query("www.example.com", "A")
        answer = dns.query.udp(query, host, port=port, timeout=2)
        return str(answer.answer[0][0])

    return answered


def test_with_a_region_and_the_control_planes_blocked_a_routing_control_still_moves_clients(
    cluster: Cluster,
) -> None:
    aws = cluster.aws
    answered = _failover_record(cluster)
    cluster.switch(east="On", west="Off")
    assert answered() == "192.0.2.1"
    blocked = [aws.faults.block(region="us-east-1"), *aws.faults.block_global_services()]

    def fails(service: Any, operation: str, region: str = "us-east-1") -> bool:
        client: Any = boto3.Session(aws.account, "test", region_name=region).client(
            service, config=_ONCE
        )
        try:
            getattr(client, operation)()
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        return False

    assert fails("sqs", "list_queues")
    assert fails("iam", "list_roles", "us-west-2")
    assert fails("route53", "list_hosted_zones", "us-west-2")
    assert not fails("sqs", "list_queues", "us-west-2")
    with pytest.raises(ClientError):
        cluster.switch("us-east-1", east="Off", west="On")
    assert cluster.states() == ("On", "Off")
    cluster.switch("eu-west-1", east="Off", west="On")
    assert answered() == "192.0.2.2"
    aws.faults.lift(*blocked)
    assert not fails("sqs", "list_queues")
    assert not fails("route53", "list_hosted_zones")


def test_one_endpoint_can_be_unreachable_alone(cluster: Cluster) -> None:
    cluster.aws.faults.block(region="eu-west-1", service="route53-recovery-cluster")
    with pytest.raises(ClientError):
        cluster.switch("eu-west-1", east="On")
    assert cluster.states() == ("Off", "Off")
    cluster.aws.for_account(cluster.aws.account, "eu-west-1").client("sqs").list_queues()
    with pytest.raises(ValueError, match="needs a region or a service"):
        cluster.aws.faults.block()
