"""A service in two Regions of the embedded AWS: all that a service file can name."""

import http.server
import io
import itertools
import json
import time
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from local.aws import AwsAccount
from local.aws.cloudwatch import put_metric_history
from oncall import service
from oncall.service import ROLES, Service
from oncall.services import Services, Settings

PRIMARY, STANDBY = "us-east-1", "us-west-2"
_CODE = "def handler(event, context):\n    return {}\n"
_ENGINE = {"Engine": "aurora-mysql", "EngineVersion": "8.0.mysql_aurora.3.08.0"}
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
_numbers = itertools.count()


class Well(http.server.BaseHTTPRequestHandler):
    """An endpoint that is always well, and says nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class TwoRegions:
    """Clients by Region, the service as its file would say it, and what the steps work with."""

    aws: AwsAccount
    service: Service
    services: Services
    file: dict[str, Any]
    """The service's file."""

    def client(self, name: str, region: str = STANDBY) -> Any:
        return client(self.aws, name, region)


def client(aws: AwsAccount, name: str, region: str) -> Any:
    return aws.for_account(aws.account, region).client(name)  # type: ignore[call-overload]  # any of them


def make(aws: AwsAccount) -> TwoRegions:
    """Make everything in both Regions; traffic is at home."""
    document = yaml.safe_load((service.SAMPLE / "services" / "shop.yaml").read_text("utf-8"))
    document["regions"] = {"primary": PRIMARY, "standby": STANDBY}
    document["zone"]["id"] = _zone(aws)
    levers = document["levers"]
    levers["routing_control"] = controls(aws)
    bucket = f"shop-switch-{next(_numbers)}-{aws.account}"
    client(aws, "s3", STANDBY).create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": STANDBY}
    )
    levers["health_check"] |= {"id": health_check(aws), "signal_region": STANDBY}
    levers["health_check"]["object"]["bucket"] = bucket
    levers["records"] |= {"primary": "shop-primary", "standby": "shop-standby"}
    document["health_checks"] = {"primary": [health_check(aws)], "standby": [health_check(aws)]}
    document["requests"] = {
        "namespace": "Shop",
        "count": "Requests",
        "errors": "Errors",
        "primary": {"Region": PRIMARY},
        "standby": {"Region": STANDBY},
    }
    client(aws, "iam", STANDBY).create_role(RoleName="shop", AssumeRolePolicyDocument=TRUST)
    places = {"primary": PRIMARY, "standby": STANDBY}
    for role, region in places.items():
        document["consumers"][role] = [consumer(aws, region, enabled=role == "primary")]
    arn = f"arn:aws:lambda:{STANDBY}:{aws.account}:function:shop"
    document["capacity"]["standby"] = [
        {"kind": "reserved-concurrency", "resource": arn, "at_least": 20},
        {"kind": "provisioned-concurrency", "resource": f"{arn}:live", "at_least": 5},
    ]
    _table(aws)
    document["data"]["aurora"][0] |= _database(aws)
    settings = Settings(
        table="incidents",
        stack="runbooks",
        kill_switch="/runbooks/kill-switch",
        period_seconds=1,
        calendars=(),
        runs_per_hour=100,
        approvers=(),
        account_floor=100,
        region=STANDBY,
    )
    own = aws.for_account(aws.account, STANDBY).session()
    return TwoRegions(aws, service.parse(document, "shop"), Services(settings, own), document)


def _zone(aws: AwsAccount) -> str:
    route53 = client(aws, "route53", STANDBY)
    made = route53.create_hosted_zone(Name="example.com", CallerReference=str(uuid.uuid4()))
    zone = str(made["HostedZone"]["Id"]).rpartition("/")[2]
    route53.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch={
            "Changes": [
                {
                    "Action": "CREATE",
                    "ResourceRecordSet": {
                        "Name": "shop.example.com",
                        "Type": "A",
                        "SetIdentifier": f"shop-{role}",
                        "Weight": weight,
                        "TTL": 60,
                        "ResourceRecords": [{"Value": value}],
                    },
                }
                for role, weight, value in (
                    ("primary", 100, "127.0.0.1"),
                    ("standby", 0, "127.0.0.2"),
                )
            ]
        },
    )
    return zone


def health_check(aws: AwsAccount, **config: Any) -> str:
    made = client(aws, "route53", STANDBY).create_health_check(
        CallerReference=str(uuid.uuid4()),
        HealthCheckConfig=config or {"Type": "HTTP", "IPAddress": "192.0.2.1"},
    )
    return str(made["HealthCheck"]["Id"])


