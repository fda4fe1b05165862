import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws import AwsAccount
from local.aws.bridges import global_data
from local.aws.cloudwatch import put_metric_history

_ENGINE = {"Engine": "aurora-mysql", "EngineVersion": "8.0.mysql_aurora.3.08.0"}


@dataclass
class Database:
    """A global cluster `shop` with its writer in us-east-1 and a secondary in us-west-2."""

    aws: AwsAccount
    east: str
    west: str

    def client(self) -> Any:
        return self.aws.for_account(self.aws.account, "us-west-2").client("rds")

    def described(self) -> Any:
        return self.client().describe_global_clusters(GlobalClusterIdentifier="shop")[
            "GlobalClusters"
        ][0]

    def writer(self) -> str:
        members = self.described()["GlobalClusterMembers"]
        return str(next(one["DBClusterArn"] for one in members if one["IsWriter"]))

    def sync(self, arn: str) -> str:
        members = self.described()["GlobalClusterMembers"]
        return str(
            next(one["SynchronizationStatus"] for one in members if one["DBClusterArn"] == arn)
        )

    def switch_over(self, target: str) -> None:
        self.client().switchover_global_cluster(
            GlobalClusterIdentifier="shop", TargetDbClusterIdentifier=target
        )

    def fail_over(self, target: str) -> None:
        self.client().failover_global_cluster(
            GlobalClusterIdentifier="shop", TargetDbClusterIdentifier=target, AllowDataLoss=True
        )


@pytest.fixture
def database(aws: AwsAccount) -> Database:
    east: Any = aws.for_account(aws.account, "us-east-1").client("rds")
    west: Any = aws.for_account(aws.account, "us-west-2").client("rds")
    east.create_global_cluster(GlobalClusterIdentifier="shop", **_ENGINE)
    arns = [
        client.create_db_cluster(
            DBClusterIdentifier=name, GlobalClusterIdentifier="shop", **_ENGINE, **login
        )["DBCluster"]["DBClusterArn"]
        for client, name, login in (
            (east, "east", {"MasterUsername": "root", "MasterUserPassword": "local-dummy"}),
            (west, "west", {}),
        )
    ]
    return Database(aws, *arns)


def test_a_switchover_takes_its_time_and_loses_nothing(
    database: Database, eventually: Callable[..., Any]
) -> None:
    database.aws.set_global_switch_seconds(2)
    database.switch_over(database.west)
    described = database.described()
    assert described["Status"] == "switching-over"
    assert described["FailoverState"] == {
        "Status": "switching-over",
        "FromDbClusterArn": database.east,
        "ToDbClusterArn": database.west,
        "IsDataLossAllowed": False,
    }
    assert database.writer() == database.east
    with pytest.raises(ClientError, match="InvalidGlobalClusterStateFault"):
        database.switch_over(database.west)
    eventually(lambda: database.described()["Status"] == "available")
    assert "FailoverState" not in database.described()
    assert database.writer() == database.west
    assert database.sync(database.east) == "connected"


def test_without_the_primary_only_a_failover_goes_and_it_comes_back_with_its_region(
    database: Database, eventually: Callable[..., Any]
) -> None:
    database.aws.set_global_switch_seconds(2)
    blocked = database.aws.faults.block(region="us-east-1")
    with pytest.raises(ClientError, match="InvalidDBClusterStateFault"):
        database.switch_over(database.west)
    database.fail_over(database.west)
    assert database.described()["FailoverState"]["IsDataLossAllowed"] is True
    eventually(lambda: database.writer() == database.west)
    assert database.sync(database.east) == "pending-resync"
    time.sleep(2.1)
    assert database.sync(database.east) == "pending-resync"
    database.aws.faults.lift(blocked)
    with pytest.raises(ClientError, match="InvalidDBClusterStateFault"):
        database.switch_over(database.east)
    eventually(lambda: database.sync(database.east) == "connected")
    database.switch_over(database.east)
    eventually(lambda: database.writer() == database.east)


def test_without_the_bridge_there_is_no_switchover(database: Database) -> None:
    with (
        global_data.BRIDGE.off(),
        pytest.raises(ClientError, match="not ready for a planned global writer switchover"),
    ):
        database.switch_over(database.west)


def test_replicas_of_a_table_have_a_status_and_a_latency(aws: AwsAccount) -> None:
    east = aws.for_account(aws.account, "us-east-1")
    dynamodb: Any = east.client("dynamodb")
    dynamodb.create_table(
        TableName="carts", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    dynamodb.update_table(
        TableName="carts", ReplicaUpdates=[{"Create": {"RegionName": "us-west-2"}}]
    )

    def status() -> str:
        described = dynamodb.describe_table(TableName="carts")["Table"]["Replicas"]
        return {one["RegionName"]: str(one["ReplicaStatus"]) for one in described}["us-west-2"]

    assert status() == "ACTIVE"
    aws.set_replica_status("carts", "us-west-2", "REGION_DISABLED")
    assert status() == "REGION_DISABLED"
    now = int(time.time())
    dimensions = {"TableName": "carts", "ReceivingRegion": "us-west-2"}
    put_metric_history(
        aws.account, "us-east-1", "AWS/DynamoDB", "ReplicationLatency", dimensions,
        [(now - 60, 830.0)], unit="Milliseconds",
    )  # fmt: skip
    found = east.client("cloudwatch").list_metrics(
        Namespace="AWS/DynamoDB", MetricName="ReplicationLatency"
    )["Metrics"]
    assert {one["Name"]: one["Value"] for one in found[0]["Dimensions"]} == dimensions
