"""What every runbook decides in: a diagnosis, a plan with numbers, and looks at what came of it.

Pure. A runbook's own module (``queues``, ``throttles``) makes them from its facts; ``planning`` and
``looking`` write them into the record.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncall.changes import Planned

SHARE_OF_A_RUN = 0.25
"""A plan may predict at most this share of the time that a run has; the rest is for overruns."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause, in a word and in a sentence, with its evidence."""

    cause: str
    sentence: str
    evidence: tuple[str, ...]
    """The first one completes "<target> had … when I looked"."""


type Cause = tuple[str, str]
"""A cause in a word and in a sentence."""
NO_CAUSE: Cause = ("", "")


def diagnosed(evidence: tuple[str, ...], causes: Iterable[Cause], otherwise: Cause) -> Diagnosis:
    """Return the first cause that there is, else ``otherwise``."""
    cause, sentence = next((one for one in causes if one[0]), otherwise)
    return Diagnosis(cause, sentence, evidence)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, with numbers; ``changes`` in the order in which they are made, one a lever."""

    action: str
    """A word that the contract's ``modes.always_ask`` and ``approval`` may name; ``human``: none
    of the runbook's own, a person decides."""
    goal: str
    """What the looks judge by; the runbook's own word."""
    changes: tuple[Planned, ...]
    sentence: str
    bounds: tuple[str, ...] = ()
    predicted_seconds: int | None = None
    order: Mapping[str, Any] = field(default_factory=dict)
    """What is done besides changing settings, with its limits; approved like the changes."""

    @property
    def acts(self) -> bool:
        """Whether anything is done to production."""
        return bool(self.changes or self.order)

    def document(self, diagnosis: Diagnosis, seen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the plan as the record holds it; ``hash`` covers what is approved.

        ``seen`` are the numbers that later looks compare with.
        """
        changes = [asdict(change) for change in self.changes]
        approved = [self.action, changes, *([dict(self.order)] if self.order else [])]
        covered = json.dumps(approved, sort_keys=True).encode()
        return {
            "action": self.action,
            "goal": self.goal,
            "changes": changes,
            "order": dict(self.order),
            "sentence": self.sentence,
            "ask": f"{self.sentence} Shall I?",
            "bounds": list(self.bounds),
            "predicted_seconds": self.predicted_seconds,
            "cause": diagnosis.cause,
            "evidence": list(diagnosis.evidence),
            **seen,
            "hash": hashlib.sha256(covered).hexdigest(),
        }


@dataclass(frozen=True, slots=True)
class Look:
    """What one look after a change has found; each look is handed the one before."""

    number: int = 0
    verdict: str = ""
    """``wait relieved protected shed_over contained ineffective worse recurred``"""
    sentence: str = ""
    measure: float | None = None
    """The number that has to fall: messages that wait, throttles in a period."""
    calm: int = 0
    """Looks in a row at which all was well."""
    bad: int = 0
    """Looks in a row at which it was not, and did not get better."""
    done: float = 0.0
    eta_seconds: int | None = None
    carry: Mapping[str, Any] = field(default_factory=dict)
    """What a runbook hands on from look to look; ``effect`` in it says what has been done that no
    setting shows."""


def relapsed(look: Look, rules: Mapping[str, float]) -> bool:
    """Return whether a watch for calm has failed.

    What goes up and down resets both counts, so the looks are counted too.
    """
    most = rules["calm_periods"] * rules["patience_periods"]
    return look.bad >= rules["patience_periods"] or look.number >= most


def ended(look: Look, verdict: str, sentence: str) -> Look:
    """Return a look with its verdict."""
    done = 1.0 if verdict == "relieved" else look.done
    return replace(look, verdict=verdict, sentence=sentence, done=done)