def controls(aws: AwsAccount, name: str = "shop") -> dict[str, Any]:
    config = aws.session().client("route53-recovery-control-config", region_name="us-west-2")
    arn = config.create_cluster(ClusterName=name)["Cluster"]["ClusterArn"]
    made = config.create_control_panel(ClusterArn=arn, ControlPanelName=name)
    panel = made["ControlPanel"]["ControlPanelArn"]
    made_controls = {
        role: config.create_routing_control(
            ClusterArn=arn, ControlPanelArn=panel, RoutingControlName=f"{name}-{role}"
        )["RoutingControl"]["RoutingControlArn"]
        for role in ("primary", "standby")
    }
    endpoints = {
        one["Region"]: one["Endpoint"]
        for one in config.describe_cluster(ClusterArn=arn)["Cluster"]["ClusterEndpoints"]
    }
    cluster = aws.session().client(
        "route53-recovery-cluster", region_name="us-west-2", endpoint_url=endpoints["us-west-2"]
    )
    cluster.update_routing_control_state(
        RoutingControlArn=made_controls["primary"], RoutingControlState="On"
    )
    config.create_safety_rule(
        AssertionRule={
            "ControlPanelArn": panel,
            "Name": name,
            "WaitPeriodMs": 0,
            "RuleConfig": {"Type": "ATLEAST", "Threshold": 1, "Inverted": False},
            "AssertedControls": list(made_controls.values()),
        }
    )
    return {"endpoints": endpoints, **made_controls}


def consumer(
    aws: AwsAccount, region: str, *, enabled: bool, name: str = "shop", role: str = "shop"
) -> str:
    functions, queues = client(aws, "lambda", region), client(aws, "sqs", region)
    functions.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=f"arn:aws:iam::{aws.account}:role/{role}",
        Handler="app.handler",
        Code={"ZipFile": _zipped()},
        Tags={"runbook-automation": "enabled"},
        Publish=True,
    )
    functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    url = queues.create_queue(QueueName=f"{name}-orders")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    made = functions.create_event_source_mapping(
        EventSourceArn=arn["Attributes"]["QueueArn"],
        FunctionName=name,
        Enabled=enabled,
        Tags={"runbook-automation": "enabled"},
    )
    return f"arn:aws:lambda:{region}:{aws.account}:event-source-mapping:{made['UUID']}"


def _zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py", (1980, 1, 1, 0, 0, 0)), _CODE)
    return held.getvalue()


def _table(aws: AwsAccount) -> None:
    dynamodb = client(aws, "dynamodb", PRIMARY)
    dynamodb.create_table(
        TableName="shop-orders",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    dynamodb.update_table(
        TableName="shop-orders", ReplicaUpdates=[{"Create": {"RegionName": STANDBY}}]
    )


def _database(aws: AwsAccount) -> dict[str, str]:
    client(aws, "rds", PRIMARY).create_global_cluster(GlobalClusterIdentifier="shop", **_ENGINE)
    login = {"MasterUsername": "root", "MasterUserPassword": "local-dummy"}
    return {
        role: client(aws, "rds", region).create_db_cluster(
            DBClusterIdentifier="shop", GlobalClusterIdentifier="shop", **_ENGINE, **more
        )["DBCluster"]["DBClusterArn"]
        for role, region, more in (("primary", PRIMARY, login), ("standby", STANDBY, {}))
    }


def attach(shop: TwoRegions) -> None:
    """Let the record sets follow both levers, as they have to on AWS."""
    route53 = shop.client("route53")
    lever: Any = shop.service.health_check
    controls: Any = shop.service.routing_control
    route53.update_health_check(
        HealthCheckId=lever.id,
        FullyQualifiedDomainName=f"{lever.signal.bucket}.s3.{STANDBY}.amazonaws.com",
        ResourcePath=f"/{lever.signal.key}",
        FailureThreshold=1,
        Inverted=True,
    )
    on = {
        role: check(shop, Type="RECOVERY_CONTROL", RoutingControlArn=controls.controls[role])
        for role in ROLES
    }
    both = check(
        shop, Type="CALCULATED", ChildHealthChecks=[on["primary"], lever.id], HealthThreshold=2
    )
    change(shop, {"primary": {"HealthCheckId": both}, "standby": {"HealthCheckId": on["standby"]}})


def check(shop: TwoRegions, **config: Any) -> str:
    made = shop.client("route53").create_health_check(
        CallerReference=str(uuid.uuid4()), HealthCheckConfig=config
    )
    return str(made["HealthCheck"]["Id"])


def change(shop: TwoRegions, members: Mapping[str, Mapping[str, Any]]) -> None:
    """Change members of the record sets, by role; all at once, as weighted sets share their TTL."""
    route53, zone = shop.client("route53"), shop.service.zone_id
    sets = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    by_name = {one.get("SetIdentifier"): one for one in sets}
    old = [by_name[f"shop-{role}"] for role in members]
    new = [{**one, **members[role]} for role, one in zip(members, old, strict=True)]
    changes = [{"Action": "DELETE", "ResourceRecordSet": one} for one in old]
    changes += [{"Action": "CREATE", "ResourceRecordSet": one} for one in new]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


def replicate(shop: TwoRegions, *, table_ms: float = 900.0) -> None:
    """Publish both lags, a minute old."""
    at = int(time.time()) - 60
    for region, namespace, metric, dimensions, lag in (
        (
            PRIMARY,
            "AWS/DynamoDB",
            "ReplicationLatency",
            {"TableName": "shop-orders", "ReceivingRegion": STANDBY},
            table_ms,
        ),
        (STANDBY, "AWS/RDS", "AuroraGlobalDBReplicationLag", {"DBClusterIdentifier": "shop"}, 80.0),
    ):
        put_metric_history(
            shop.aws.account, region, namespace, metric, dimensions, [(at, lag)],
            unit="Milliseconds",
        )  # fmt: skip
