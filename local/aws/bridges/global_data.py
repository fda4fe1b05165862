"""Gaps of data in several Regions: Aurora switches over at once or not at all, replicas are fine.

AWS: SwitchoverGlobalCluster wants both clusters well and loses nothing, FailoverGlobalCluster with
AllowDataLoss goes without the primary; while either lasts, DescribeGlobalClusters has FailoverState
and the status `switching-over` or `failing-over`, and a second one is refused
(https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_SwitchoverGlobalCluster.html,
https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_FailoverState.html). After a failover
the old primary is `pending-resync`
(https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_GlobalClusterMember.html) and comes
back when its Region does
(https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html).
MiniStack switches MySQL in containers only. DescribeTable tells a replica's ReplicaStatus
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_ReplicaDescription.html), which
a test sets by `AwsAccount.set_replica_status`.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import time
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import dynamodb, rds

from local.aws import faults
from local.aws.bridges.bridge import Bridge

type _Cluster = dict[str, Any]

BRIDGE = Bridge("global_data")
_DEFAULT_SECONDS = 0.3
SECONDS: dict[str, float] = {}
"""How long a switch of the writer lasts, and then the resync of an old primary, by account."""
REPLICA_STATUS: dict[tuple[str, str, str], str] = {}
"""By account, table and the replica's Region; ACTIVE unless set."""
_DONE_AT, _RESYNC_AT = "_done_at", "_resync_at"

clock = time.monotonic


@BRIDGE.replace(rds, "_planned_mysql_global_writer_switch")
def _switch_over(request: Any) -> Any:
    """Begin a switchover; an error response when a Region of the two is unreachable."""
    return _begin(request, "switching-over", allow_data_loss=False)


@BRIDGE.replace(rds, "_switch_global_cluster_writer")
def _fail_over(request: Any, *, allow_data_loss: bool = False) -> Any:
    return _begin(request, "failing-over", allow_data_loss=allow_data_loss)


@BRIDGE.replace(rds, "_global_cluster_xml")
def _global_cluster_xml(cluster: _Cluster) -> Any:
    # Some callers hand over a copy.
    stored = rds._resolve_global_cluster(cluster["GlobalClusterIdentifier"]) or cluster
    _settle(stored)
    return _xml(stored)


def _begin(request: Any, status: str, *, allow_data_loss: bool) -> Any:
    known = rds._resolve_global_cluster(rds._p(request, "GlobalClusterIdentifier"))
    if known:
        _settle(known)
        if _DONE_AT in known:
            return rds._error(
                "InvalidGlobalClusterStateFault",
                f"Global cluster {known['GlobalClusterIdentifier']} is {known['Status']}.",
                400,
            )
    resolved, error = rds._resolve_global_writer_switch(request)
    if error:
        return error
    cluster, _, target, writer = resolved
    needed = [target] if allow_data_loss else [target, writer]
    for member in needed:
        if not _is_well(member):
            return rds._error(
                "InvalidDBClusterStateFault",
                f"DBCluster {member['DBClusterArn']} is not available for this operation.",
                400,
            )
    cluster["Status"] = status
    cluster["FailoverState"] = {
        "Status": status,
        "FromDbClusterArn": writer["DBClusterArn"],
        "ToDbClusterArn": target["DBClusterArn"],
        "IsDataLossAllowed": allow_data_loss,
    }
    cluster[_DONE_AT] = clock() + SECONDS.get(get_account_id(), _DEFAULT_SECONDS)
    return cluster


def _is_well(member: dict[str, Any]) -> bool:
    region = member["DBClusterArn"].split(":")[3]
    return member.get("SynchronizationStatus") != "pending-resync" and not faults.is_blocked(
        get_account_id(), region, "rds"
    )


def _settle(cluster: _Cluster) -> None:
    """Bring a cluster to where it would be by now."""
    seconds, now = SECONDS.get(get_account_id(), _DEFAULT_SECONDS), clock()
    if now >= cluster.get(_DONE_AT, float("inf")):
        state, done_at = cluster.pop("FailoverState"), cluster.pop(_DONE_AT)
        members = {member["DBClusterArn"]: member for member in cluster["GlobalClusterMembers"]}
        rds._set_global_cluster_writer(cluster, members[state["ToDbClusterArn"]])
        cluster["Status"] = "available"
        if state["IsDataLossAllowed"]:
            old = members[state["FromDbClusterArn"]]
            old["SynchronizationStatus"] = "pending-resync"
            old[_RESYNC_AT] = done_at + seconds
    for member in cluster["GlobalClusterMembers"]:
        region = member["DBClusterArn"].split(":")[3]
        if now < member.get(_RESYNC_AT, float("inf")):
            continue
        if faults.is_blocked(get_account_id(), region, "rds"):
            member[_RESYNC_AT] = now + seconds
        else:
            del member[_RESYNC_AT]
            member["SynchronizationStatus"] = "connected"


@BRIDGE.replace(dynamodb, "_table_description")
def _table_description(name: str) -> Any:
    described = _describe(name)
    for replica in described.get("Replicas", ()):
        status = REPLICA_STATUS.get((get_account_id(), name, replica["RegionName"]))
        replica["ReplicaStatus"] = status or replica["ReplicaStatus"]
    return described


def reset() -> None:
    """Forget what tests have set."""
    SECONDS.clear()
    REPLICA_STATUS.clear()


_xml = BRIDGE.original(rds, "_global_cluster_xml")
_describe = BRIDGE.original(dynamodb, "_table_description")
