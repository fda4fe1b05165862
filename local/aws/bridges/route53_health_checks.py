"""Gaps of health checks: no status, no version conflict, booleans that read as false.

AWS: GetHealthCheckStatus reports each checker, but not for calculated checks
(https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetHealthCheckStatus.html);
UpdateHealthCheck with an old HealthCheckVersion is a HealthCheckVersionMismatch
(https://docs.aws.amazon.com/Route53/latest/APIReference/API_UpdateHealthCheck.html), ResetElements
clears; CreateHealthCheck fills in defaults and with a known CallerReference is refused when the
settings differ (https://docs.aws.amazon.com/Route53/latest/APIReference/API_CreateHealthCheck.html).
MiniStack writes `True` where XML has `true`, so that clients read Inverted and Disabled as false,
and loses the names of Regions and child checks.
A check of an alarm or a routing control has one observation without an address.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import re
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from ministack.services import route53

from local.aws.bridges.bridge import Bridge
from local.aws.route53 import answers, checkers, zones
from local.aws.route53.name_server import pick

BRIDGE = Bridge("route53_health_checks")
_CONFLICT = 409
_STATUS = re.compile(r"^/2013-04-01/healthcheck/([^/]+)/status$")
_RESETTABLE = ("ChildHealthChecks", "FullyQualifiedDomainName", "Regions", "ResourcePath")
# Documentation addresses (RFC 5737) stand for the checkers' own.
_ADDRESSES = {region: f"192.0.2.{place + 1}" for place, region in enumerate(checkers.REGIONS)}


@BRIDGE.replace(route53, "handle_request")
async def handle_request(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
    """Serve the operations that MiniStack lacks, and leave it the others."""
    if method == "GET" and (found := _STATUS.match(path)):
        return _get_status(found[1])
    if method == "GET" and path == "/2013-04-01/testdnsanswer":
        return _test_dns_answer(query)
    return await _handle(method, path, headers, body, query)


def _get_status(check_id: str) -> Any:
    check = route53._health_checks.get(check_id)
    if check is None:
        return _no_such_check(check_id)
    config = check["config"]
    if config["Type"] == "CALCULATED":
        return route53._error_response(
            "InvalidInput", "The status of a calculated health check is not available by this call."
        )
    found = checkers.observations(check_id, config)
    if config["Type"] not in checkers.ENDPOINT_TYPES:
        healthy = checkers.is_healthy(check_id)
        status = "Success: The check is healthy" if healthy else "Failure: The check is unhealthy"
        found = {"us-east-1": checkers.Observation(healthy, status, datetime.now(UTC).timestamp())}

    def build(root: Element) -> None:
        listed = SubElement(root, "HealthCheckObservations")
        for region, seen in found.items():
            one = SubElement(listed, "HealthCheckObservation")
            SubElement(one, "Region").text = region
            if config["Type"] in checkers.ENDPOINT_TYPES:
                SubElement(one, "IPAddress").text = _ADDRESSES[region]
            report = SubElement(one, "StatusReport")
            SubElement(report, "Status").text = seen.status
            moment = datetime.fromtimestamp(seen.at, UTC)
            SubElement(report, "CheckedTime").text = f"{moment:%Y-%m-%dT%H:%M:%S}Z"

    return route53._xml_response("GetHealthCheckStatusResponse", build)


def _test_dns_answer(query: dict[str, Any]) -> Any:
    """Answer TestDNSAnswer by the name servers' own logic.

    https://docs.aws.amazon.com/Route53/latest/APIReference/API_TestDNSAnswer.html
    """
    asked = {name: value[0] if isinstance(value, list) else value for name, value in query.items()}
    zone_id = str(asked.get("hostedzoneid", "")).rpartition("/")[2]
    name, kind = route53._normalise_name(asked.get("recordname", "")), asked.get("recordtype", "")
    zone = route53._zones.get(zone_id)
    if zone is None:
        return route53._error_response(
            "NoSuchHostedZone", f"No hosted zone found with ID: {zone_id}", 404
        )
    if zone.get("private") or not name or not kind:
        return route53._error_response(
            "InvalidInput", "TestDNSAnswer needs a public zone, recordname and recordtype."
        )
    served = answers.Zone(zone["name"], zone_id, zones.records(zone_id))
    found = answers.answer(served, name, kind, checkers.is_healthy, pick)

    def build(root: Element) -> None:
        SubElement(root, "Nameserver").text = route53._DEFAULT_NS[0].rstrip(".")
        SubElement(root, "RecordName").text = name.rstrip(".")
        SubElement(root, "RecordType").text = kind
        data = SubElement(root, "RecordData")
        for records in found.records:
            for value in records.values if records.type == kind else ():
                SubElement(data, "RecordDataEntry").text = value
        SubElement(root, "ResponseCode").text = found.code
        SubElement(root, "Protocol").text = "UDP"

    return route53._xml_response("TestDNSAnswerResponse", build)


@BRIDGE.replace(route53, "_build_health_check_el")
def _build_health_check_el(parent: Element, check: dict[str, Any]) -> None:
    config = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in check["config"].items()
    }
    _build(parent, {**check, "config": config})


@BRIDGE.replace(route53, "_create_health_check")
def _create_health_check(body: bytes) -> Any:
    root = route53._parse_body(body)
    config = route53._find(root, "HealthCheckConfig") if root is not None else None
    if root is None or config is None:
        return _create(body)
    wanted = complete(route53._parse_health_check_config(config))
    known = route53._hc_caller_refs.get(route53._text(root, "CallerReference"))
    if known and route53._health_checks[known]["config"] != wanted:
        return route53._error_response(
            "HealthCheckAlreadyExists",
            "The health check that you're attempting to create already exists with other settings.",
            _CONFLICT,
        )
    answer = _create(body)
    if made := route53._hc_caller_refs.get(route53._text(root, "CallerReference")):
        route53._health_checks[made]["config"] = wanted
        build = route53._build_health_check_el
        answer = route53._xml_response(
            "CreateHealthCheckResponse",
            lambda element: build(element, route53._health_checks[made]),
            201,
        )
    return answer


@BRIDGE.replace(route53, "_parse_health_check_config")
def _parse_health_check_config(element: Element) -> dict[str, Any]:
    config: dict[str, Any] = _parse(element)
    for name in ("ChildHealthChecks", "Regions"):
        if (listed := route53._find(element, name)) is not None:
            config[name] = [one.text or "" for one in listed]
    return config


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Return a HealthCheckConfig with the defaults of its type."""
    defaults: dict[str, Any] = {"Inverted": False, "Disabled": False}
    kind = config.get("Type")
    if kind in checkers.ENDPOINT_TYPES:
        port = 443 if str(kind).startswith("HTTPS") else 80
        defaults |= {"RequestInterval": 30, "FailureThreshold": 3, "MeasureLatency": False}
        defaults |= {} if kind == "TCP" else {"Port": port}
    if kind == "CALCULATED":
        defaults |= {"HealthThreshold": 0, "ChildHealthChecks": []}
    if kind == "CLOUDWATCH_METRIC":
        defaults |= {"InsufficientDataHealthStatus": "LastKnownStatus"}
    return defaults | config


