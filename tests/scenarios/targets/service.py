"""A service in two Regions: real record sets that name servers answer, and two real web servers.

The primary is 127.0.0.1, the standby 127.0.0.2. The world's Region is where traffic goes to: the
standby's before a failover, the primary's before a failback; us-east-1 is the other one.
"""

import http.server
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from local import service_files
from local.aws.cloudwatch import put_metric_history
from local.playground import REGION, STACK
from oncall import name_servers
from tests.integration import two_regions
from tests.scenarios.targets import parts
from tests.scenarios.targets.base import Target
from tests.scenarios.world import Metric, World

OTHER = "us-east-1"
_ADDRESSES = {"primary": "127.0.0.1", "standby": "127.0.0.2"}
_ROLES = ("primary", "standby")
_ROLE = "failover-stories"
RESOURCES = (
    "arn:aws:route53:::hostedzone/*,"
    "arn:aws:route53-recovery-control::{account}:controlpanel/*,"
    "arn:aws:s3:::failover-*"
)

type Json = dict[str, Any]


@dataclass
class Service(Target):
    """One service."""

    KIND: ClassVar[str] = "service"
    GIVEN: ClassVar[Mapping[str, Any]] = {
        "settings": {"FailoverResources": RESOURCES},
        "metrics": "sick",
        "service": {
            "levers": ["records"],
            "primary": "sick",
            "standby": "well",
            "opted_in": True,
            "unattended": False,
            "swapped": False,
            "capacity": 0,
            "percents": [],
            "requests": False,
            "reserved": None,
            "well_for": None,
            "soak": 30,
            "approvers": [],
            "lag": None,
        },
    }
    ALARM: ClassVar[str] = "sick"
    THRESHOLD: ClassVar[float] = 1
    HERE: ClassVar[str] = "standby"
    """The role of the world's Region."""
    SERVES: ClassVar[str] = "primary"
    """The role that has traffic and consumers."""

    zone: str = ""
    checks: dict[str, str] = field(default_factory=dict)
    file: Json = field(default_factory=dict)
    mappings: dict[str, str] = field(default_factory=dict)
    health: dict[str, str] = field(default_factory=dict)
    servers: list[http.server.ThreadingHTTPServer] = field(default_factory=list)

    @classmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create a zone, web servers, health checks, consumers and the service's file."""
        wanted = given["service"]
        world.aws.set_dns_change_seconds(0)
        made = cls(world, name, "")
        made.health = {role: wanted[role] for role in _ROLES}
        port = made._serve()
        made.checks = {role: two_regions.health_check(world.aws) for role in _ROLES}
        for role in _ROLES:
            made.change(role, wanted[role])
        made._make_consumers(opted_in=wanted["opted_in"])
        controls = made._controls() if "control" in wanted["levers"] else None
        made._make_records(controls, signal="signal" in wanted["levers"])
        made._seed(wanted)
        made._write_file(wanted, controls, port)
        return made

    def _controls(self) -> Json:
        made = two_regions.controls(self.world.aws, self.name)
        if self.SERVES == "standby":
            region, endpoint = next(iter(made["endpoints"].items()))
            cluster = self.world.aws.session().client(
                "route53-recovery-cluster", region_name=region, endpoint_url=endpoint
            )
            cluster.update_routing_control_states(
                UpdateRoutingControlStateEntries=[
                    {"RoutingControlArn": made["standby"], "RoutingControlState": "On"},
                    {"RoutingControlArn": made["primary"], "RoutingControlState": "Off"},
                ]
            )
        return made

    def _seed(self, wanted: Mapping[str, Any]) -> None:
        """Let metrics of us-east-1 say since when the primary is well and how far a copy lags."""
        now = int(time.time())
        if wanted["well_for"] is not None:
            check = {"HealthCheckId": self.checks["primary"]}
            moments = range(now - wanted["well_for"], now + 90)
            self._put("AWS/Route53", "HealthCheckStatus", check, dict.fromkeys(moments, 1.0))
        if wanted["lag"] is not None:
            self._make_table()
            copy = {"TableName": self.name, "ReceivingRegion": REGION}
            lag = dict.fromkeys(range(now - 70, now + 90), 1000.0 * wanted["lag"])
            self._put("AWS/DynamoDB", "ReplicationLatency", copy, lag)

    def _put(
        self, namespace: str, name: str, dimensions: Json, points: Mapping[int, float]
    ) -> None:
        values = [(float(at), value) for at, value in points.items()]
        put_metric_history(self.world.aws.account, OTHER, namespace, name, dimensions, values)

    def _make_table(self) -> None:
        dynamodb = self._client("dynamodb", OTHER)
        dynamodb.create_table(
            TableName=self.name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        dynamodb.update_table(
            TableName=self.name, ReplicaUpdates=[{"Create": {"RegionName": REGION}}]
        )

    def _client(self, service: str, region: str = REGION) -> Any:
        return two_regions.client(self.world.aws, service, region)

    def _serve(self) -> int:
        """Serve the health of both Regions on one port; return it."""
        port = 0
        for role in _ROLES:
            server = http.server.ThreadingHTTPServer(
                (_ADDRESSES[role], port), _handler(self.health, role)
            )
            port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers.append(server)
        return port

    def _make_consumers(self, *, opted_in: bool) -> None:
        iam = self.world.client("iam")
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=_ROLE, AssumeRolePolicyDocument=two_regions.TRUST)
        for role, region in self._regions.items():
            self.mappings[role] = two_regions.consumer(
                self.world.aws, region, enabled=role == self.SERVES, name=self.name, role=_ROLE
            )
        if not opted_in:
            self.untag("consumer")

    @property
    def _regions(self) -> dict[str, str]:
        return {role: REGION if role == self.HERE else OTHER for role in _ROLES}

    @property
    def record(self) -> str:
        """The name that clients resolve."""
        return f"www.{self.name}.example.com"

    def _signal_check(self) -> str:
        """Make a health check that follows an alarm on a metric that only the runbook puts."""
        self._client("cloudwatch").put_metric_alarm(
            AlarmName=f"{self.name}-away",
            Namespace="Failover",
            MetricName=self.name,
            Statistic="Maximum",
            Period=1,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="ignore",
        )
        self._client("cloudwatch").set_alarm_state(
            AlarmName=f"{self.name}-away", StateValue="OK", StateReason="the story begins"
        )
        return two_regions.health_check(
            self.world.aws,
            Type="CLOUDWATCH_METRIC",
            AlarmIdentifier={"Region": REGION, "Name": f"{self.name}-away"},
            InsufficientDataHealthStatus="LastKnownStatus",
        )

    def _make_records(self, controls: Mapping[str, Any] | None, *, signal: bool) -> None:
        route53 = self._client("route53")
        made = route53.create_hosted_zone(
            Name=f"{self.name}.example.com", CallerReference=str(uuid.uuid4())
        )
        self.zone = made["HostedZone"]["Id"].rpartition("/")[2]
        self.arn = f"arn:aws:route53:::hostedzone/{self.zone}/{self.record}"
        for role in _ROLES:
            check = {}
            if signal and role == "primary":
                check["HealthCheckId"] = self._signal_check()
                self.checks["signal"] = check["HealthCheckId"]
            if controls is not None:
                check["HealthCheckId"] = two_regions.health_check(
                    self.world.aws, Type="RECOVERY_CONTROL", RoutingControlArn=controls[role]
                )
            # A routing control sends traffic away whatever the weights at home are.
            gets = "primary" if controls is not None else self.SERVES
            self._put_set(role, 100 if role == gets else 0, check)

    def _put_set(self, role: str, weight: int, more: Mapping[str, str]) -> None:
        one = {
            "Name": self.record,
            "Type": "A",
            "SetIdentifier": role,
            "Weight": weight,
            "TTL": 1,
            "ResourceRecords": [{"Value": _ADDRESSES[role]}],
            **more,
        }
        self._client("route53").change_resource_record_sets(
            HostedZoneId=self.zone,
            ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": one}]},
        )

    def _levers(self, wanted: Mapping[str, Any], controls: Mapping[str, Any] | None) -> Json:
        levers: Json = {}
        if controls is not None:
            levers["routing_control"] = dict(controls)
        if "signal" in wanted["levers"]:
            levers["health_check"] = {
                "id": self.checks["signal"],
                "signal_region": REGION,
                "seconds": 30,
                "alarm": {
                    "name": f"{self.name}-away",
                    "namespace": "Failover",
                    "metric": self.name,
                    "away_value": 1,
                    "home_value": 0,
                },
            }
        if "records" in wanted["levers"]:
            levers["records"] = {"policy": "weighted", "primary": "primary", "standby": "standby"}
        return levers

    def _write_file(
        self, wanted: Mapping[str, Any], controls: Mapping[str, Any] | None, port: int
    ) -> None:
        regions = self._regions
        if wanted["swapped"]:
            regions[self.HERE] = "us-west-2"
        self.file = {
            "name": self.name,
            "owner": "shop-team",
            "record": {"name": self.record, "type": "A", "ttl_seconds": 1},
            "zone": {"name": f"{self.name}.example.com", "id": self.zone},
            "regions": regions,
            "levers": self._levers(wanted, controls),
            "health_checks": {role: [self.checks[role]] for role in _ROLES},
            "probes": {
                **{r: {"url": f"http://{_ADDRESSES[r]}:{port}/health"} for r in _ROLES},
                "public": {"url": f"http://{self.record}:{port}/health"},
            },
            "targets": {"rto_seconds": 600, "rpo_seconds": 30},
            "unattended": wanted["unattended"],
            "failback": {"soak_seconds": wanted["soak"]},
        }
        if wanted["approvers"]:
            self.file["failback"]["approvers"] = wanted["approvers"]
        if wanted["lag"] is not None:
            table = {"table": self.name, "max_lag_seconds": 5, "max_loss_seconds": 30}
            self.file["data"] = {"dynamodb": [table]}
        if not wanted["swapped"]:
            self.file["consumers"] = {role: [arn] for role, arn in self.mappings.items()}
        function = f"arn:aws:lambda:{REGION}:{self.world.aws.account}:function:{self.name}"
        if wanted["reserved"] is not None:
            parts.reserve(self.world, self.name, 1)
            self.file["capacity"] = {
                "standby": [
                    {
                        "kind": "reserved-concurrency",
                        "resource": function,
                        "at_least": wanted["reserved"],
                    }
                ]
            }
        if wanted["capacity"]:
            self.file["capacity"] = {
                "standby": [
                    {
                        "kind": "provisioned-concurrency",
                        "resource": f"{function}:live",
                        "at_least": wanted["capacity"],
                    }
                ]
            }
        if wanted["requests"]:
            sides = {role: {"Service": f"{self.name}-{role}"} for role in _ROLES}
            self.file["requests"] = {
                "namespace": "Shop",
                "count": "Requests",
                "errors": "Errors",
                **sides,
            }
            for metric, value in (("Requests", 10), ("Errors", 0)):
                self.world.seed(Metric("Shop", sides["standby"], metric), value)
        if wanted["percents"]:
            self.file["shift"] = {
                "percents": wanted["percents"],
                "wait_seconds": 1,
                "on_failover": True,
            }
        servers = self.world.worlds.name_servers(self.world.aws.account)
        service_files.ship(self.world.aws, STACK, self.file, servers)

    def placeholders(self) -> Mapping[str, str]:
        return {"name": self.record, "service": self.name, "mapping": self.mappings["primary"]}

    def settings(self) -> Json:
        found: Json = dict(self.health)
        servers = self.world.worlds.name_servers(self.world.aws.account)
        given = set().union(
            *(one or () for one in name_servers.answers(servers, self.record, "A").values())
        )
        found["answers"] = ",".join(sorted(r for r, a in _ADDRESSES.items() if a in given))
        for role, region in self._regions.items():
            uuid_ = self.mappings[role].rsplit(":", 1)[-1]
            state = self._client("lambda", region).get_event_source_mapping(UUID=uuid_)["State"]
            found[f"{role}_consumer"] = state in {"Enabled", "Enabling"}
        found["reserved"] = parts.reservation(self.world, self.name)
        return found

    def change(self, setting: str, value: Any) -> None:
        if setting == "weights":
            for role in _ROLES:
                self._put_set(role, value[role], {})
            return
        self.health[setting] = value
        self.world.aws.set_health(self.checks[setting], healthy=value == "well")

    def metrics(self) -> Mapping[str, Metric]:
        return {"failing": Metric("Shop", {"Service": self.name}, "Failing")}

    def alarm(self, dimension: str) -> Json:
        return {
            "Namespace": "Shop",
            "MetricName": "Failing",
            "Dimensions": [{"Name": "Service", "Value": dimension}],
            "Statistic": "Maximum",
            "Period": 1,
        }

    @property
    def beside(self) -> str:
        return f"{self.name}-other"

    def untag(self, what: str) -> None:
        del what
        for role, region in self._regions.items():
            self._client("lambda", region).untag_resource(
                Resource=self.mappings[role], TagKeys=["runbook-automation"]
            )

    def untag_once_read(self, what: str, role: str) -> None:
        raise NotImplementedError(f"{what}, {role}: no story takes the opt-in off just then")

    def rest(self) -> None:
        self.world.aws.set_dns_change_seconds(0)
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def forget(self) -> None:
        self._client("cloudwatch").delete_alarms(AlarmNames=[f"{self.name}-away"])
        for role, region in self._regions.items():
            functions = self._client("lambda", region)
            functions.delete_event_source_mapping(UUID=self.mappings[role].rsplit(":", 1)[-1])
            functions.delete_function(FunctionName=self.name)


@dataclass
class Failback(Service):
    """One service that runs in its standby since a failover."""

    GIVEN: ClassVar[Mapping[str, Any]] = {
        **Service.GIVEN,
        "service": {**Service.GIVEN["service"], "primary": "well", "well_for": 70},
    }
    HERE: ClassVar[str] = "primary"
    SERVES: ClassVar[str] = "standby"


def _handler(health: Mapping[str, str], role: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if health[role] == "well" else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
