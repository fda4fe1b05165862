"""Bridges over MiniStack's gaps: each imitates behaviour that AWS documents.

A bridge is a module with a `BRIDGE`; `local/aws/README.md` lists gap, source and test. A test
takes each bridge out and shows that the gap is still there: when that fails, upstream has closed
the gap and the bridge goes.
"""

from local.aws.bridges import account_concurrency
from local.aws.bridges.bridge import Bridge
from local.aws import workers

ALL: list[Bridge] = [account_concurrency.BRIDGE]


def install() -> None:
    """Put every bridge in place; again is harmless."""
    workers.install()
    for bridge in ALL:
        bridge.on()
