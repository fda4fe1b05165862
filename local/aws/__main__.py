"""`python -m local.aws`: the embedded AWS on its own, until Ctrl-C."""

import argparse
import signal
import threading

from local.aws.cloudwatch import CloudWatch, Settings
from local.aws.launcher import EmbeddedAws


def main() -> None:
    """Start, print what a shell needs to use it, wait for Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local.aws", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) picks a free one")
    parser.add_argument("--account", default="123456789012", help="twelve digits")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument(
        "--resolution",
        type=int,
        default=60,
        help="seconds between evaluations of alarms; 60 (the default) is AWS's",
    )
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    cloudwatch = CloudWatch(Settings(resolution_seconds=options.resolution))
    with EmbeddedAws(
        options.account, options.region, port=options.port, extensions=(cloudwatch,)
    ) as aws:
        print(f"# embedded AWS at {aws.endpoint_url}; Ctrl-C stops it")
        print(f"export AWS_ENDPOINT_URL={aws.endpoint_url}")
        print(f"export AWS_ACCESS_KEY_ID={aws.account} AWS_SECRET_ACCESS_KEY=test")
        print(f"export AWS_DEFAULT_REGION={aws.region} AWS_REGION={aws.region}", flush=True)
        done.wait()


if __name__ == "__main__":
    main()
