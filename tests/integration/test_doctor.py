"""`runbook doctor` on a service in two Regions: what is broken there is said, and nothing else."""

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.app import main
from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings
from oncall import service
from oncall.service import ROLES, Probe
from tests.integration import two_regions
from tests.integration.two_regions import PRIMARY, TwoRegions, Well, attach, change, replicate


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(CloudWatch(Settings(resolution_seconds=1)),)) as aws:
        yield aws


@pytest.fixture
def shop(aws: AwsAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoRegions]:
    """A service that could be failed over, and the caller's credentials for its account."""
    with http.server.HTTPServer(("127.0.0.1", 0), Well) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        made = two_regions.make(aws)
        well = Probe(f"http://127.0.0.1:{server.server_address[1]}/")
        made.service = replace(
            made.service, probes={"primary": well, "standby": well, "public": well}
        )
        attach(made)
        replicate(made)
        for role in ROLES:
            aws.set_health(made.service.health_checks[role][0], healthy=True)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.account)
        monkeypatch.setattr(service, "names", lambda: ("shop",))
        monkeypatch.setattr(service, "load", lambda _name: made.service)
        yield made
        server.shutdown()


NO_STACK = {"stack:primary": "warn", "stack:standby": "bad"}
"""What is said where the runbooks are not deployed; test_check_readiness has them."""


def doctor(*words: str) -> Result:
    return CliRunner().invoke(main, ("doctor", *words))


def told(result: Result) -> dict[str, tuple[str, str]]:
    """Verdict and sentence of all that is not ok."""
    listed = json.loads(result.stdout)
    return {
        one["name"]: (one["verdict"], one["sentence"]) for one in listed if one["verdict"] != "ok"
    }


@pytest.mark.usefixtures("shop")
def test_of_a_ready_service_nothing_is_bad_but_that_no_stack_could_act() -> None:
    ended = doctor("shop", "--output", "json")

    found = told(ended)
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "drift:shop:live": "warn", **NO_STACK,
    }  # fmt: skip
    assert ended.exit_code == 1
    rows = json.loads(ended.stdout)
    assert list(rows[0]) == ["service", "name", "verdict", "number", "sentence"]
    assert {one["service"] for one in rows} == {"shop"}
    numbers = {one["name"]: one["number"] for one in rows}
    assert numbers["data:shop-orders"] == 0.9
    assert numbers["endpoints"] == 5


def test_what_is_broken_in_the_account_is_found(shop: TwoRegions) -> None:
    made, route53 = shop.service, shop.client("route53")
    standby_check = made.health_checks["standby"][0]
    route53.update_health_check(HealthCheckId=standby_check, Disabled=True)
    other = {"TTL": 1800, "Weight": 50, "HealthCheckId": made.health_checks["primary"][0]}
    change(shop, {"primary": other, "standby": {"TTL": 1800}})
    shop.client("lambda").update_function_configuration(
        FunctionName="shop", MemorySize=256, Environment={"Variables": {"MORE": "1"}}
    )
    shop.client("lambda", PRIMARY).update_function_configuration(
        FunctionName="shop", Environment={"Variables": {"TABLE": "secret-value"}}
    )
    arn = made.consumers["standby"][0]
    shop.client("lambda").update_event_source_mapping(UUID=arn.rsplit(":", 1)[-1], Enabled=True)
    replicate(shop, table_ms=9000.0)

    ended = doctor("--output", "json")

    assert ended.exit_code == 1
    found = told(ended)
    assert {name for name, (verdict, _) in found.items() if verdict == "bad"} == {
        "ttl",
        "attached:health_check:primary",
        "attached:routing_control:primary",
        f"health_check:standby:{standby_check}",
        f"consumers:standby:{arn.rsplit(':', 1)[-1]}",
        "data:shop-orders",
        "drift:shop",
        "stack:standby",
    }
    assert found["records"][0] == "warn"
    assert "lacks environment variables that the primary's has: TABLE" in found["drift:shop"][1]
    assert "secret-value" not in ended.stdout


def test_what_is_gone_or_does_not_answer_is_told_apart(shop: TwoRegions) -> None:
    made = shop.service
    lost: Any = {**made.health_checks, "standby": (str(uuid.uuid4()),)}
    shop.service = replace(made, health_checks=lost)
    blocked = shop.aws.faults.block(region=PRIMARY)

    ended = doctor("shop", "--output", "json")
    shop.aws.faults.lift(blocked)

    assert ended.exit_code == 1
    found = told(ended)
    assert found[f"health_check:standby:{lost['standby'][0]}"][0] == "bad"
    consumer = made.consumers["primary"][0].rsplit(":", 1)[-1]
    assert found[f"consumers:primary:{consumer}"][0] == "unknown"
    assert found["data:shop-orders"][0] == "unknown"
    assert "Not read" not in ended.stdout


@pytest.mark.usefixtures("shop")
def test_a_person_reads_a_table_or_lines() -> None:
    table, text = doctor(), doctor("--output", "text")

    assert table.exit_code == text.exit_code == 1
    head, first, *_ = table.stdout.splitlines()
    assert head.split() == ["service", "verdict", "what", "number"]
    assert first.split()[:3] == ["shop", "bad", "stack:standby"]
    assert table.stderr.endswith("1 bad, 2 warn, 27 ok.\n")
    assert text.stdout.startswith("ok       shop  file: runbooks/services/shop.yaml can be read.\n")
    assert len(text.stdout.splitlines()) == 30
