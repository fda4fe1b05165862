"""A shop in two Regions, with web servers, record sets, and clients that go where DNS tells them.

Each Region has a web server on a loopback address of its own and a consumer of orders. Clients
resolve the shop's name by the zone's name servers, keep the answer for its TTL and call the address
that they got; what they are refused is the metric that the shop's alarm is on, as a canary's would
be.
"""

from __future__ import annotations

import http.client
import http.server
import io
import json
import random
import threading
import time
import uuid
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import dns.exception
import dns.nameserver
import dns.resolver

from local.service_files import ship
from oncall import name_servers
from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from local.aws import AwsAccount

NAME = "bookshop"
RECORD = "www.bookshop.example.com"
ALARM = "bookshop-failing"
PRIMARY = "us-east-1"
ADDRESSES: Mapping[str, str] = {"primary": "127.0.0.1", "standby": "127.0.0.2"}
LAST_SECONDS = 3.0
"""How long before they stopped the clients' last calls are."""

_ZONE = "bookshop.example.com"
_METRICS = "Bookshop"
_TTL_SECONDS = 1
_WEIGHTS = {"primary": 100, "standby": 0}
_CALLERS = 5
_CALL_SECONDS = 2.0
_TAGS = {"runbook-automation": "enabled"}
_ROLE = "bookshop-consumer"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
_CONSUME = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
            "Resource": "arn:aws:sqs:*:*:bookshop-orders",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client: when (monotonic seconds), whom it reached (``""``: nobody), and how.

    ``status`` is HTTP's, 0 without an answer.
    """

    at: float
    region: str
    status: int

    @property
    def well(self) -> bool:
        """Whether the client got what it came for."""
        return self.status == http.HTTPStatus.OK


def shares(calls: Iterable[Call]) -> str:
    """Say who answered calls and how many failed: ``"us-east-1 90%, failed 10%"``."""
    made = list(calls)
    served = Counter(call.region for call in made if call.well)
    parts = [f"{region} {round(100 * n / len(made))}%" for region, n in sorted(served.items())]
    failed = sum(not call.well for call in made)
    if failed:
        parts.append(f"failed {round(100 * failed / len(made))}%")
    return ", ".join(parts) or "no call"


def told(answers: Mapping[str, frozenset[str] | None], regions: Mapping[str, str]) -> str:
    """Say what name servers answer: ``"4 of 4 say us-east-1"``; ``regions`` go by address."""
    counted: Counter[str] = Counter()
    for given in answers.values():
        if given:
            counted["+".join(sorted(regions.get(one, one) for one in given))] += 1
        else:
            counted["nothing"] += 1
    return ", ".join(f"{n} of {len(answers)} say {what}" for what, n in sorted(counted.items()))


def astray(
    answers: Mapping[str, frozenset[str] | None], calls: Sequence[Call], address: str, region: str
) -> list[str]:
    """Say which name servers do not give the address, and which last calls went wrong or elsewhere.

    ``calls`` are all there were, oldest first; the last are those of ``LAST_SECONDS``.
    """
    said = [
        f"{name} answers {', '.join(sorted(given or ())) or 'nothing'} and not {address}"
        for name, given in answers.items()
        if given is None or given != {address}
    ]
    last = [call for call in calls if call.at > calls[-1].at - LAST_SECONDS]
    if not last:
        return [*said, "no client has called"]
    wrong = sum(not (call.well and call.region == region) for call in last)
    if wrong:
        said.append(f"{wrong} of the last {len(last)} calls were not answered in {region}")
    return said


class Shop:
    """The shop; ``with Shop(account, stack, servers) as shop: ...``.

    ``account`` is in the standby's Region, ``stack`` the runbooks' there, and ``servers`` are host
    and port of the zone's name servers by name. Raises ``BadInput`` where a web server cannot
    listen.
    """

    def __init__(
        self, account: AwsAccount, stack: str, servers: Mapping[str, tuple[str, int]]
    ) -> None:
        self._account = account
        self._stack = stack
        self._servers = servers
        self._web: list[http.server.ThreadingHTTPServer] = []
        self.regions = {"primary": PRIMARY, "standby": account.region}
        self.broken: set[str] = set()
        """Roles whose web server answers 503."""
        self.calls: list[Call] = []
        """What clients have called, oldest first."""

    def __enter__(self) -> Self:
        """Make everything in both Regions, traffic at home, and make the runbook know it."""
        self.port = self._serve()
        self.mappings = {role: self._consumer(role) for role in ADDRESSES}
        checks = {role: self._check(role) for role in ADDRESSES}
        self.zone = self._records()
        ship(self._account, self._stack, self._file(checks), self._servers)
        self._alarm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the web servers."""
        for server in self._web:
            server.shutdown()
            server.server_close()

    def answers(self) -> dict[str, frozenset[str] | None]:
        """Ask every name server of the zone for the shop's addresses."""
        return name_servers.answers(self._servers, RECORD, "A")

    def consumers(self) -> dict[str, str]:
        """Return the state of each Region's consumer, as Lambda calls it."""
        return {
            self.regions[role]: str(
                self._client("lambda", role).get_event_source_mapping(UUID=mapping)["State"]
            )
            for role, mapping in self.mappings.items()
        }

    def region_of(self) -> dict[str, str]:
        """Return the Region that each address is in."""
        return {address: self.regions[role] for role, address in ADDRESSES.items()}

    def _client(self, service: str, role: str) -> Any:
        account = self._account.for_account(self._account.account, self.regions[role])
        return account.client(service)  # type: ignore[call-overload]  # any service

    def _serve(self) -> int:
        """Start both web servers on one port; return it."""
        port = 0
        for role, address in ADDRESSES.items():
            handler = _handler(self.broken, role, self.regions[role])
            try:
                server = http.server.ThreadingHTTPServer((address, port), handler)
            except OSError as error:
                raise BadInput(
                    f"{address}: the {role}'s web server cannot listen there ({error}). On macOS "
                    f"give the loopback that address: sudo ifconfig lo0 alias {address}."
                ) from error
            port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._web.append(server)
        return port

    def _consumer(self, role: str) -> str:
        """Make a queue with a function that consumes it, on at home only; return the mapping."""
        iam = self._account.client("iam")
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=_ROLE, AssumeRolePolicyDocument=json.dumps(_TRUST))
        iam.put_role_policy(
            RoleName=_ROLE, PolicyName="consume", PolicyDocument=json.dumps(_CONSUME)
        )
        functions, queues = self._client("lambda", role), self._client("sqs", role)
        functions.create_function(
            FunctionName=NAME,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{self._account.account}:role/{_ROLE}",
            Handler="app.handler",
            Code={"ZipFile": _consumer_code()},
            Tags=_TAGS,
        )
        url = queues.create_queue(QueueName=f"{NAME}-orders")["QueueUrl"]
        queue = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        made = functions.create_event_source_mapping(
            EventSourceArn=queue["Attributes"]["QueueArn"],
            FunctionName=NAME,
            Enabled=role == "primary",
            Tags=_TAGS,
        )
        return str(made["UUID"])

    def _check(self, role: str) -> str:
        made = self._account.client("route53").create_health_check(
            CallerReference=str(uuid.uuid4()),
            HealthCheckConfig={
                "Type": "HTTP",
                "IPAddress": ADDRESSES[role],
                "Port": self.port,
                "ResourcePath": "/health",
                "RequestInterval": 10,
                "FailureThreshold": 3,
            },
        )
        return str(made["HealthCheck"]["Id"])

    def _records(self) -> str:
        """Make the zone and a weighted record set for each Region; return the zone's id."""
        route53 = self._account.client("route53")
        made = route53.create_hosted_zone(Name=_ZONE, CallerReference=str(uuid.uuid4()))
        zone = made["HostedZone"]["Id"].rpartition("/")[2]
        for role, address in ADDRESSES.items():
            route53.change_resource_record_sets(
                HostedZoneId=zone,
                ChangeBatch={
                    "Changes": [
                        {
                            "Action": "CREATE",
                            "ResourceRecordSet": {
                                "Name": RECORD,
                                "Type": "A",
                                "SetIdentifier": f"{NAME}-{self.regions[role]}",
                                "Weight": _WEIGHTS[role],
                                "TTL": _TTL_SECONDS,
                                "ResourceRecords": [{"Value": address}],
                            },
                        }
                    ]
                },
            )
        return zone

    def _file(self, checks: Mapping[str, str]) -> dict[str, Any]:
        """Return the shop's service file; its owner lets the runbook act alone."""
        roles = tuple(ADDRESSES)
        sets = {role: f"{NAME}-{self.regions[role]}" for role in roles}
        arn = f"{self._account.account}:event-source-mapping"
        return {
            "name": NAME,
            "owner": "bookshop-team",
            "record": {"name": RECORD, "type": "A", "ttl_seconds": _TTL_SECONDS},
            "zone": {"name": _ZONE, "id": self.zone},
            "regions": dict(self.regions),
            "levers": {"records": {"policy": "weighted", **sets, "weights": _WEIGHTS}},
            "health_checks": {role: [checks[role]] for role in roles},
            "consumers": {
                role: [f"arn:aws:lambda:{self.regions[role]}:{arn}:{self.mappings[role]}"]
                for role in roles
            },
            "requests": {
                "namespace": _METRICS,
                "count": "Requests",
                "errors": "Errors",
                **{role: {"Region": region} for role, region in self.regions.items()},
            },
            "probes": {
                **{r: {"url": f"http://{ADDRESSES[r]}:{self.port}/health"} for r in roles},
                "public": {"url": f"http://{RECORD}:{self.port}/health"},
            },
            "targets": {"rto_seconds": 600, "rpo_seconds": 30},
            "unattended": True,
        }

    def _alarm(self) -> None:
        """Put the alarm on what clients are refused; its tags let the runbook go alone."""
        self._account.client("cloudwatch").put_metric_alarm(
            AlarmName=ALARM,
            AlarmDescription="Clients of the bookshop are refused.",
            Namespace=_METRICS,
            MetricName="Failed",
            Statistic="Sum",
            Period=1,
            # Longer than the health checkers take to call a Region sick.
            EvaluationPeriods=8,
            DatapointsToAlarm=6,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="notBreaching",
            Tags=[
                {"Key": "runbook", "Value": "route53-failover"},
                {"Key": "runbook:target", "Value": RECORD},
            ],
        )

    def publish(self, calls: Sequence[Call]) -> None:
        """Publish how many calls have failed, and in each Region what it got and did not answer."""
        failed = sum(not call.well for call in calls)
        self._account.client("cloudwatch").put_metric_data(
            Namespace=_METRICS, MetricData=[{"MetricName": "Failed", "Value": failed}]
        )
        for role, region in self.regions.items():
            here = [call for call in calls if call.region == region]
            counted = {"Requests": len(here), "Errors": sum(not call.well for call in here)}
            where = [{"Name": "Region", "Value": region}]
            self._client("cloudwatch", role).put_metric_data(
                Namespace=_METRICS,
                MetricData=[
                    {"MetricName": name, "Value": value, "Dimensions": where}
                    for name, value in counted.items()
                ],
            )

    def resolver(self) -> dns.resolver.Resolver:
        """Return a resolver that asks the zone's name servers and keeps answers for their TTL."""
        made = dns.resolver.Resolver(configure=False)
        made.nameservers = [
            dns.nameserver.Do53Nameserver(host, port) for host, port in self._servers.values()
        ]
        made.rotate = True
        made.cache = dns.resolver.Cache()
        made.lifetime = _CALL_SECONDS
        return made


