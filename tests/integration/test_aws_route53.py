import http.server
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from botocore.exceptions import ClientError

from local.aws import AwsAccount, EmbeddedAws, StackError
from local.aws.bridges import iam, route53_cloudformation, route53_health_checks, route53_records
from local.aws.cloudwatch import put_metric_history
from local.aws.route53.data_plane import Route53DataPlane

_PLANE = Route53DataPlane(interval_seconds=0.05)
_accounts = itertools.count(530_000_000_001)

type Deploy = Callable[..., dict[str, str]]
type Record = dict[str, Any]


@pytest.fixture(scope="module")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws(extensions=(_PLANE,)) as aws:
        yield aws


@pytest.fixture
def zone(aws: AwsAccount) -> str:
    aws.set_dns_change_seconds(0)
    made = aws.client("route53").create_hosted_zone(
        Name="example.com", CallerReference=str(uuid.uuid4())
    )
    return made["HostedZone"]["Id"].rpartition("/")[2]


def record(name: str, *values: str, **members: Any) -> Record:
    kind = members.pop("Type", "A")
    found = {"Name": name, "Type": kind, **members}
    if "AliasTarget" not in members:
        found |= {"TTL": 60, "ResourceRecords": [{"Value": value} for value in values]}
    return found


def change(aws: AwsAccount, zone: str, *changes: tuple[str, Record]) -> str:
    batch: Any = [{"Action": action, "ResourceRecordSet": what} for action, what in changes]
    answer = aws.client("route53").change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": batch}
    )
    return answer["ChangeInfo"]["Id"]


