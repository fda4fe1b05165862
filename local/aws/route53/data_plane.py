"""Route 53's data plane as an extension: health checkers that probe, metrics, name servers.

It goes on when calls to the control plane are blocked
(https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/global-services.html).
Metrics: https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/monitoring-cloudwatch.html, in
us-east-1 only. Probes reach loopback addresses (127.0.0.0/8) alone; another target keeps the state
that a test has set.
"""
# ruff: noqa: SLF001 -- works on MiniStack's stores

import http.client
import logging
import re
import socket
import ssl
import threading
import time
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import route53

from local.aws.cloudwatch import store
from local.aws.route53 import checkers
from local.aws.route53.health import Checker
from local.aws.route53.name_server import NameServer

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 2.0
_SEARCHED_BYTES = 5120
_METRICS_REGION = "us-east-1"


class Route53DataPlane:
    """An extension of ``EmbeddedAws``; `interval_seconds` is 10 or 30 on AWS.

    ``EmbeddedAws(extensions=(Route53DataPlane(interval_seconds=0.2),))``
    """

    def __init__(self, interval_seconds: float = 10.0) -> None:
        self.interval_seconds = interval_seconds
        self._name_servers: dict[str, dict[str, NameServer]] = {}
        self._views: dict[tuple[str, str], Checker] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def install(self, _aws: object = None) -> None:
        """Start probing."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="health-checkers", daemon=True)
        self._thread.start()

    def uninstall(self) -> None:
        """Stop probing and close the name servers."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None
        for servers in self._name_servers.values():
            for server in servers.values():
                server.close()
        self._name_servers.clear()
        self._views.clear()

    def name_servers(self, account: str) -> dict[str, NameServer]:
        """Return an account's name servers, started at first use, by their names in NS records.

        Every zone has these four, e.g. `ns-1.awsdns-1.com.`; `address` is a server's host and port.
        """
        if account not in self._name_servers:
            self._name_servers[account] = {
                name: NameServer(account, name) for name in route53._DEFAULT_NS
            }
        return self._name_servers[account]

    def probe(self) -> None:
        """Probe every endpoint once, as each of its Regions' checkers, and publish the metrics."""
        second = int(time.time())
        for (account, check_id), check in list(route53._health_checks.to_dict().items()):
            config = check["config"]
            is_endpoint = config.get("Type") in checkers.ENDPOINT_TYPES
            if is_endpoint and not config.get("Disabled") and _loopback(config):
                success, status = look(config)
                for region in checkers.regions(config):
                    self._note(check_id, region, config, status, success=success)
            with request_scope(account, _METRICS_REGION):
                _publish(check_id, config, second)

    def _note(
        self, check_id: str, region: str, config: dict[str, Any], status: str, *, success: bool
    ) -> None:
        threshold = int(config.get("FailureThreshold", 3))
        view = self._views.setdefault((check_id, region), Checker())
        healthy = view.add(success, threshold)
        checkers.observe(check_id, region, checkers.Observation(healthy, status, time.time()))

    def _run(self) -> None:
        while not self._stopping.wait(self.interval_seconds):
            try:
                self.probe()
            except Exception:
                # One failed round must not end all later ones.
                logger.exception("The health checkers missed a round")


def _loopback(config: dict[str, Any]) -> str:
    """Return the address of this machine that an endpoint is at; ``""`` for another's."""
    target = str(config.get("IPAddress") or config.get("FullyQualifiedDomainName"))
    if target == "localhost":
        return "127.0.0.1"
    return target if re.fullmatch(r"127(\.\d+){3}", target) else ""


def look(config: dict[str, Any]) -> tuple[bool, str]:
    """Look at an endpoint of this machine once; return whether it is well, and Route 53's text.

    Healthy is a connection (TCP), or a status of 200 to 399 with the search string in the first
    5,120 bytes; certificates are not checked
    (https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html).
    """
    kind, port = config["Type"], int(config.get("Port", 80))
    try:
        if kind == "TCP":
            socket.create_connection((_loopback(config), port), _PROBE_SECONDS).close()
            return True, "Success: TCP connection"
        status, reason, body = _fetch(kind, port, config)
    except (OSError, http.client.HTTPException) as error:
        return False, f"Failure: {str(error) or type(error).__name__}"
    text = f"HTTP Status Code {status}, {reason}"
    if not 200 <= status < 400:  # noqa: PLR2004 -- HTTP: success and redirection
        return False, f"Failure: {text}"
    if kind.endswith("_STR_MATCH") and config.get("SearchString", "").encode() not in body:
        return False, f"Failure: {text}. The search string was not found in the response body"
    return True, f"Success: {text}"


def _fetch(kind: str, port: int, config: dict[str, Any]) -> tuple[int, str, bytes]:
    connection: http.client.HTTPConnection
    address = _loopback(config)
    if kind.startswith("HTTPS"):
        context = ssl._create_unverified_context()  # noqa: S323 -- as Route 53 does, see above
        connection = http.client.HTTPSConnection(
            address, port, timeout=_PROBE_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(address, port, timeout=_PROBE_SECONDS)
    try:
        host = config.get("FullyQualifiedDomainName") or address
        connection.request("GET", config.get("ResourcePath") or "/", headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.reason, response.read(_SEARCHED_BYTES)
    finally:
        connection.close()


def _publish(check_id: str, config: dict[str, Any], second: int) -> None:
    """Add this second's datapoints; a disabled check has none."""
    if config.get("Disabled"):
        return
    values = {"HealthCheckStatus": float(checkers.is_healthy(check_id))}
    if config.get("Type") in checkers.ENDPOINT_TYPES:
        seen = [one.healthy for one in checkers.observations(check_id, config).values()]
        if seen:
            values["HealthCheckPercentageHealthy"] = 100 * sum(seen) / len(seen)
    if config.get("Type") == "CALCULATED":
        children = [checkers.is_healthy(child) for child in config["ChildHealthChecks"]]
        values["ChildHealthCheckHealthyCount"] = float(sum(children))
    for name, value in values.items():
        store.series("AWS/Route53", name, {"HealthCheckId": check_id}).add(second, value)
