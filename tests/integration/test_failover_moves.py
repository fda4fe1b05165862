import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history
from local.aws.route53.data_plane import Route53DataPlane
from oncall import failover, failover_facts, failover_moves, failover_plan, name_servers, probes
from oncall.errors import WorldMoved
from oncall.failover import FAILOVER, Facts
from oncall.service import AlarmSignal, Capacity, Service
from tests.integration import two_regions
from tests.integration.two_regions import PRIMARY, TwoRegions

_PLANE = Route53DataPlane(interval_seconds=60)
RULES = {
    "window_periods": 5.0,
    "signals": 2,
    "checkers_share": 0.18,
    "probes_share": 0.5,
    "probe_places": 1,
    "error_share": 0.2,
    "deploy_seconds": 0,
}
LIMITS = {"drain_seconds": 1}
SICK: Any = {"checkers": {"sa-east-1": False}, "probes": {"us-west-2": False}}
WELL: Any = {"checkers": {"sa-east-1": True}, "probes": {"us-west-2": True}}


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(CloudWatch(Settings(1)), _PLANE)) as aws:
        yield aws


@pytest.fixture
def shop(aws: AwsAccount, monkeypatch: pytest.MonkeyPatch) -> TwoRegions:
    monkeypatch.setattr(probes, "works", lambda _probe: False)
    aws.set_dns_change_seconds(0)
    return two_regions.make(aws)


def read(shop: TwoRegions, service: Service) -> Facts:
    found = failover_facts.read_facts(shop.services, service, RULES, direction=FAILOVER)
    return replace(
        found, primary=replace(found.primary, **SICK), standby=replace(found.standby, **WELL)
    )


def plan(shop: TwoRegions, service: Service) -> Mapping[str, Any]:
    facts = read(shop, service)
    diagnosis = failover.diagnose(service, facts, RULES)
    made = failover_plan.plan(service, diagnosis, facts, LIMITS, RULES)
    assert made.order, made.sentence
    return made.order


def take(shop: TwoRegions, service: Service, step: Mapping[str, Any]) -> failover_moves.Made:
    again, deadline = False, time.monotonic() + 10
    while not (made := failover_moves.make(shop.services, service, step, again=again)).done:
        assert time.monotonic() < deadline
        again = True
        time.sleep(0.05)
    return made


def steps(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in order["steps"] if one["verb"] not in failover_moves.LOOKED_AT]


def only(service: Service, lever: str) -> Service:
    others: Any = {"routing_control", "health_check", "records"} - {lever}
    none: Any = dict.fromkeys(others)
    return replace(service, **none)


@pytest.mark.parametrize("lever", ["routing_control", "health_check", "records"])
def test_every_step_is_made_and_made_again_it_changes_nothing(shop: TwoRegions, lever: str) -> None:
    service = only(shop.service, lever)
    order = plan(shop, service)
    verbs = [one["verb"] for one in steps(order)]
    assert verbs[:1] == ["fence"]
    assert verbs[-4:] == ["raise", "promote", "enable", "shift"]
    for step in steps(order):
        assert failover_moves.tags(shop.services, step)["runbook-automation"] == "enabled"
        take(shop, service, step)
    facts = read(shop, service)
    assert [bool(one.value) for one in facts.primary.consumers] == [False]
    assert [bool(one.value) for one in facts.standby.consumers] == [True]
    assert [one.value for one in facts.standby.capacity] == [None, 5]
    assert facts.stores[1].writer == "standby"
    assert failover.points_to(facts) == "standby"
    for step in steps(order):
        take(shop, service, step)
    again = read(shop, service)
    # Any of the cluster's endpoints answers.
    assert [replace(one, endpoint="") for one in again.levers] == [
        replace(one, endpoint="") for one in facts.levers
    ]


def test_records_move_clients_at_every_name_server(shop: TwoRegions) -> None:
    service = only(shop.service, "records")
    servers = {
        name: server.address for name, server in _PLANE.name_servers(shop.aws.account).items()
    }

    def told() -> set[frozenset[str] | None]:
        return set(name_servers.answers(servers, service.record, "A").values())

    assert told() == {frozenset({"127.0.0.1"})}
    shift = steps(plan(shop, service))[-1]
    made = take(shop, service, shift)
    assert told() == {frozenset({"127.0.0.2"})}
    assert failover_moves.is_insync(shop.services, made.change_id)
    next(iter(_PLANE.name_servers(shop.aws.account).values())).silent = True
    assert None in told()


def test_a_change_of_records_is_pending_until_it_is_everywhere(shop: TwoRegions) -> None:
    shop.aws.set_dns_change_seconds(60)
    service = only(shop.service, "records")
    made = take(shop, service, steps(plan(shop, service))[-1])
    assert failover_moves.is_insync(shop.services, made.change_id) is False
    shop.aws.faults.block(service="route53")
    assert failover_moves.is_insync(shop.services, made.change_id) is None


