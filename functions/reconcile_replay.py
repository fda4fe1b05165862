"""Account for every letter of a replay: what was archived against what became of it.

Called with ``{"run", "state"}``; returns the fields of ``oncall.archive.Balance``. Reads only.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall import archive
from oncall.archive_store import bucket_store
from oncall.errors import NotReconciled
from oncall.incident import Entry
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.archive import Balance
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Reconcile, by count and by id. Raises ``NotReconciled`` with what differs."""
    balance = archive.reconcile(bucket_store(aws), call.run.incident)
    if not balance.balanced:
        raise NotReconciled(_difference(balance))
    entry = Entry(id=f"balanced-{call.run.round}", kind="verified", text=_balanced(balance))
    aws.store.note(call.run, entry)
    return asdict(balance)


def _balanced(balance: Balance) -> str:
    doubt = ""
    if balance.unknown:
        doubt += f" {balance.unknown} of a worker that died: deleted only if confirmed."
    if balance.possible_duplicates:
        doubt += f" At most {balance.possible_duplicates} may have been sent twice."
    return (
        f"All {balance.archived} archived letters are accounted for, by id: {balance.replayed} "
        f"replayed, {balance.quarantined} quarantined, {balance.dropped} dropped, {balance.left} "
        f"left.{doubt}"
    )


def _difference(balance: Balance) -> str:
    told = balance.replayed + balance.quarantined + balance.dropped + balance.left + balance.unknown
    named = ", ".join(balance.examples)
    return (
        f"{balance.archived} letters are archived and {told} accounted for; {balance.differences} "
        f"differ{': ' + named if named else ''}. Nothing more is moved; compare archive and ledger."
    )


handler = step(work)
