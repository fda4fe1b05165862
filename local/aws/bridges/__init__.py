"""Bridges over MiniStack's gaps: each imitates behaviour that AWS documents.

A bridge is a module of this package with a `BRIDGE`; `local/aws/README.md` lists gap, source and
test. A test takes each bridge out and shows that the gap is still there: when that fails, upstream
has closed the gap and the bridge goes.
"""

import importlib
import pkgutil

from local.aws import workers
from local.aws.bridges.bridge import Bridge

_modules = [
    importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
]
ALL: list[Bridge] = [module.BRIDGE for module in _modules if hasattr(module, "BRIDGE")]


def install() -> None:
    """Put every bridge in place; again is harmless."""
    workers.install()
    for bridge in ALL:
        bridge.on()
