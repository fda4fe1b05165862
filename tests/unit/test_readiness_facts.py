"""What readiness reads of an account of which much does not answer, or refuses."""

from typing import Any

from oncall import readiness_facts, service
from oncall.readiness_seen import FunctionSeen, HealthCheckSeen, Inventory
from tests.unit.test_failover_facts import Aws, refusal

SHOP = service.load("shop", service.SAMPLE)
STANDBY = "eu-west-1"


def read(calls: Any = None, endpoints: Any = None) -> Inventory:
    aws: Any = Aws(calls, endpoints)
    return readiness_facts.read_inventory(aws, SHOP, "runbooks")


def test_when_nothing_answers_all_is_unknown_and_nothing_is_raised() -> None:
    seen = read()
    assert seen.record_sets is None
    assert seen.health_checks == {}
    assert set(seen.endpoints.values()) == {False}
    assert len(seen.endpoints) == 5
    assert seen.alarm is None
    # Which function a consumer has is not told either: what has capacity is in the file.
    assert seen.functions == {
        "primary": (),
        "standby": (FunctionSeen("shop"), FunctionSeen("shop:live")),
    }


def test_an_endpoint_that_refuses_is_not_one_that_is_away() -> None:
    seen = read(
        endpoints={
            "us-west-2": {"get_routing_control_state": refusal("AccessDeniedException", 403)},
            "us-east-1": {"get_routing_control_state": refusal("InternalServerException", 500)},
            STANDBY: {"get_routing_control_state": lambda **_: {"RoutingControlState": "On"}},
        }
    )
    assert seen.endpoints == {
        "us-west-2": None,
        "us-east-1": False,
        STANDBY: True,
        "ap-northeast-1": False,
        "ap-southeast-2": False,
    }


def test_checks_that_records_follow_are_read_down_to_their_children_each_once() -> None:
    asked: list[str] = []
    checks: dict[str, dict[str, Any]] = {
        "top": {"Type": "CALCULATED", "ChildHealthChecks": ["child", "top"]},
        "child": {"Type": "TCP"},
    }

    def check(HealthCheckId: str) -> Any:  # noqa: N803 -- boto3's name
        asked.append(HealthCheckId)
        if HealthCheckId not in checks:
            return refusal("NoSuchHealthCheck", 404)()
        return {"HealthCheck": {"HealthCheckConfig": checks[HealthCheckId]}}

    statuses = ("Success: HTTP Status Code 200, OK", "Failure: timed out", "Success", "Success")
    observed = [{"StatusReport": {"Status": status}} for status in statuses]
    record = {"Name": "shop.example.com.", "Type": "A", "HealthCheckId": "top"}
    route53 = {
        "get_health_check": check,
        "get_health_check_status": lambda **_: {"HealthCheckObservations": observed},
        "list_resource_record_sets": lambda **_: {"ResourceRecordSets": [record]},
    }
    seen = read({STANDBY: {"route53": route53}})
    assert seen.record_sets == [record]
    assert seen.health_checks["top"] == HealthCheckSeen(checks["top"])
    assert seen.health_checks["child"] == HealthCheckSeen(checks["child"], 0.75)
    missing = SHOP.health_checks["standby"][0]
    assert seen.health_checks[missing] == HealthCheckSeen({})
    assert sorted(asked) == sorted(set(asked))


def test_a_check_whose_status_is_not_told_is_there_all_the_same() -> None:
    answer = {"HealthCheck": {"HealthCheckConfig": {"Type": "HTTP"}}}
    seen = read({STANDBY: {"route53": {"get_health_check": lambda **_: answer}}})
    assert len(seen.health_checks) == 3
    assert all(one == HealthCheckSeen({"Type": "HTTP"}) for one in seen.health_checks.values())


def test_of_variables_the_names_are_kept_and_never_the_values() -> None:
    def configuration(FunctionName: str) -> Any:  # noqa: N803 -- boto3's name
        locked = FunctionName.endswith(":live")
        return {
            "CodeSha256": "sha",
            "MemorySize": 512,
            "Timeout": 30,
            "Role": "arn:aws:iam::123456789012:role/shop",
            "Environment": {"Error": {"ErrorCode": "AccessDeniedException"}}
            if locked
            else {"Variables": {"TOKEN": "secret-value"}},
        }

    mapping = {"FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:worker"}
    calls = {
        "get_function_configuration": configuration,
        "get_event_source_mapping": lambda **_: mapping,
    }
    seen = read({STANDBY: {"lambda": calls}}).functions["standby"]
    names = frozenset({"TOKEN"})
    assert seen == (
        FunctionSeen("shop", "sha", 512, 30, names),
        FunctionSeen("shop:live", "sha", 512, 30, None),
        FunctionSeen("worker", "sha", 512, 30, names),
    )
    assert "secret-value" not in str(seen)