class Clients:
    """The shop's clients; `stop` ends their calls."""

    taken: Sequence[str] = ()
    """No orders: what matters of a call is who answered it."""

    def __init__(self, shop: Shop, stop: threading.Event) -> None:
        self._shop = shop
        self._stop = stop

    def steady(self, rate: float, seconds: float) -> None:
        """Call at so many calls a second, until stopped or for so many seconds."""
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(max_workers=_CALLERS + 1) as pool:
            running = [pool.submit(self._publish, until)]
            running += [pool.submit(self._call, _CALLERS / rate, until) for _ in range(_CALLERS)]
        for one in running:
            one.result()

    def break_primary(self) -> None:
        """Let the primary's web server answer 503 from now on."""
        self._shop.broken.add("primary")

    def _call(self, pause: float, until: float) -> None:
        resolver = self._shop.resolver()
        while not self._stop.wait(pause * random.uniform(0.8, 1.2)) and time.monotonic() < until:  # noqa: S311 -- no secret
            region, status = _get(resolver, self._shop.port)
            self._shop.calls.append(Call(time.monotonic(), region, status))

    def _publish(self, until: float) -> None:
        seen = 0
        # Twice in the alarm's period, so that none is without a datapoint.
        while not self._stop.wait(0.4) and time.monotonic() < until:
            calls = self._shop.calls[seen:]
            seen += len(calls)
            self._shop.publish(calls)


def _get(resolver: dns.resolver.Resolver, port: int) -> tuple[str, int]:
    """Resolve the shop's name and call it; return who answered and HTTP's status."""
    try:
        address = next(iter(resolver.resolve(RECORD, "A"))).to_text()
        connection = http.client.HTTPConnection(address, port, timeout=_CALL_SECONDS)
        try:
            connection.request("GET", "/", headers={"Host": RECORD})
            answer = connection.getresponse()
            return answer.read().decode(), answer.status
        finally:
            connection.close()
    except (dns.exception.DNSException, OSError, http.client.HTTPException):
        return "", 0  # a client that gets no answer is a call that failed


def _handler(broken: set[str], role: str, region: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if role in broken else 200)
            self.end_headers()
            self.wfile.write(region.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _consumer_code() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("app.py", "def handler(event, context):\n    return {}\n")
    return held.getvalue()