def test_records_that_somebody_has_changed_are_not_overwritten(shop: TwoRegions) -> None:
    service = only(shop.service, "records")
    shift = steps(plan(shop, service))[-1]
    sets = failover_facts.record_sets(shop.services, service)
    theirs = {**sets[0], "Weight": 7}
    shop.client("route53").change_resource_record_sets(
        HostedZoneId=service.zone_id,
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": theirs}]},
    )
    with pytest.raises(WorldMoved, match="has been changed since"):
        take(shop, service, shift)
    assert failover_facts.record_sets(shop.services, service)[0]["Weight"] == 7


def test_a_change_of_records_whose_answer_was_lost_is_made_once(shop: TwoRegions) -> None:
    service = only(shop.service, "records")
    shift = steps(plan(shop, service))[-1]
    lost = shop.aws.faults.add("route53", "ChangeResourceRecordSets", "lost_reply")
    assert take(shop, service, shift).change_id == ""
    assert lost.hits == 1
    assert failover.points_to(read(shop, service)) == "standby"


def test_a_consumer_that_somebody_has_switched_is_looked_at_again(shop: TwoRegions) -> None:
    service = shop.service
    fence = steps(plan(shop, service))[0]
    wrong = {**fence, "detail": {**fence["detail"], "before": False, "after": None}}
    with pytest.raises(WorldMoved, match="the plan saw"):
        take(shop, service, wrong)


def test_routing_controls_switch_without_the_primary_and_any_control_plane(
    shop: TwoRegions,
) -> None:
    service = shop.service
    order = plan(shop, service)
    fence, shift = steps(order)[0], steps(order)[-1]
    shop.aws.faults.block(region=PRIMARY)
    shop.aws.faults.block_global_services()
    with pytest.raises(WorldMoved, match="did not answer"):
        take(shop, service, fence)
    assert shift["detail"]["lever"] == "routing_control"
    take(shop, service, shift)
    assert failover.points_to(read(shop, service)) == "standby"
    # The next plan leaves out what cannot be reached, and what is done.
    assert failover.diagnose(service, read(shop, service), RULES).cause == "already"


def test_a_control_that_somebody_has_set_is_looked_at_again(shop: TwoRegions) -> None:
    service = shop.service
    shift = steps(plan(shop, service))[-1]
    lever: Any = service.routing_control
    region, endpoint = next(iter(lever.endpoints.items()))
    shop.services.cluster(region, endpoint).update_routing_control_state(
        RoutingControlArn=lever.controls["standby"], RoutingControlState="On"
    )
    with pytest.raises(WorldMoved, match="was set since"):
        take(shop, service, shift)


def test_the_metric_that_an_alarm_watches_is_put_in_the_standby(shop: TwoRegions) -> None:
    signal = AlarmSignal("shop-failed-over", "Failover", "shop", away_value=1, home_value=0)
    lever: Any = shop.service.health_check
    checked = replace(lever, signal=signal)
    service = replace(only(shop.service, "health_check"), health_check=checked)
    assert failover.points_to(read(shop, service)) == "primary"
    take(shop, service, steps(plan(shop, service))[-1])
    metrics = shop.client("cloudwatch").list_metrics(Namespace="Failover")["Metrics"]
    assert [one["MetricName"] for one in metrics] == ["shop"]
    assert failover.points_to(read(shop, service)) == "standby"
    # The check keeps its state without data: whoever goes back after the weekend finds it away.
    for days, value in ((40, 1.0), (3, 0.0), (2, 1.0)):
        then = int(time.time()) - days * 86_400
        put_metric_history(shop.aws.account, "us-west-2", "Failover", "later", {}, [(then, value)])
        later = replace(checked, signal=replace(signal, metric="later"))
        looked_at = replace(service, health_check=later)
        where = "standby" if value else "primary"
        assert failover.points_to(read(shop, looked_at)) == where


def test_an_ecs_service_is_waited_for_until_its_tasks_run(
    shop: TwoRegions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecs = shop.client("ecs")
    made = ecs.create_service(
        cluster="shop", serviceName="web", taskDefinition="web:1", desiredCount=1,
        tags=[{"key": "runbook-automation", "value": "enabled"}],
    )  # fmt: skip
    arn = made["service"]["serviceArn"]
    needed: Any = {"primary": (), "standby": (Capacity("ecs-desired-count", arn, 3),)}
    service = replace(only(shop.service, "records"), capacity=needed)
    [step] = [one for one in steps(plan(shop, service)) if one["verb"] == "raise"]
    assert failover_moves.tags(shop.services, step)["runbook-automation"] == "enabled"
    assert "--desired-count 3 --region us-west-2" in step["by_hand"]
    assert "--desired-count 1 --region us-west-2" in step["undo"]

    def desired() -> int:
        found = ecs.describe_services(cluster="shop", services=[arn])["services"]
        return int(found[0]["desiredCount"])

    real = failover_facts.ecs_service
    with monkeypatch.context() as slow:
        slow.setattr(
            failover_facts, "ecs_service", lambda *args: {**real(*args), "runningCount": 2}
        )
        under_way = failover_moves.make(shop.services, service, step, again=False)
        assert (under_way.done, under_way.wait_seconds, desired()) == (False, 5, 3)
    take(shop, service, step)
    ecs.update_service(cluster="shop", service=arn, desiredCount=7)
    with pytest.raises(WorldMoved, match="is 7 now; the plan saw 1"):
        take(shop, service, step)
    assert desired() == 7
