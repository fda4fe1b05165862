"""`runbook play route53-failover`, looked at while its world still stands."""

import http.client
from collections.abc import Iterator

import dns.message
import dns.query
import pytest

from cli.play import code_of, ground_of, told
from local import shop
from local.document import document
from local.play import Played, play
from local.playground import Playground
from local.stories import STORIES, missing_clients
from local.watch import Glance

STORY = STORIES["route53-failover"]


@pytest.fixture(scope="module")
def seen() -> list[Glance]:
    return []


@pytest.fixture(scope="module")
def ground() -> Iterator[Playground]:
    with ground_of(STORY) as made:
        yield made


@pytest.fixture(scope="module")
def played(ground: Playground, seen: list[Glance]) -> Played:
    return play(STORY, ground, seen.append)


def answers(ground: Playground) -> list[str]:
    """What each name server of the zone gives now, asked here and not by the play."""
    found = []
    for server in ground.route53.name_servers(ground.account.account).values():
        host, port = server.address
        answer = dns.query.udp(dns.message.make_query(shop.RECORD, "A"), host, port=port, timeout=2)
        found += [value.to_text() for value in answer.answer[0]]
    return found


def fetched(address: str, port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=2)
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_it_ends_resolved_with_nobody_woken_and_the_recovery_time_told(played: Played) -> None:
    assert (played.outcome, played.left, played.overdue) == ("resolved", (), "")
    assert code_of(played) == 0
    assert not played.pagerduty.pages
    made = document(played)
    assert (made["mode"], made["changes"]) == ("auto", [])
    kinds = [entry["kind"] for entry in made["timeline"]]
    assert {"asked", "paged"}.isdisjoint(kinds)
    assert any("Recovery time" in message["text"] for message in made["slack"])
    # The health checkers saw it too, and not only the clients.
    assert any("sick in us-east-1 by checkers" in one["text"] for one in made["timeline"])
    assert "100% of traffic to eu-west-1" in played.effect
    text = told(played)
    assert "PagerDuty: nobody was woken." in text
    assert "traffic stays in the standby" in text


def test_clients_go_where_every_name_server_sends_them(ground: Playground, played: Played) -> None:
    del played
    assert answers(ground) == ["127.0.0.2"] * 4
    assert fetched("127.0.0.1", ground.shop.port) == (503, "us-east-1")
    assert fetched("127.0.0.2", ground.shop.port) == (200, "eu-west-1")
    assert ground.shop.consumers() == {"us-east-1": "Disabled", "eu-west-1": "Enabled"}
    calls = ground.shop.calls
    states = [(call.region, call.status) for call in calls]
    # At home first, then refused there, and then nobody goes home any more.
    assert states[0] == ("us-east-1", 200)
    broken = states.index(("us-east-1", 503))
    arrived = states.index(("eu-west-1", 200))
    assert 0 < broken < arrived
    assert set(states[:broken]) == {("us-east-1", 200)}
    late = [call for call in calls if call.at > calls[arrived].at + 2]  # a TTL, and one call
    assert {(call.region, call.status) for call in late} == {("eu-west-1", 200)}


def test_each_look_shows_clients_name_servers_consumers_and_the_alarm(
    played: Played, seen: list[Glance]
) -> None:
    del played
    lines = [" | ".join([*(row.text for row in one.rows), one.alarm]) for one in seen if one.rows]
    for part in (
        "clients: us-east-1 100%",
        "clients: failed 100%",
        "clients: eu-west-1 100%",
        "4 of 4 say us-east-1",
        "4 of 4 say eu-west-1",
        "us-east-1 Disabled, eu-west-1 Enabled",
    ):
        assert any(part in line for line in lines), part
    assert "ALARM" in {one.alarm for one in seen}


def test_clients_that_are_sent_home_again_are_told(ground: Playground, played: Played) -> None:
    del played
    assert missing_clients(ground, ()) == []
    route53 = ground.account.client("route53")
    zone = ground.shop.zone
    sets = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    ground.account.set_dns_change_seconds(0)
    for one in sets:
        if one["Type"] == "A":
            one["Weight"] = 100 - one["Weight"]
            route53.change_resource_record_sets(
                HostedZoneId=zone,
                ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": one}]},
            )
    ground.shop.calls.append(shop.Call(ground.shop.calls[-1].at, "us-east-1", 503))

    said = "; ".join(missing_clients(ground, ()))

    assert said.count("answers 127.0.0.1 and not 127.0.0.2") == 4
    assert "1 of the last" in said
