import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history
from oncall import failover_facts
from oncall.failover import FAILOVER, HEALTH_CHECK, RECORDS, ROUTING_CONTROL, Facts
from oncall.service import ROLES, Probe
from tests.integration import two_regions
from tests.integration.two_regions import PRIMARY, STANDBY, TwoRegions

RULES = {"window_periods": 60.0}
BOTH = {"primary": True, "standby": True}
HOME = {"primary": True, "standby": False}
AWAY = {"primary": False, "standby": True}


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(CloudWatch(Settings(resolution_seconds=1)),)) as aws:
        yield aws


@pytest.fixture
def shop(aws: AwsAccount) -> Iterator[TwoRegions]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Well) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        made = two_regions.make(aws)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        probes = {
            "primary": Probe(f"{url}/sick"),
            "standby": Probe(f"{url}/well"),
            "public": Probe(f"{url}/well"),
        }
        made.service = replace(made.service, probes=probes)
        yield made
        server.shutdown()


class _Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def read(shop: TwoRegions) -> Facts:
    return failover_facts.read_facts(shop.services, shop.service, RULES, direction=FAILOVER)


def test_all_parts_of_a_service_are_read_in_both_regions(shop: TwoRegions) -> None:
    now = int(time.time())
    account = shop.aws.account
    for region, count, errors in ((PRIMARY, 90, 45), (STANDBY, 10, 0)):
        for metric, value in (("Requests", count), ("Errors", errors)):
            put_metric_history(
                account, region, "Shop", metric, {"Region": region}, [(now - 5, float(value))]
            )
    put_metric_history(
        account, PRIMARY, "AWS/DynamoDB", "ReplicationLatency",
        {"TableName": "shop-orders", "ReceivingRegion": STANDBY}, [(now - 60, 1500.0)],
        unit="Milliseconds",
    )  # fmt: skip
    for role in ROLES:
        check = shop.service.health_checks[role][0]
        shop.aws.set_health(check, healthy=role == "standby")
    facts = read(shop)
    assert facts.runs_in == STANDBY
    assert set(facts.primary.checkers.values()) == {False}
    assert facts.primary.probes == {STANDBY: False}
    assert set(facts.standby.checkers.values()) == {True}
    assert facts.standby.probes == {STANDBY: True}
    assert (facts.primary.error_share, facts.standby.error_share) == (0.5, 0.0)
    assert (facts.primary.traffic_share, facts.standby.traffic_share) == (0.9, 0.1)
    assert [one.value for one in facts.primary.consumers] == [True]
    assert [one.value for one in facts.standby.consumers] == [False]
    reserved, provisioned = facts.standby.capacity
    assert (reserved.value, provisioned.value, provisioned.room) == (None, None, 900)
    assert facts.standby.deployed_at == pytest.approx(time.time(), abs=60)
    assert all(facts.primary.answered.values())
    controls, switch, sets = facts.levers
    assert (controls.kind, controls.open, controls.safe) == (ROUTING_CONTROL, HOME, True)
    assert (switch.kind, switch.open, switch.holds) == (HEALTH_CHECK, BOTH, True)
    assert (sets.kind, sets.open, sets.differs) == (RECORDS, HOME, "")
    assert sets.sets["standby"]["ResourceRecords"] == [{"Value": "127.0.0.2"}]
    orders, database = facts.stores
    assert (orders.status, orders.lag_seconds, orders.source_available) == ("ACTIVE", 1.5, True)
    assert orders.lag_at == pytest.approx(now - 60, abs=60)
    assert (database.status, database.writer, database.source_available) == (
        "ACTIVE",
        "primary",
        True,
    )


def test_without_the_primary_and_all_control_planes_the_data_planes_still_tell(
    shop: TwoRegions,
) -> None:
    signal: Any = shop.service.health_check
    shop.client("s3").put_object(Bucket=signal.signal.bucket, Key=signal.signal.key)
    blocked = [
        shop.aws.faults.block(region=PRIMARY),
        *shop.aws.faults.block_global_services(),
    ]
    facts = read(shop)
    shop.aws.faults.lift(*blocked)
    assert facts.primary.answered == dict.fromkeys(facts.primary.answered, False)
    assert facts.primary.consumers == ()
    assert [one.value for one in facts.standby.consumers] == [False]
    controls, check, sets = facts.levers
    assert (controls.answered, controls.open, controls.safe) == (True, HOME, None)
    assert controls.endpoint != PRIMARY
    assert (check.answered, check.open, check.holds) == (True, AWAY, True)
    assert sets.answered is False
    orders, database = facts.stores
    assert (orders.status, orders.lag_seconds, orders.source_available) == ("ACTIVE", None, False)
    assert (database.status, database.source_available) == ("ACTIVE", False)
