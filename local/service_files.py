"""Ship a service's file with the functions that read it, as the next deployment would."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.aws import AwsAccount

_ROOT = Path(__file__).parent.parent
_READERS = (
    "open-incident",
    "inspect-failover",
    "plan-failover",
    "take-failover-step",
    "verify-failover",
    "check-readiness",
    "dispatch-alarm",
    "reconcile",
    "report",
)
"""Functions that read service files."""
_ASKS_NAME_SERVERS = "verify-failover"


def ship(
    aws: AwsAccount,
    stack: str,
    file: Mapping[str, Any],
    servers: Mapping[str, tuple[str, int]],
) -> None:
    """Update the functions of a stack to know a service, and where its name servers are.

    ``file`` is the service's file, with a ``name``; ``servers`` are hosts and ports by name.
    """
    functions = aws.client("lambda")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        folder = _ROOT / "functions"
        for path in sorted(folder.rglob("*.py")):
            archive.write(path, path.relative_to(folder))
        for path in sorted((_ROOT / "runbooks").rglob("*.*")):
            archive.write(path, path.relative_to(_ROOT))
        # A fixed date makes equal content equal code, whenever and wherever it is shipped.
        named = zipfile.ZipInfo(f"runbooks/services/{file['name']}.yaml", (1980, 1, 1, 0, 0, 0))
        archive.writestr(named, yaml.safe_dump(dict(file)))
    for name in _READERS:
        functions.update_function_code(FunctionName=f"{stack}-{name}", ZipFile=code.getvalue())
    known = ",".join(f"{name}={host}:{port}" for name, (host, port) in servers.items())
    name = f"{stack}-{_ASKS_NAME_SERVERS}"
    found = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": {**found, "NAME_SERVERS": known}}
    )
