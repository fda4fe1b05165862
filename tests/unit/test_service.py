"""Service files: the sample is complete, and each mistake gets one sentence with an example."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from oncall import service
from oncall.contract import CONTRACTS
from oncall.errors import BadInput

SCHEMA = json.loads((CONTRACTS / "service.schema.json").read_text("utf-8"))
SAMPLE = yaml.safe_load((service.SAMPLE / "services" / "shop.yaml").read_text("utf-8"))
OTHER = (
    "arn:aws:lambda:ap-south-1:123456789012:event-source-mapping:"
    + SAMPLE["consumers"]["primary"][0].rpartition(":")[2]
)


def fields(rules: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk every property of a schema, those of ``$defs`` as well."""
    if isinstance(rules, dict):
        for name, inner in rules.get("properties", {}).items():
            yield f"{path}.{name}", inner
        for key, inner in rules.items():
            yield from fields(inner, f"{path}.{key}")


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part) if part.isdigit() else part]
    return document


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sample with one field set, or without it where ``value`` is ``...``."""
    document: dict[str, Any] = copy.deepcopy(SAMPLE)
    parent, _, last = path.rpartition(".")
    inside: Any = at(document, parent) if parent else document
    if value is ...:
        del inside[last]
    else:
        inside[int(last) if last.isdigit() else last] = value
    return document


def with_alarm(document: dict[str, Any], **more: Any) -> dict[str, Any]:
    check = document["levers"]["health_check"]
    check.pop("object")
    check["alarm"] = {
        "name": "shop-failed-over",
        "namespace": "Failover",
        "metric": "shop",
        "away_value": 1,
        "home_value": 0,
        **more,
    }
    return document


def test_every_service_file_that_ships_is_right() -> None:
    assert service.names(service.SAMPLE) == ("shop",)
    assert service.load("shop", service.SAMPLE).name == "shop"
    for name in service.names():
        assert service.load(name).name == name


def test_the_sample_is_no_service_of_this_deployment() -> None:
    assert "shop" not in service.names()


def test_a_service_is_found_by_its_record() -> None:
    by_record = service.load("shop.example.com", service.SAMPLE)
    assert by_record == service.load("shop", service.SAMPLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of service files with the sample among them."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "shop.yaml").write_text(yaml.safe_dump(SAMPLE), "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["shop", "shop.example.com", SAMPLE["health_checks"]["primary"][0]]
)
def test_a_broken_file_names_itself_and_its_field_however_it_is_asked_for(
    folder: Path, name: str
) -> None:
    document = {**copy.deepcopy(SAMPLE), "targets": {"rto_seconds": "soon", "rpo_seconds": 30}}
    (folder / "services" / "shop.yaml").write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(
        BadInput, match=r"^runbooks/services/shop\.yaml: targets\.rto_seconds: .*Give "
    ):
        service.load(name, folder)


@pytest.mark.parametrize("broken", ["a: [", "name: [1]", "- 1", "record: 1\nhealth_checks: {}"])
def test_another_services_broken_file_is_in_nobodys_way(folder: Path, broken: str) -> None:
    (folder / "services" / "aaa.yaml").write_text(broken, "utf-8")
    assert service.load("shop.example.com", folder).name == "shop"


def test_the_schema_explains_every_field_by_an_example_that_is_right() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    found = list(fields(SCHEMA))
    assert len(found) > 60
    for path, rules in found:
        boolean = rules.get("type") == "boolean"
        assert len(rules.get("description", "")) > 8, path
        assert rules.get("examples"), path
        if path.endswith(".routing_control") or boolean:
            continue  # its example is shortened: five endpoints stand in their own
        for example in rules["examples"]:
            validator = Draft202012Validator({**rules, "$defs": SCHEMA["$defs"]})
            if "endpoints" not in path or isinstance(example, dict):
                assert validator.is_valid(example) or path.endswith(".levers"), path


def test_the_sample_has_every_part() -> None:
    assert set(SAMPLE) | {"game_day"} == set(SCHEMA["properties"])
    assert set(SAMPLE["levers"]) == set(SCHEMA["properties"]["levers"]["properties"])


@pytest.mark.parametrize(
    "part",
    ["health_checks", "data", "consumers", "capacity", "shift", "unattended", "failback"],
)
def test_parts_are_optional(part: str) -> None:
    read = service.parse(changed(part, ...), "shop")
    assert read.record == "shop.example.com"
    assert not read.unattended


def test_the_least_service_has_one_lever_and_no_data() -> None:
    needed = {key: SAMPLE[key] for key in SCHEMA["required"]}
    needed["levers"] = {"records": {"policy": "failover", "primary": "a", "standby": "b"}}
    read = service.parse(needed, "shop")
    assert read.routing_control is None
    assert read.stores == ()
    assert read.consumers == {"primary": (), "standby": ()}
    assert read.shift.percents == (100,)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: changed("name", ...), "name: it is missing"),
    (lambda: changed("name", "other"), "name: it is other, the file's is shop"),
    (lambda: changed("colour", "red"), "colour: there is no such field"),
    (lambda: changed("record.ttl_seconds", "60"), "record.ttl_seconds: '60' is not of type"),
    (lambda: changed("record.name", "shop.example.org"), "does not belong to the zone example.com"),
    (lambda: changed("record.name", "bookshop-example.com"), "does not belong to the zone"),
    (lambda: changed("regions.standby", "us-east-1"), "regions.standby: it is us-east-1, the pri"),
    (lambda: changed("regions.standby", "ireland"), "regions.standby: 'ireland' does not match"),
    (lambda: changed("levers", {}), "levers: {} "),
    (lambda: changed("levers.routing_control.endpoints.us-east-1", ...), "endpoints: "),
    (
        lambda: changed(
            "levers.routing_control.standby", SAMPLE["levers"]["routing_control"]["primary"]
        ),
        "levers.routing_control.standby: it is the primary's control",
    ),
    (
        lambda: changed("levers.records.standby", "shop-us-east-1"),
        "levers.records.standby: it is the primary's set",
    ),
    (lambda: changed("levers.records.primary", ...), "levers.records.primary: it is missing"),
    (lambda: changed("levers.records.tertiary", "x"), "tertiary: there is no such field"),
    (lambda: changed("levers.records.policy", "failover"), "levers.records.weights: failover"),
    (
        lambda: changed("levers.records", {"policy": "failover", "primary": "a", "standby": "b"}),
        "shift: only weighted records",
    ),
    (
        lambda: changed("levers.health_check.signal_region", "us-east-1"),
        "us-east-1 is not the standby Region",
    ),
    (
        lambda: with_alarm(changed("levers.health_check.seconds", 30), away_value=0),
        "levers.health_check.alarm.away_value: it is the home_value",
    ),
    (
        lambda: changed("health_checks.primary.0", SAMPLE["levers"]["health_check"]["id"]),
        "health_checks: aaaaaaaa",
    ),
    (
        lambda: changed("consumers.primary.0", OTHER),
        "is not in us-east-1. Give for example arn:aws:",
    ),
    (lambda: changed("consumers.primary.0", "orders"), "consumers.primary.0: 'orders' does not"),
    (
        lambda: changed("data.aurora.0.standby", SAMPLE["data"]["aurora"][0]["primary"]),
        "data.aurora.standby: ",
    ),
    (
        lambda: changed(
            "capacity.standby.1.resource", SAMPLE["capacity"]["standby"][0]["resource"]
        ),
        "has no provisioned-concurrency. Give for example arn:aws:lambda:eu-west-1:",
    ),
    (lambda: changed("capacity.standby.0.kind", "ecs-desired-count"), "has no ecs-desired-count"),
    (lambda: changed("capacity.standby.0.kind", "ponies"), "'ponies' is not one of"),
    (lambda: changed("probes.public.url", "ftp://shop.example.com"), "probes.public.url: "),
    (lambda: changed("shift.percents", [10, 5, 100]), "shift.percents: [10, 5, 100] does not rise"),
    (lambda: changed("shift.percents", [10, 50]), "shift.percents: [10, 50] does not rise"),
    (lambda: changed("failback.approvers", ["one"]), "failback.approvers: ['one'] is too short"),
    (lambda: changed("data.dynamodb.0.max_lag_seconds", -1), "max_lag_seconds: -1 is less"),
    (lambda: 3, "service: 3 is not of type 'object'"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_gets_one_sentence_that_names_it_and_an_example(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        service.parse(make(), "shop")
    sentence = str(caught.value)
    assert said in sentence
    assert re.match(r"[\w.]+: .+\. Give .+", sentence), sentence
    assert len(sentence) < 800
    assert "\n" not in sentence


def test_an_unknown_service_and_a_broken_file_say_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no service 'shoe'; there are shop"):
        service.load("shoe", folder)
    with pytest.raises(BadInput, match="there are none"):
        service.load("shoe", tmp_path / "nowhere")
    (folder / "services" / "shoe.yaml").write_text("a: [", "utf-8")
    unreadable = r"runbooks/services/shoe\.yaml: it is not YAML: .*Start from runbooks/sample/"
    with pytest.raises(BadInput, match=rf"^{unreadable}"):
        service.load("shoe", folder)
    with pytest.raises(BadInput, match=rf"'shoe\.example\.com' is in none .* {unreadable}"):
        service.load("shoe.example.com", folder)


def test_an_alarm_can_be_the_signal() -> None:
    read = service.parse(with_alarm(copy.deepcopy(SAMPLE)), "shop")
    assert read.health_check is not None
    assert isinstance(read.health_check.signal, service.AlarmSignal)


PARTS = {
    "record": (("record.name", "record.type"), "record.name"),
    "control": (("levers.routing_control",), "levers.routing_control"),
    "signal": (("levers.health_check.object",), "levers.health_check"),
    "table": (("data.dynamodb",), "data.dynamodb"),
    "database": (("data.aurora",), "data.aurora"),
    "consumer": (("consumers.standby",), "consumers.standby"),
    "capacity": (("capacity.standby",), "capacity.standby"),
}


def a_game_day(**kept: str) -> dict[str, Any]:
    """The sample as a game day with parts of its own, but for those of ``kept``."""
    text = json.dumps(SAMPLE)
    for own, theirs in (
        ("drill.example.com", "shop.example.com"),
        ("routingcontrol/dd", "routingcontrol/"),
        ("dddddddd-1111", "aaaaaaaa-1111"),
        ("drill-switch-eu-west-1", "shop-switch-eu-west-1"),
        ("drill-orders", "shop-orders"),
        ('"global_cluster": "drill"', '"global_cluster": "shop"'),
        ("cluster:drill", "cluster:shop"),
        ("event-source-mapping:dd", "event-source-mapping:11"),
        ("function:drill", "function:shop"),
    ):
        text = text.replace(theirs, own)
    document: dict[str, Any] = {**json.loads(text), "name": "drill", "game_day": True}
    for path in kept:
        parent, _, last = path.rpartition(".")
        at(document, parent)[last] = at(SAMPLE, path)
    return document


def shipped(folder: Path, *files: dict[str, Any]) -> Path:
    (folder / "services").mkdir(exist_ok=True)
    (folder / "service.schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    for file in files:
        path = folder / "services" / f"{file['name']}.yaml"
        path.write_text(yaml.safe_dump(file), "utf-8")
    return folder


def test_a_game_day_with_parts_of_its_own_may_be_practised(tmp_path: Path) -> None:
    folder = shipped(tmp_path, SAMPLE, a_game_day())
    assert service.load("drill", folder).game_day
    # What it has in common with another game day is nobody's loss.
    twin = {**a_game_day(), "name": "twin"}
    assert service.load("drill", shipped(tmp_path, twin)).name == "drill"


@pytest.mark.parametrize("part", PARTS)
def test_a_game_day_shares_nothing_that_it_changes_with_production(
    tmp_path: Path, part: str
) -> None:
    paths, field = PARTS[part]
    folder = shipped(tmp_path, SAMPLE, a_game_day(**dict.fromkeys(paths, "")))
    with pytest.raises(BadInput, match=rf"^{field}.*: .* is shop's as well, and a game day"):
        service.load("drill", folder)
    for name in ("shop", "shop.example.com", *SAMPLE["health_checks"]["primary"]):
        assert service.load(name, folder).name == "shop"


def test_a_game_day_does_not_run_beside_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = shipped(tmp_path, {**SAMPLE, "owner": 7}, a_game_day())
    with pytest.raises(BadInput, match=r"^game_day: shop.yaml is not as it has to be.* owner: "):
        service.load("drill", folder)
