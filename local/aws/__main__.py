"""`python -m local.aws`: the embedded AWS on its own, until Ctrl-C."""

import argparse
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from local.aws.cloudwatch import CloudWatch, Settings
from local.aws.launcher import EmbeddedAws
from local.aws.route53.data_plane import Route53DataPlane


def main() -> None:
    """Start, print what a shell needs to use it, wait for Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local.aws", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) picks a free one")
    parser.add_argument("--account", default="123456789012", help="twelve digits")
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument(
        "--resolution",
        type=int,
        help="seconds between evaluations of alarms; 60 (the default) is AWS's, 1 a playground's",
    )
    parser.add_argument(
        "--playground",
        action="store_true",
        help="deploy the runbooks and their pilot, with a fake Slack and PagerDuty",
    )
    parser.add_argument(
        "--health-interval",
        type=float,
        default=10,
        help="seconds between probes of Route 53's checkers; 10 (the default) or 30 on AWS",
    )
    options = parser.parse_args()
    resolution = options.resolution or (1 if options.playground else 60)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    cloudwatch = CloudWatch(Settings(resolution_seconds=resolution))
    route53 = Route53DataPlane(interval_seconds=options.health_interval)
    with ExitStack() as stack:
        aws = stack.enter_context(
            EmbeddedAws(
                options.account,
                options.region,
                port=options.port,
                extensions=(cloudwatch, route53),
            )
        )
        if options.playground:
            sys.path.insert(1, str(Path(__file__).parents[2] / "functions"))
            from local.playground import Playground  # noqa: PLC0415 -- imports what ships

            stack.enter_context(Playground(aws=aws))
        servers = {
            n.rstrip("."): one.address for n, one in route53.name_servers(aws.account).items()
        }
        told = ",".join(f"{name}={host}:{port}" for name, (host, port) in servers.items())
        print(f"# embedded AWS at {aws.endpoint_url}; Ctrl-C stops it")
        print(f"export AWS_ENDPOINT_URL={aws.endpoint_url}")
        print(f"export AWS_ACCESS_KEY_ID={aws.account} AWS_SECRET_ACCESS_KEY=test")
        print(f"export AWS_DEFAULT_REGION={aws.region} AWS_REGION={aws.region}")
        # What the function that verifies a failover takes for its zone's name servers.
        print(f"export NAME_SERVERS={told}", flush=True)
        done.wait()


if __name__ == "__main__":
    main()
