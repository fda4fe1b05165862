"""A service file (``runbooks/services/<name>.yaml``): what a service is in its two Regions.

``primary`` and ``standby`` are roles that the file gives away for good; which of the two serves at
the moment is seen, not written. Every field is described in ``runbooks/service.schema.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from oncall.contract import CONTRACTS
from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jsonschema import ValidationError

SAMPLE = CONTRACTS / "sample"
"""Holds a file with every part that a service may have; it is nobody's, and counts for nothing."""

type Role = Literal["primary", "standby"]
ROLES: tuple[Role, Role] = ("primary", "standby")
WEIGHTED, FAILOVER = "weighted", "failover"
_HEALTH_CHECK_SECONDS = 90
"""Three failures in a row, 30 s apart: Route 53's defaults."""
_LONGEST = 200
_NO_YAML = (yaml.YAMLError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class RoutingControl:
    """ARC routing controls; ``endpoints``: URL of the cluster's endpoint by its Region."""

    endpoints: Mapping[str, str]
    controls: Mapping[Role, str]
    """ARN by role."""


@dataclass(frozen=True, slots=True)
class S3Signal:
    """An S3 object in the standby Region that a health check asks for."""

    bucket: str
    key: str
    away_when: str
    """``present absent``"""


@dataclass(frozen=True, slots=True)
class AlarmSignal:
    """An alarm in the standby Region on a metric of one's own."""

    name: str
    namespace: str
    metric: str
    away_value: float
    home_value: float


@dataclass(frozen=True, slots=True)
class HealthCheckLever:
    """The primary record's health check, which follows a signal in the standby Region."""

    id: str
    seconds: int
    """Until the check has noticed."""
    signal: S3Signal | AlarmSignal


@dataclass(frozen=True, slots=True)
class Records:
    """The record's two sets."""

    policy: str
    """``weighted failover``"""
    sets: Mapping[Role, str]
    """SetIdentifier by role."""
    weights: Mapping[Role, int]
    """At home."""

    @property
    def weighted(self) -> bool:
        """Whether traffic can be moved in steps."""
        return self.policy == WEIGHTED


@dataclass(frozen=True, slots=True)
class Store:
    """A DynamoDB global table or an Aurora global database."""

    kind: str
    """``dynamodb aurora``"""
    name: str
    """The table's name, or the global cluster's identifier."""
    max_lag_seconds: int
    max_loss_seconds: int
    clusters: Mapping[Role, str]
    """ARN of Aurora's cluster by role; empty for a table."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What has to be there before traffic comes."""

    kind: str
    """``reserved-concurrency provisioned-concurrency ecs-desired-count``"""
    resource: str
    at_least: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A URL and the HTTP status that means well."""

    url: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class RequestMetrics:
    """The metrics that count requests, and those that fail."""

    namespace: str
    count: str
    errors: str
    dimensions: Mapping[Role, Mapping[str, str]]
    """By role."""


@dataclass(frozen=True, slots=True)
class Shift:
    """The steps in which traffic moves: shares in percent, rising to 100."""

    percents: tuple[int, ...] = (100,)
    wait_seconds: int = 0
    on_failover: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service as its file says; mappings by role have both roles, unless they say otherwise."""

    name: str
    owner: str
    record: str
    record_type: str
    ttl_seconds: int
    zone: str
    zone_id: str
    regions: Mapping[Role, str]
    probes: Mapping[str, Probe]
    """By role, and ``public``."""
    rto_seconds: int
    rpo_seconds: int
    routing_control: RoutingControl | None
    health_check: HealthCheckLever | None
    records: Records | None
    health_checks: Mapping[Role, tuple[str, ...]]
    consumers: Mapping[Role, tuple[str, ...]]
    """ARNs of event source mappings."""
    capacity: Mapping[Role, tuple[Capacity, ...]]
    stores: tuple[Store, ...]
    shift: Shift
    unattended: bool
    game_day: bool
    soak_seconds: int
    approvers: tuple[str, ...]
    """Of a failback; two of them, or any two of the stack's where there are none."""
    requests: RequestMetrics | None = None


def names(folder: Path = CONTRACTS) -> tuple[str, ...]:
    """Return the services that there are files of."""
    return tuple(sorted(path.stem for path in (folder / "services").glob("*.yaml")))


@cache
def load(name: str, folder: Path = CONTRACTS) -> Service:
    """Read the service ``name``, or the one whose record or primary's health check that is.

    Another service's broken file is in nobody's way. Raises ``BadInput`` with one sentence that
    names the file and the field, what is wrong and an example.
    """
    known = names(folder)
    game_day: Service | None = None
    wrong: list[str] = []
    unreadable: list[str] = []
    for one in (name,) if name in known else known:
        try:
            document = _read(folder / "services" / f"{one}.yaml")
            if name != one and name not in _called(document):
                continue
            service = parse(document, one)
        except BadInput as error:
            # Of what is no YAML nobody can say whose it is.
            whose = name == one or not isinstance(error.__cause__, _NO_YAML)
            (wrong if whose else unreadable).append(f"runbooks/services/{one}.yaml: {error}")
            continue
        if not service.game_day:
            return service
        # A mistake in it must not get in the way of a service in production.
        game_day = game_day or service
    if wrong:
        raise BadInput(wrong[0])
    if game_day is not None:
        _check_apart(game_day, folder)
        return game_day
    if unreadable:
        raise BadInput(
            f"name: {name!r} is in none of the files that can be read. {' '.join(unreadable)}"
        )
    raise BadInput(
        f"name: there is no service {name!r}; there are {', '.join(known) or 'none'}. Give one of "
        f"these, or copy runbooks/sample/services/shop.yaml to runbooks/services/<name>.yaml."
    )


def _check_apart(service: Service, folder: Path) -> None:
    """Check that a game day changes nothing that a service in production has in its file as well.

    Raises ``BadInput``, also where another file cannot be read: what it names may be shared.
    """
    own = changes(service)
    for other in names(folder):
        if other == service.name:
            continue
        try:
            theirs = parse(_read(folder / "services" / f"{other}.yaml"), other)
        except BadInput as error:
            raise BadInput(
                f"game_day: {other}.yaml is not as it has to be, so that I cannot see whether "
                f"{service.name} shares a part with it. {error}"
            ) from error
        shared = sorted(own.keys() & changes(theirs).keys())
        if shared and not theirs.game_day:
            raise BadInput(
                f"{own[shared[0]]}: {shared[0]} is {other}'s as well, and a game day touches no "
                f"service in production. Give one of the game day's own, for example a record like "
                f"gameday.{service.zone}, or leave it out."
            )


def changes(service: Service) -> dict[str, str]:
    """Return the field by what a failover or failback of the service may change."""
    found = {f"{service.record} {service.record_type}": "record.name"}
    if service.routing_control is not None:
        for arn in service.routing_control.controls.values():
            found[arn] = "levers.routing_control"
    if service.health_check is not None:
        signal = service.health_check.signal
        here = (
            f"s3://{signal.bucket}/{signal.key}"
            if isinstance(signal, S3Signal)
            else f"{signal.namespace} {signal.metric}"
        )
        found |= {service.health_check.id: "levers.health_check", here: "levers.health_check"}
    for store in service.stores:
        for part in (store.name, *store.clusters.values()):
            found[part] = f"data.{store.kind}"
    for role in ROLES:
        found |= dict.fromkeys(service.consumers[role], f"consumers.{role}")
        for one in service.capacity[role]:
            found[one.resource] = f"capacity.{role}"
    return found


def _called(document: Any) -> set[str]:
    """Return what else an unchecked file calls its service: its record, its health checks."""
    text = document if isinstance(document, dict) else {}
    record, checks = text.get("record"), text.get("health_checks")
    named = record.get("name") if isinstance(record, dict) else None
    followed = checks.get("primary") if isinstance(checks, dict) else None
    return {str(one) for one in (named, *(followed if isinstance(followed, list) else ())) if one}


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except _NO_YAML as error:
        wrong = " ".join(str(error).split())[:_LONGEST]
        raise BadInput(
            f"it is not YAML: {wrong}. Start from runbooks/sample/services/shop.yaml."
        ) from error


def parse(document: Any, name: str) -> Service:
    """Return the service that ``document`` describes; ``name``: the file's, without .yaml.

    Raises ``BadInput`` with one sentence that names the field, what is wrong and an example.
    """
    schema = json.loads((CONTRACTS / "service.schema.json").read_text(encoding="utf-8"))
    error = best_match(Draft202012Validator(schema).iter_errors(document))
    if error is not None:
        raise BadInput(_sentence(error))
    _check(document, name)
    return _service(document)


def _sentence(error: ValidationError) -> str:
    """Say what is wrong by the schema, with the nearest example that the schema has."""
    path = [str(part) for part in error.absolute_path]
    rules: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    wrong = str(error.message)
    if len(wrong) > _LONGEST:
        wrong = f"{wrong[: _LONGEST // 2]} … {wrong[-_LONGEST // 2 :]}"
    if error.validator == "required":
        needed: Any = error.validator_value
        given: Any = error.instance
        missing = next(one for one in needed if one not in given)
        path, wrong = [*path, str(missing)], "it is missing"
        rules = rules.get("properties", {}).get(missing, {})
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        unknown = next(one for one in error.instance if one not in rules.get("properties", {}))
        path, wrong = [*path, str(unknown)], "there is no such field"
        return f"{'.'.join(path)}: {wrong}. Give {', '.join(rules.get('properties', {}))}."
    examples = rules.get("examples") or _outer_example(error)
    return f"{'.'.join(path) or 'service'}: {wrong}. Give for example {json.dumps(examples[0])}."


def _outer_example(error: ValidationError) -> list[Any]:
    """Return the example of the nearest part around a wrong item that has one."""
    schema = json.loads((CONTRACTS / "service.schema.json").read_text(encoding="utf-8"))
    found, rules = [{"name": "shop"}], schema
    for part in error.absolute_path:
        rules = rules.get("items", {}) if isinstance(part, int) else _property(rules, str(part))
        reference = rules.get("$ref")
        found = rules.get("examples", found)
        if reference:
            rules = {**schema["$defs"][reference.rpartition("/")[2]], **rules}
    return found


def _property(rules: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner: Mapping[str, Any] = rules.get("properties", {}).get(name, {})
    return inner


def _check(text: Mapping[str, Any], name: str) -> None:
    """Check what a schema cannot: that the parts fit each other."""
    regions = text["regions"]
    record, zone = text["record"]["name"], text["zone"]["name"]
    if text["name"] != name:
        raise BadInput(f"name: it is {text['name']}, the file's is {name}. Give {name}.")
    if regions["primary"] == regions["standby"]:
        raise BadInput(
            f"regions.standby: it is {regions['standby']}, the primary. Give another Region, for "
            f"example eu-west-1 beside us-east-1."
        )
    if record != zone and not record.endswith(f".{zone}"):
        raise BadInput(
            f"record.name: {record} does not belong to the zone {zone}. Give for example "
            f"shop.{zone}."
        )
    if record == zone and text["record"]["type"] == "CNAME":
        raise BadInput(f"record.type: {zone} itself cannot be a CNAME. Give A, as an alias.")
    _check_levers(text)
    _check_places(text)
    percents = text.get("shift", {}).get("percents", [100])
    if percents != sorted(set(percents)) or percents[-1] != 100:  # noqa: PLR2004 -- percent
        raise BadInput(
            f"shift.percents: {percents} does not rise to 100. Give for example [10, 50, 100]."
        )
    if "shift" in text and text["levers"].get("records", {}).get("policy") != WEIGHTED:
        raise BadInput(
            "shift: only weighted records move traffic in steps. Give levers.records, for example "
            '{"policy": "weighted", "primary": "shop-us-east-1", "standby": "shop-eu-west-1"}, or '
            "leave shift out."
        )


def _check_levers(text: Mapping[str, Any]) -> None:
    levers, standby = text["levers"], text["regions"]["standby"]
    for lever, what in (("routing_control", "control"), ("records", "set")):
        one = levers.get(lever)
        if one and one["primary"] == one["standby"]:
            example = "one whose ARN ends in another id" if what == "control" else "shop-eu-west-1"
            raise BadInput(
                f"levers.{lever}.standby: it is the primary's {what}, and each Region has its "
                f"own. Give for example {example}."
            )
    if levers.get("records", {}).get("weights") and levers["records"]["policy"] != WEIGHTED:
        raise BadInput(
            "levers.records.weights: failover records have none. Give the policy "
            '"weighted", or leave it out.'
        )
    check = levers.get("health_check")
    if not check:
        return
    if ("object" in check) == ("alarm" in check):
        raise BadInput(
            "levers.health_check: it watches either an object or an alarm. Give for example "
            '"object": {"bucket": "shop-switch-eu-west-1", "key": "failed-over", "away_when": '
            '"present"}.'
        )
    if check["signal_region"] != standby:
        raise BadInput(
            f"levers.health_check.signal_region: {check['signal_region']} is not the standby "
            f"Region, so the signal could not be changed when the primary is lost. Give {standby}."
        )
    if "alarm" in check and check["alarm"]["away_value"] == check["alarm"]["home_value"]:
        raise BadInput(
            "levers.health_check.alarm.away_value: it is the home_value. Give for example 1 "
            "beside a home_value of 0."
        )
    if any(check["id"] in ids for ids in text.get("health_checks", {}).values()):
        raise BadInput(
            f"health_checks: {check['id']} is the lever's, which tells what was switched and not "
            f"how a Region does. Give the health check of an endpoint, for example "
            f"bbbbbbbb-1111-2222-3333-444444444444."
        )


def _check_places(text: Mapping[str, Any]) -> None:
    """Check that every ARN is in the Region of its role, and of its kind."""
    for role in ROLES:
        region = text["regions"][role]
        placed = {
            f"consumers.{role}": text.get("consumers", {}).get(role, []),
            f"capacity.{role}": [c["resource"] for c in text.get("capacity", {}).get(role, [])],
            f"data.aurora.{role}": [c[role] for c in text.get("data", {}).get("aurora", [])],
        }
        for field, arns in placed.items():
            for arn in arns:
                if arn.split(":")[3] != region:
                    parts = arn.split(":")
                    there = ":".join([*parts[:3], region, *parts[4:]])
                    raise BadInput(f"{field}: {arn} is not in {region}. Give for example {there}.")
        for one in text.get("capacity", {}).get(role, []):
            _check_kind(f"capacity.{role}", one)


def _check_kind(field: str, one: Mapping[str, Any]) -> None:
    arn, parts = one["resource"], one["resource"].split(":")
    start = ":".join(parts[:5]).replace(":ecs:", ":lambda:")
    is_function = parts[2] == "lambda" and parts[5] == "function"
    fits, example = {
        "reserved-concurrency": (is_function and len(parts) == 7, f"{start}:function:shop"),  # noqa: PLR2004 -- arn:…:function:name
        "provisioned-concurrency": (
            is_function and len(parts) == 8 and parts[7] != "$LATEST",  # noqa: PLR2004 -- and its qualifier
            f"{start}:function:shop:live",
        ),
        "ecs-desired-count": (
            parts[2] == "ecs" and parts[5].startswith("service/") and parts[5].count("/") == 2,  # noqa: PLR2004 -- service/cluster/name
            f"{start.replace(':lambda:', ':ecs:')}:service/shop/web",
        ),
    }[one["kind"]]
    if not fits:
        raise BadInput(f"{field}: {arn} has no {one['kind']}. Give for example {example}.")


def _service(text: Mapping[str, Any]) -> Service:
    levers = text["levers"]
    failback = text.get("failback", {})
    return Service(
        name=text["name"],
        owner=text["owner"],
        record=text["record"]["name"],
        record_type=text["record"]["type"],
        ttl_seconds=text["record"]["ttl_seconds"],
        zone=text["zone"]["name"],
        zone_id=text["zone"]["id"],
        regions=text["regions"],
        probes={key: Probe(**value) for key, value in text["probes"].items()},
        rto_seconds=text["targets"]["rto_seconds"],
        rpo_seconds=text["targets"]["rpo_seconds"],
        routing_control=_routing_control(levers.get("routing_control")),
        health_check=_health_check(levers.get("health_check")),
        records=_records(levers.get("records")),
        health_checks={r: tuple(text.get("health_checks", {}).get(r, ())) for r in ROLES},
        consumers={r: tuple(text.get("consumers", {}).get(r, ())) for r in ROLES},
        capacity={
            r: tuple(Capacity(**one) for one in text.get("capacity", {}).get(r, ())) for r in ROLES
        },
        stores=_stores(text.get("data", {})),
        shift=_shift(text.get("shift", {})),
        unattended=text.get("unattended", False),
        game_day=text.get("game_day", False),
        soak_seconds=failback.get("soak_seconds", 3600),
        approvers=tuple(failback.get("approvers", ())),
        requests=_requests(text.get("requests")),
    )


def _requests(text: Mapping[str, Any] | None) -> RequestMetrics | None:
    if text is None:
        return None
    dimensions: dict[Role, Mapping[str, str]] = {role: text[role] for role in ROLES}
    return RequestMetrics(text["namespace"], text["count"], text["errors"], dimensions)


def _routing_control(text: Mapping[str, Any] | None) -> RoutingControl | None:
    if text is None:
        return None
    return RoutingControl(text["endpoints"], {role: text[role] for role in ROLES})


def _health_check(text: Mapping[str, Any] | None) -> HealthCheckLever | None:
    if text is None:
        return None
    signal: S3Signal | AlarmSignal
    signal = S3Signal(**text["object"]) if "object" in text else AlarmSignal(**text["alarm"])
    return HealthCheckLever(text["id"], text.get("seconds", _HEALTH_CHECK_SECONDS), signal)


def _records(text: Mapping[str, Any] | None) -> Records | None:
    if text is None:
        return None
    weights = text.get("weights", {"primary": 100, "standby": 0})
    return Records(text["policy"], {role: text[role] for role in ROLES}, weights)


def _stores(text: Mapping[str, Any]) -> tuple[Store, ...]:
    tables = [
        Store("dynamodb", one["table"], one["max_lag_seconds"], one["max_loss_seconds"], {})
        for one in text.get("dynamodb", ())
    ]
    databases = [
        Store(
            "aurora",
            one["global_cluster"],
            one["max_lag_seconds"],
            one["max_loss_seconds"],
            {role: one[role] for role in ROLES},
        )
        for one in text.get("aurora", ())
    ]
    return (*tables, *databases)


def _shift(text: Mapping[str, Any]) -> Shift:
    if not text:
        return Shift()
    return Shift(tuple(text["percents"]), text["wait_seconds"], text.get("on_failover", False))
