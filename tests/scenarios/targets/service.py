"""A service in two Regions: real record sets that name servers answer, and two real web servers.

The primary is 127.0.0.1, the standby 127.0.0.2. The world's Region is where traffic goes to: the
standby's before a failover, the primary's before a failback; us-east-1 is the other one.
"""

import http.server
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
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
from tests.scenarios.world import Metric, World, eventually

OTHER = "us-east-1"
_ADDRESSES = {"primary": "127.0.0.1", "standby": "127.0.0.2"}
_ROLES = ("primary", "standby")
_ROLE = "failover-stories"
RESOURCES = (
    "arn:aws:route53:::hostedzone/*,"
    "arn:aws:route53-recovery-control::{account}:controlpanel/*,"
    "arn:aws:s3:::failover-*,"
    "arn:aws:rds::{account}:global-cluster:*,"
    "arn:aws:rds:*:{account}:cluster:*"
)
_ENGINE = {"Engine": "aurora-mysql", "EngineVersion": "8.0.mysql_aurora.3.08.0"}
_ASKED_OFTEN = 20
_AWAY = "failed-over"
"""Key of the object that a health check watches."""

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
            "game_day": False,
            "swapped": False,
            "capacity": 0,
            "percents": [],
            "watch": 1,
            "requests": False,
            "reserved": None,
            "well_for": None,
            "soak": 30,
            "approvers": [],
            "lag": None,
            "aurora": None,
            "ecs": None,
            "home": None,
            "breaks": {},
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
    clusters: dict[str, str] = field(default_factory=dict)
    """ARN of Aurora's clusters by role."""
    has_ecs: bool = False
    home: dict[str, int] = field(default_factory=dict)
    """Weights at home by role, where the standby has one as well."""
    bucket: str = ""
    """Where the object is that a health check watches."""
    over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create a zone, web servers, health checks, consumers and the service's file."""
        wanted = given["service"]
        world.aws.set_dns_change_seconds(0)
        made = cls(world, name, "")
        made.health = {role: wanted[role] for role in _ROLES}
        made.home = wanted["home"] or {}
        port = made._serve()
        made.checks = {role: two_regions.health_check(world.aws) for role in _ROLES}
        for role in _ROLES:
            made.change(role, wanted[role])
        made._make_consumers(opted_in=wanted["opted_in"])
        controls = made._controls() if "control" in wanted["levers"] else None
        made._make_records(controls, wanted["levers"])
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
        if wanted["aurora"] is not None:
            self._make_database()
            lag = dict.fromkeys(range(now - 70, now + 90), 1000.0 * wanted["aurora"])
            copy = {"DBClusterIdentifier": self.name}
            self._put("AWS/RDS", "AuroraGlobalDBReplicationLag", copy, lag, REGION)
        self.has_ecs = wanted["ecs"] is not None
        if self.has_ecs:
            self._make_ecs_service()

    def _put(
        self,
        namespace: str,
        name: str,
        dimensions: Json,
        points: Mapping[int, float],
        region: str = OTHER,
    ) -> None:
        values = [(float(at), value) for at, value in points.items()]
        put_metric_history(self.world.aws.account, region, namespace, name, dimensions, values)

    def _make_database(self) -> None:
        """Make a global cluster that is written where traffic is."""
        login = {"MasterUsername": "root", "MasterUserPassword": "local-dummy"}
        reads = next(role for role in _ROLES if role != self.SERVES)
        writes_in = self._places[self.SERVES]
        self._client("rds", writes_in).create_global_cluster(
            GlobalClusterIdentifier=self.name, **_ENGINE
        )
        for role, more in ((self.SERVES, login), (reads, {})):
            made = self._client("rds", self._places[role]).create_db_cluster(
                DBClusterIdentifier=self.name, GlobalClusterIdentifier=self.name, **_ENGINE, **more
            )
            self.clusters[role] = made["DBCluster"]["DBClusterArn"]

    def _make_ecs_service(self) -> None:
        self._client("ecs").create_service(
            cluster=self.name,
            serviceName="web",
            taskDefinition="web:1",
            desiredCount=1,
            tags=[{"key": "runbook-automation", "value": "enabled"}],
        )

    @property
    def ecs_service(self) -> str:
        """The ARN of the standby's service."""
        return f"arn:aws:ecs:{REGION}:{self.world.aws.account}:service/{self.name}/web"

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
        for role, region in self._places.items():
            self.mappings[role] = two_regions.consumer(
                self.world.aws, region, enabled=role == self.SERVES, name=self.name, role=_ROLE
            )
        if not opted_in:
            self.untag("consumer")

    @property
    def _places(self) -> dict[str, str]:
        return {role: REGION if role == self.HERE else OTHER for role in _ROLES}

    @property
    def record(self) -> str:
        """The name that clients resolve."""
        return f"www.{self.name}.example.com"

    def _signal_check(self) -> str:
        """Make a health check that follows an alarm on a metric that only the runbook puts."""
        cloudwatch = self._client("cloudwatch", self._places["standby"])
        cloudwatch.put_metric_alarm(
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
        cloudwatch.set_alarm_state(
            AlarmName=f"{self.name}-away", StateValue="OK", StateReason="the story begins"
        )
        if self.SERVES == "standby":
            cloudwatch.put_metric_data(
                Namespace="Failover", MetricData=[{"MetricName": self.name, "Value": 1}]
            )
        return two_regions.health_check(
            self.world.aws,
            Type="CLOUDWATCH_METRIC",
            AlarmIdentifier={"Region": self._places["standby"], "Name": f"{self.name}-away"},
            InsufficientDataHealthStatus="LastKnownStatus",
        )

    def _object_check(self) -> str:
        """Make an inverted health check on an object that only the runbook writes."""
        self.bucket = f"failover-{self.name}"[:63].rstrip("-")
        region = self._places["standby"]
        s3 = self._client("s3", region)
        # Without a constraint a bucket is in us-east-1, which is none.
        there = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=self.bucket, **({} if region == "us-east-1" else there))
        if self.SERVES == "standby":
            s3.put_object(Bucket=self.bucket, Key=_AWAY)
        check = two_regions.health_check(
            self.world.aws, Type="HTTPS", FullyQualifiedDomainName="object.example.com",
            ResourcePath=f"/{self.bucket}/{_AWAY}", Inverted=True,
        )  # fmt: skip

        def look() -> None:
            """See the object as Route 53's checkers would, which ask for it without signing."""
            listed = s3.list_objects_v2(Bucket=self.bucket, Prefix=_AWAY)
            self.world.aws.set_health(check, healthy=bool(listed["KeyCount"]))

        self._every_moment(look)
        return check

    def _every_moment(self, look: Callable[[], object]) -> None:
        """Look again and again, as health checkers do."""

        def follow() -> None:
            while not self.over.is_set():
                look()
                self.over.wait(0.1)

        threading.Thread(target=follow, daemon=True).start()

    def _make_records(self, controls: Mapping[str, Any] | None, levers: list[str]) -> None:
        route53 = self._client("route53")
        made = route53.create_hosted_zone(
            Name=f"{self.name}.example.com", CallerReference=str(uuid.uuid4())
        )
        self.zone = made["HostedZone"]["Id"].rpartition("/")[2]
        self.arn = f"arn:aws:route53:::hostedzone/{self.zone}/{self.record}"
        checks: dict[str, str] = {}
        if controls is not None:
            checks = {
                role: two_regions.health_check(
                    self.world.aws, Type="RECOVERY_CONTROL", RoutingControlArn=controls[role]
                )
                for role in _ROLES
            }
        elif {"signal", "object"} & set(levers):
            make = self._signal_check if "signal" in levers else self._object_check
            checks["primary"] = self.checks["signal"] = make()
        # What makes the primary's record unhealthy sends traffic away whatever the weights are.
        if "signal" in levers:
            # The check of an alarm's data is what it was when somebody last asked.
            self._every_moment(self._answers)
        gets = "primary" if checks else self.SERVES
        for role in _ROLES:
            more = {"HealthCheckId": checks[role]} if role in checks else {}
            self._put_set(role, 100 if role == gets else 0, more)
        eventually(lambda: self._answers() == self.SERVES, f"clients are sent to {self.SERVES}")

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
        alarm = {
            "name": f"{self.name}-away",
            "namespace": "Failover",
            "metric": self.name,
            "away_value": 1,
            "home_value": 0,
        }
        watched: Json = {
            "signal": {"alarm": alarm},
            "object": {"object": {"bucket": self.bucket, "key": _AWAY, "away_when": "present"}},
        }
        for kind in watched.keys() & set(wanted["levers"]):
            levers["health_check"] = {
                "id": self.checks["signal"],
                "signal_region": self._places["standby"],
                "seconds": 30,
                **watched[kind],
            }
        if "records" in wanted["levers"]:
            levers["records"] = {"policy": "weighted", "primary": "primary", "standby": "standby"}
            if self.home:
                levers["records"]["weights"] = self.home
        return levers

    def _write_file(
        self, wanted: Mapping[str, Any], controls: Mapping[str, Any] | None, port: int
    ) -> None:
        regions = self._places
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
            "game_day": wanted["game_day"],
            "failback": {"soak_seconds": wanted["soak"]},
        }
        if wanted["approvers"]:
            self.file["failback"]["approvers"] = wanted["approvers"]
        self._write_data(wanted)
        if not wanted["swapped"]:
            self.file["consumers"] = {role: [arn] for role, arn in self.mappings.items()}
        if capacity := self._capacity(wanted):
            self.file["capacity"] = {"standby": capacity}
        if wanted["requests"]:
            self._count_requests()
        if wanted["percents"]:
            self.file["shift"] = {
                "percents": wanted["percents"],
                "wait_seconds": wanted["watch"],
                "on_failover": True,
            }
        self.file |= wanted["breaks"]
        servers = self.world.worlds.name_servers(self.world.aws.account)
        service_files.ship(self.world.aws, STACK, self.file, servers)

    def _write_data(self, wanted: Mapping[str, Any]) -> None:
        bounds = {"max_lag_seconds": 5, "max_loss_seconds": 30}
        data: Json = {}
        if wanted["lag"] is not None:
            data["dynamodb"] = [{"table": self.name, **bounds}]
        if self.clusters:
            data["aurora"] = [{"global_cluster": self.name, **self.clusters, **bounds}]
        if data:
            self.file["data"] = data

    def _capacity(self, wanted: Mapping[str, Any]) -> list[Json]:
        """Return what the standby needs, of which it has less."""
        function = f"arn:aws:lambda:{REGION}:{self.world.aws.account}:function:{self.name}"
        if wanted["reserved"] is not None:
            parts.reserve(self.world, self.name, 1)
        needed = (
            ("reserved-concurrency", function, wanted["reserved"]),
            ("provisioned-concurrency", f"{function}:live", wanted["capacity"]),
            ("ecs-desired-count", self.ecs_service, wanted["ecs"]),
        )
        return [
            {"kind": kind, "resource": arn, "at_least": count}
            for kind, arn, count in needed
            if count
        ]

    def _count_requests(self) -> None:
        """Name metrics of both Regions' requests, and let the standby's say that it is well."""
        sides = {role: {"Service": f"{self.name}-{role}"} for role in _ROLES}
        self.file["requests"] = {
            "namespace": "Shop",
            "count": "Requests",
            "errors": "Errors",
            **sides,
        }
        for metric, value in (("Requests", 10), ("Errors", 0)):
            self.world.seed(Metric("Shop", sides["standby"], metric), value)

    def placeholders(self) -> Mapping[str, str]:
        return {"name": self.record, "service": self.name, "mapping": self.mappings["primary"]}

    def settings(self) -> Json:
        found: Json = dict(self.health)
        found["answers"] = self._answers()
        for role, region in self._places.items():
            uuid_ = self.mappings[role].rsplit(":", 1)[-1]
            state = self._client("lambda", region).get_event_source_mapping(UUID=uuid_)["State"]
            found[f"{role}_consumer"] = state in {"Enabled", "Enabling"}
        found["reserved"] = parts.reservation(self.world, self.name)
        found["writer"] = self._writer() if self.clusters else None
        found["tasks"] = self._tasks() if self.has_ecs else None
        return found

    def _answers(self) -> str:
        """Return the roles whose addresses name servers give."""
        servers = self.world.worlds.name_servers(self.world.aws.account)
        # Weights decide each answer, and of many there is one of every Region that has any.
        given: set[str] = set()
        for _ in range(_ASKED_OFTEN if self.home else 1):
            answers = name_servers.answers(servers, self.record, "A")
            given = given.union(*(one or () for one in answers.values()))
        return ",".join(sorted(r for r, a in _ADDRESSES.items() if a in given))

    def _writer(self) -> str:
        found = self._client("rds").describe_global_clusters(GlobalClusterIdentifier=self.name)
        members = found["GlobalClusters"][0]["GlobalClusterMembers"]
        writes = [one["DBClusterArn"] for one in members if one["IsWriter"]]
        return ",".join(role for role, arn in self.clusters.items() if arn in writes)

    def _tasks(self) -> int | None:
        found = self._client("ecs").describe_services(
            cluster=self.name, services=[self.ecs_service]
        )["services"]
        return found[0]["desiredCount"] if found else None

    def change(self, setting: str, value: Any) -> None:
        if setting == "other_run":
            self._run_elsewhere(value)
            return
        if setting == "weights":
            for role in _ROLES:
                self._put_set(role, value[role], {})
            return
        self.health[setting] = value
        self.world.aws.set_health(self.checks[setting], healthy=value == "well")

    def _run_elsewhere(self, runbook: str | None) -> None:
        """Let the other Region's stack run a runbook on the service, or end what it runs."""
        states = self._client("stepfunctions", OTHER)
        if runbook is None:
            for machine in states.list_state_machines()["stateMachines"]:
                arn = machine["stateMachineArn"]
                for one in states.list_executions(stateMachineArn=arn)["executions"]:
                    states.stop_execution(executionArn=one["executionArn"])
                states.delete_state_machine(stateMachineArn=arn)
            return
        waits = {"Type": "Wait", "Seconds": 36_000, "End": True}
        made = states.create_state_machine(
            name=f"{STACK}-{runbook}",
            definition=json.dumps({"StartAt": "Wait", "States": {"Wait": waits}}),
            roleArn=f"arn:aws:iam::{self.world.aws.account}:role/{_ROLE}",
        )
        for about in ({"name": "another"}, {"name": self.name, "mode": "ask"}):
            states.start_execution(stateMachineArn=made["stateMachineArn"], input=json.dumps(about))

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
        for role, region in self._places.items():
            self._client("lambda", region).untag_resource(
                Resource=self.mappings[role], TagKeys=["runbook-automation"]
            )

    def untag_once_read(self, what: str, role: str) -> None:
        raise NotImplementedError(f"{what}, {role}: no story takes the opt-in off just then")

    def rest(self) -> None:
        self.over.set()
        self.world.aws.set_dns_change_seconds(0)
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def forget(self) -> None:
        self._client("cloudwatch", self._places["standby"]).delete_alarms(
            AlarmNames=[f"{self.name}-away"]
        )
        for role, region in self._places.items():
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