@BRIDGE.replace(route53, "_update_health_check")
def _update_health_check(check_id: str, body: bytes) -> Any:
    root, check = route53._parse_body(body), route53._health_checks.get(check_id)
    if root is None or check is None:
        return _update(check_id, body)
    version = route53._text(root, "HealthCheckVersion")
    if version and int(version) != check["version"]:
        return route53._error_response(
            "HealthCheckVersionMismatch",
            f"The health check has version {check['version']}, not {version}.",
            _CONFLICT,
        )
    if (reset := route53._find(root, "ResetElements")) is not None:
        for element in reset:
            if element.text in _RESETTABLE:
                check["config"].pop(element.text, None)
    return _update(check_id, body)


@BRIDGE.replace(route53, "_delete_health_check")
def _delete_health_check(check_id: str) -> Any:
    checkers.forget(check_id)
    return _delete(check_id)


def _no_such_check(check_id: str) -> Any:
    return route53._error_response(
        "NoSuchHealthCheck", f"No health check exists with the specified ID {check_id}.", 404
    )


_handle = BRIDGE.original(route53, "handle_request")
_parse = BRIDGE.original(route53, "_parse_health_check_config")
_build = BRIDGE.original(route53, "_build_health_check_el")
_create = BRIDGE.original(route53, "_create_health_check")
_update = BRIDGE.original(route53, "_update_health_check")
_delete = BRIDGE.original(route53, "_delete_health_check")