def refused(aws: AwsAccount, zone: str, *changes: tuple[str, Record]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        change(aws, zone, *changes)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def check(aws: AwsAccount, kind: str = "HTTP", **config: Any) -> str:
    settings: Any = {"Type": kind, **config}
    made = aws.client("route53").create_health_check(
        CallerReference=str(uuid.uuid4()),
        HealthCheckConfig=settings,
    )
    return made["HealthCheck"]["Id"]


def dns_answer(aws: AwsAccount, zone: str, name: str, kind: Any = "A") -> tuple[str, list[str]]:
    answer = aws.client("route53").test_dns_answer(
        HostedZoneId=zone, RecordName=name, RecordType=kind
    )
    return answer["ResponseCode"], answer["RecordData"]


def failover(zone_checks: tuple[str, str]) -> list[tuple[str, Record]]:
    primary, secondary = zone_checks
    one = {"SetIdentifier": "one", "Failover": "PRIMARY", "HealthCheckId": primary}
    two = {"SetIdentifier": "two", "Failover": "SECONDARY", "HealthCheckId": secondary}
    return [
        ("UPSERT", record("www.example.com", "192.0.2.1", **one)),
        ("UPSERT", record("www.example.com", "192.0.2.2", **two)),
    ]


def test_bad_batches_are_refused_whole(aws: AwsAccount, zone: str) -> None:
    good = ("CREATE", record("good.example.com", "192.0.2.1"))
    code, message = refused(aws, zone, good, ("CREATE", record("www.example.org", "192.0.2.1")))
    assert code == "InvalidChangeBatch"
    assert message == (
        "[RRSet with DNS name www.example.org. is not permitted in zone example.com.]"
    )
    missing = record("www.example.com", "192.0.2.1", HealthCheckId=str(uuid.uuid4()))
    assert refused(aws, zone, good, ("UPSERT", missing))[0] == "NoSuchHealthCheck"
    assert dns_answer(aws, zone, "good.example.com") == ("NXDOMAIN", [])


def test_policies_do_not_mix(aws: AwsAccount, zone: str) -> None:
    change(aws, zone, ("CREATE", record("www.example.com", "192.0.2.1")))
    weighted = record("www.example.com", "192.0.2.2", SetIdentifier="b", Weight=1)
    code, message = refused(aws, zone, ("UPSERT", weighted))
    assert code == "InvalidChangeBatch"
    assert message == (
        "[RRSet with DNS name www.example.com., type A, SetIdentifier b cannot be created as a "
        "non-weighted set exists with the same name and type.]"
    )
    with route53_records.BRIDGE.off():
        change(aws, zone, ("UPSERT", weighted))


def test_a_change_is_pending_until_it_has_reached_the_name_servers(
    aws: AwsAccount, zone: str, eventually: Callable[..., Any]
) -> None:
    route53 = aws.client("route53")

    def status(change_id: str) -> str:
        return route53.get_change(Id=change_id)["ChangeInfo"]["Status"]

    aws.set_dns_change_seconds(3)
    change_id = change(aws, zone, ("CREATE", record("www.example.com", "192.0.2.1")))
    for _ in range(2):
        assert status(change_id) == "PENDING"
        assert dns_answer(aws, zone, "www.example.com") == ("NXDOMAIN", [])
    eventually(lambda: status(change_id) == "INSYNC")
    assert dns_answer(aws, zone, "www.example.com") == ("NOERROR", ["192.0.2.1"])
    aws.set_dns_change_seconds(600)
    again = change(aws, zone, ("DELETE", record("www.example.com", "192.0.2.1")))
    assert status(again) == "PENDING"
    with route53_records.BRIDGE.off():
        status(again)
        assert status(again) == "INSYNC"


def test_updates_of_a_health_check_are_kept_and_versioned(aws: AwsAccount) -> None:
    route53 = aws.client("route53")
    check_id = check(aws, IPAddress="192.0.2.1")
    route53.update_health_check(
        HealthCheckId=check_id, HealthCheckVersion=1, Inverted=True, Disabled=True
    )
    found = route53.get_health_check(HealthCheckId=check_id)["HealthCheck"]
    config = found["HealthCheckConfig"]
    assert (found["HealthCheckVersion"], config["Inverted"], config["Disabled"]) == (2, True, True)
    with pytest.raises(ClientError, match="HealthCheckVersionMismatch"):
        route53.update_health_check(HealthCheckId=check_id, HealthCheckVersion=1, Inverted=False)
    with route53_health_checks.BRIDGE.off():
        found = route53.get_health_check(HealthCheckId=check_id)["HealthCheck"]
        assert found["HealthCheckConfig"]["Inverted"] is False


def test_each_checker_reports_its_own_view(aws: AwsAccount) -> None:
    check_id = check(aws, IPAddress="192.0.2.1", Regions=["us-east-1", "us-west-2", "eu-west-1"])
    aws.set_health(check_id, healthy=True)
    aws.set_health(check_id, healthy=False, region="us-east-1")
    found = aws.client("route53").get_health_check_status(HealthCheckId=check_id)
    seen = {
        one["Region"]: one["StatusReport"]["Status"].partition(":")[0]
        for one in found["HealthCheckObservations"]
    }
    assert seen == {"us-east-1": "Failure", "us-west-2": "Success", "eu-west-1": "Success"}


def test_failover_follows_health_and_never_answers_nothing(aws: AwsAccount, zone: str) -> None:
    primary, secondary = check(aws, IPAddress="192.0.2.1"), check(aws, IPAddress="192.0.2.2")
    change(aws, zone, *failover((primary, secondary)))

    def after(first: bool, second: bool) -> list[str]:  # noqa: FBT001 -- a truth table
        aws.set_health(primary, first)
        aws.set_health(secondary, second)
        return dns_answer(aws, zone, "www.example.com")[1]

    assert after(True, True) == ["192.0.2.1"]  # noqa: FBT003
    assert after(False, True) == ["192.0.2.2"]  # noqa: FBT003
    assert after(False, False) == ["192.0.2.1"]  # noqa: FBT003


@pytest.mark.parametrize(("insufficient", "without_data"), [("Healthy", "1"), ("Unhealthy", "2")])
def test_a_check_follows_the_data_of_its_alarm(
    aws: AwsAccount, zone: str, insufficient: str, without_data: str
) -> None:
    aws.for_account(aws.account, "us-west-2").client("cloudwatch").put_metric_alarm(
        AlarmName="sick", Namespace="Shop", MetricName="Sick", Statistic="Maximum", Period=1,
        EvaluationPeriods=1, Threshold=0.5, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    named = {"Name": "sick", "Region": "us-west-2"}
    by_alarm = check(
        aws, "CLOUDWATCH_METRIC", AlarmIdentifier=named, InsufficientDataHealthStatus=insufficient
    )
    change(aws, zone, *failover((by_alarm, check(aws, IPAddress="192.0.2.2"))))

    def answered() -> str:
        return dns_answer(aws, zone, "www.example.com")[1][0][-1]

    def publish(value: float) -> None:
        now = int(time.time())
        points = [(float(second), value) for second in range(now - 5, now + 3)]
        put_metric_history(aws.account, "us-west-2", "Shop", "Sick", {}, points)

    assert answered() == without_data
    aws.for_account(aws.account, "us-west-2").client("cloudwatch").set_alarm_state(
        AlarmName="sick", StateValue="ALARM", StateReason="forced"
    )
    assert answered() == without_data
    publish(1.0)
    assert answered() == "2"


def test_calculated_inverted_and_disabled(aws: AwsAccount, zone: str) -> None:
    route53 = aws.client("route53")
    children = [check(aws, IPAddress=f"192.0.2.{number}") for number in range(3)]
    whole = check(aws, "CALCULATED", ChildHealthChecks=children, HealthThreshold=2)
    change(aws, zone, *failover((whole, check(aws, IPAddress="192.0.2.9"))))

    def answered() -> str:
        return dns_answer(aws, zone, "www.example.com")[1][0][-1]

    assert answered() == "1"
    aws.set_health(children[0], healthy=False)
    assert answered() == "1"
    aws.set_health(children[1], healthy=False)
    assert answered() == "2"
    route53.update_health_check(HealthCheckId=whole, Inverted=True)
    assert answered() == "1"
    route53.update_health_check(HealthCheckId=whole, HealthThreshold=1)
    assert answered() == "2"
    route53.update_health_check(HealthCheckId=whole, Disabled=True)
    assert answered() == "1"
    with pytest.raises(ClientError, match="InvalidInput"):
        route53.get_health_check_status(HealthCheckId=whole)


class _Endpoint(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_endpoints_are_really_probed_and_the_metric_says_so(
    aws: AwsAccount, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(_Endpoint, "status", 200)
    with http.server.ThreadingHTTPServer((address, 0), _Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        check_id = check(aws, IPAddress=address, Port=server.server_address[1], FailureThreshold=2)

        def metric() -> float | None:
            found = aws.for_account(aws.account, "us-east-1").client("cloudwatch")
            now = datetime.now(UTC)
            minute = timedelta(minutes=1)
            points = found.get_metric_statistics(
                Namespace="AWS/Route53", MetricName="HealthCheckStatus", StartTime=now - minute,
                EndTime=now + minute, Period=60, Statistics=["Minimum"],
                Dimensions=[{"Name": "HealthCheckId", "Value": check_id}],
            )["Datapoints"]  # fmt: skip
            return min((point["Minimum"] for point in points), default=None)

        def statuses() -> set[str]:
            found = aws.client("route53").get_health_check_status(HealthCheckId=check_id)
            return {one["StatusReport"]["Status"] for one in found["HealthCheckObservations"]}

        eventually(lambda: statuses() == {"Success: HTTP Status Code 200, OK"})
        assert metric() == 1.0
        _Endpoint.status = 503
        eventually(lambda: metric() == 0.0)
        assert statuses() == {"Failure: HTTP Status Code 503, Service Unavailable"}
        server.shutdown()


def test_health_checks_and_groups_of_a_template(aws: AwsAccount, stack: Deploy) -> None:
    resources = """
        Zone: {Type: AWS::Route53::HostedZone, Properties: {Name: example.net}}
        Check:
          Type: AWS::Route53::HealthCheck
          Properties:
            HealthCheckConfig: {Type: TCP, IPAddress: 192.0.2.1, Port: "443", Inverted: "true"}
            HealthCheckTags: [{Key: Name, Value: primary}]
        Group:
          Type: AWS::Route53::RecordSetGroup
          Properties:
            HostedZoneId: !Ref Zone
            RecordSets:
              - {Name: www.example.net, Type: A, TTL: "60", ResourceRecords: [192.0.2.1],
                 SetIdentifier: one, Failover: PRIMARY, HealthCheckId: !GetAtt Check.HealthCheckId}
              - {Name: www.example.net, Type: A, TTL: "60", ResourceRecords: [192.0.2.2],
                 SetIdentifier: two, Failover: SECONDARY}
    """
    names = stack(resources)
    route53 = aws.client("route53")
    found = route53.get_health_check(HealthCheckId=names["Check"])["HealthCheck"]
    assert found["HealthCheckConfig"]["Inverted"] is True
    assert found["HealthCheckConfig"]["Port"] == 443
    tags = route53.list_tags_for_resource(ResourceType="healthcheck", ResourceId=names["Check"])
    assert tags["ResourceTagSet"]["Tags"] == [{"Key": "Name", "Value": "primary"}]
    assert dns_answer(aws, names["Zone"], "www.example.net") == ("NOERROR", ["192.0.2.2"])
    aws.delete_stack("stack")
    assert not route53.list_health_checks()["HealthChecks"]
    with (
        route53_cloudformation.BRIDGE.off(),
        pytest.raises(StackError, match="Route53"),
    ):
        stack(resources, name="without")


def ask(aws: AwsAccount, name: str, server: str = "ns-1.awsdns-1.com.", **how: Any) -> Any:
    host, port = _PLANE.name_servers(aws.account)[server].address
    send = dns.query.tcp if how.pop("tcp", False) else dns.query.udp
    return send(dns.message.make_query(name, "A"), host, port=port, timeout=how.get("timeout", 2))


@pytest.mark.parametrize("tcp", [False, True])
def test_a_name_server_answers(aws: AwsAccount, zone: str, tcp: bool) -> None:  # noqa: FBT001
    change(aws, zone, ("CREATE", record("www.example.com", "192.0.2.1", "192.0.2.2")))
    answer = ask(aws, "www.example.com", tcp=tcp)
    assert answer.flags & dns.flags.AA
    assert {value.to_text() for value in answer.answer[0]} == {"192.0.2.1", "192.0.2.2"}
    assert answer.answer[0].ttl == 60
    nothing = ask(aws, "no.example.com", tcp=tcp)
    assert nothing.rcode() == dns.rcode.NXDOMAIN
    assert nothing.authority[0].to_text().split()[3] == "SOA"
    assert ask(aws, "example.org", tcp=tcp).rcode() == dns.rcode.REFUSED


def test_a_name_server_can_lag_or_be_silent(
    aws: AwsAccount, zone: str, eventually: Callable[..., Any]
) -> None:
    servers = _PLANE.name_servers(aws.account)
    assert set(servers) == {
        value["Value"]
        for found in aws.client("route53").list_resource_record_sets(HostedZoneId=zone)[
            "ResourceRecordSets"
        ]
        if found["Type"] == "NS"
        for value in found["ResourceRecords"]
    }
    prompt, lagging, silent, _ = servers
    servers[lagging].lag_seconds = 3
    servers[silent].silent = True
    change(aws, zone, ("CREATE", record("www.example.com", "192.0.2.1")))
    assert ask(aws, "www.example.com", prompt).rcode() == dns.rcode.NOERROR
    assert ask(aws, "www.example.com", lagging).rcode() == dns.rcode.NXDOMAIN
    with pytest.raises(dns.exception.Timeout):
        ask(aws, "www.example.com", silent, timeout=0.2)
    eventually(lambda: ask(aws, "www.example.com", lagging).rcode() == dns.rcode.NOERROR)


def test_a_role_may_be_held_to_one_record(aws: AwsAccount, zone: str, stack: Deploy) -> None:
    code = """
        import boto3
        from botocore.exceptions import ClientError

        def handler(event, context):
            changes = [
                {"Action": event["action"], "ResourceRecordSet": {
                    "Name": name, "Type": "A", "TTL": 60,
                    "ResourceRecords": [{"Value": "192.0.2.7"}]}}
                for name in event["names"]
            ]
            try:
                boto3.client("route53").change_resource_record_sets(
                    HostedZoneId=event["zone"], ChangeBatch={"Changes": changes})
            except ClientError as error:
                return error.response["Error"]["Code"]
            return "allowed"
    """
    key = "route53:ChangeResourceRecordSets"
    names = stack(
        f"""
        Change:
          Type: AWS::Serverless::Function
          Properties:
            Policies:
              - Version: "2012-10-17"
                Statement:
                  - Effect: Allow
                    Action: {key}
                    Resource: arn:aws:route53:::hostedzone/{zone}
                    Condition:
                      ForAllValues:StringEquals:
                        {key}NormalizedRecordNames: [www.example.com]
                        {key}Actions: [UPSERT]
        """,
        code,
    )

    def call(action: str, *records: str) -> Any:
        event = {"zone": zone, "action": action, "names": records}
        answer = aws.client("lambda").invoke(
            FunctionName=names["Change"], Payload=json.dumps(event)
        )
        return json.loads(answer["Payload"].read())

    assert call("UPSERT", "www.example.com", "api.example.com") == "AccessDenied"
    assert call("CREATE", "www.example.com") == "AccessDenied"
    assert call("UPSERT", "WWW.example.com.") == "allowed"


def test_a_role_may_be_held_to_one_health_check(aws: AwsAccount, stack: Deploy) -> None:
    code = """
        import boto3
        from botocore.exceptions import ClientError

        def handler(event, context):
            try:
                boto3.client("route53").get_health_check_status(HealthCheckId=event["check"])
            except ClientError as error:
                return error.response["Error"]["Code"]
            return "allowed"
    """
    own, other = check(aws, IPAddress="192.0.2.1"), check(aws, IPAddress="192.0.2.2")
    names = stack(
        f"""
        Read:
          Type: AWS::Serverless::Function
          Properties:
            Policies:
              - Version: "2012-10-17"
                Statement:
                  - Effect: Allow
                    Action: route53:GetHealthCheckStatus
                    Resource: arn:aws:route53:::healthcheck/{own}
        """,
        code,
    )

    def call(check_id: str) -> Any:
        answer = aws.client("lambda").invoke(
            FunctionName=names["Read"], Payload=json.dumps({"check": check_id})
        )
        return json.loads(answer["Payload"].read())

    assert call(other) == "AccessDenied"
    assert call(own) == "allowed"
    with iam.BRIDGE.off():
        assert call(own) == "AccessDenied"
