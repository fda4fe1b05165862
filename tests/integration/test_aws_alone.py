"""`python -m local.aws`: a shell is told of an AWS whose checkers and name servers work."""

import http.server
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from oncall import name_servers
from tests.integration.two_regions import Well


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, str]]:
    """The variables that it prints."""
    command = [sys.executable, "-m", "local.aws", "--health-interval", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 -- this project's own module
        assert process.stdout
        found: dict[str, str] = {}
        while "NAME_SERVERS" not in found:
            line = process.stdout.readline()
            assert line, "it has ended"
            found |= dict(
                re.findall(r"(\w+)=(\S+)", line.removeprefix("export ").rstrip(), re.ASCII)
            )
        yield found
        process.terminate()


def test_checkers_probe_and_name_servers_answer(
    told: dict[str, str], eventually: Callable[..., Any]
) -> None:
    route53 = boto3.client(
        "route53",
        endpoint_url=told["AWS_ENDPOINT_URL"],
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="test",
        region_name=told["AWS_REGION"],
    )
    with http.server.HTTPServer(("127.0.0.1", 0), Well) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        check = route53.create_health_check(
            CallerReference=str(uuid.uuid4()),
            HealthCheckConfig={
                "Type": "HTTP", "IPAddress": "127.0.0.1", "Port": server.server_address[1],
            },
        )["HealthCheck"]["Id"]  # fmt: skip

        def seen() -> bool:
            said = route53.get_health_check_status(HealthCheckId=check)["HealthCheckObservations"]
            return any(
                one["StatusReport"]["Status"] == "Success: HTTP Status Code 200, OK" for one in said
            )

        eventually(seen)
        server.shutdown()
    zone = route53.create_hosted_zone(Name="example.com", CallerReference=str(uuid.uuid4()))
    record: Any = {
        "Name": "www.example.com", "Type": "A", "TTL": 1,
        "ResourceRecords": [{"Value": "127.0.0.9"}],
    }  # fmt: skip
    route53.change_resource_record_sets(
        HostedZoneId=zone["HostedZone"]["Id"],
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
    )
    servers = {}
    for one in told["NAME_SERVERS"].split(","):
        name, _, where = one.partition("=")
        host, _, port = where.rpartition(":")
        servers[name] = (host, int(port))
    assert len(servers) == 4

    def answered() -> bool:
        given = name_servers.answers(servers, "www.example.com", "A")
        return set(given.values()) == {frozenset({"127.0.0.9"})}

    eventually(answered)
