"""The errors that steps raise; state machines route on the class names.

OnCallError
├── BadInput        nothing was opened or changed; the sentence says what to give instead
├── GuardRefused    a guard says no; what the run changed is put back
│   └── TargetBusy  another incident holds the target
├── Aborted         a person stopped the run; what it changed is put back
├── TakenOver       a person took the run over; what it changed stays, with the commands to undo it
├── Rejected        an approver said no to the plan
├── WorldMoved      the live value is not the one that the plan saw: look and plan again
├── NeedsHuman      the evidence calls for a decision or an action that is not the machine's
├── Ineffective     the change did not help in time, or made things worse
├── Contained       what a person agreed to stop is stopped, and stays so until a person lets it go
├── Recurred        it helped, but the trouble was back after settings were put back
├── NotReconciled   the archive and what became of the letters differ; the sentence names them
├── PutBackFailed   a setting could not be put back; its lease stays so that the sweeper tries again
├── LockLost        another run holds the target now: this one may not write any more
├── Contended       too many write to one incident at once; the caller tries again
├── RunLost         an execution ended without closing its incident: it is wound down from outside
├── SweepIncomplete the sweep could not do some of its work; the next one tries again
├── NotFound        no incident, queue or function of that name
├── Denied          this person may not decide this
└── NotDelivered    Slack or PagerDuty did not take a report; the stream delivers it again
"""


class OnCallError(Exception):
    """Base of every error that a step raises on purpose; its text is a sentence for people."""


class BadInput(OnCallError):
    """The input is wrong; the sentence names the field and shows an input that works."""


class GuardRefused(OnCallError):
    """A guard refuses; the sentence gives the numbers and says how to lift it."""


class TargetBusy(GuardRefused):
    """Another incident holds the target; ``holder`` is its id."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class Aborted(OnCallError):
    """A person stopped the run."""


class TakenOver(OnCallError):
    """A person took over; settings stay as they are."""


class Rejected(OnCallError):
    """An approver rejected the plan."""


class WorldMoved(OnCallError):
    """The live value is not the one that the plan was made from."""


class NeedsHuman(OnCallError):
    """No action of the runbook fits the evidence."""


class Ineffective(OnCallError):
    """The metrics have not improved in time, or something got worse."""


class Recurred(OnCallError):
    """The trouble came back once the settings were put back."""


class Contained(OnCallError):
    """The harm is stopped by a change that only a person may undo, once its cause is mended."""


class NotReconciled(OnCallError):
    """What was archived is not what was replayed, quarantined, dropped and left."""


class PutBackFailed(OnCallError):
    """At least one setting could not be put back."""


class LockLost(OnCallError):
    """The run's fencing token is no longer the lock's."""


class Contended(OnCallError):
    """Too many writers at once; trying again helps."""


class RunLost(OnCallError):
    """The execution ended without closing its incident: timed out, failed or was deleted."""


class SweepIncomplete(OnCallError):
    """Some items of a sweep failed; the sentence names them."""


class NotFound(OnCallError):
    """The named thing does not exist."""


class Denied(OnCallError):
    """The person is not among the approvers."""


class NotDelivered(OnCallError):
    """A report was not accepted; delivered again by the stream or the sweeper."""
