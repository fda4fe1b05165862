"""Check whether services could be failed over: every day, and at the end of a failback.

On schedule it looks at every service file with the eyes of `runbook doctor`, and writes what it
finds; the report tells people what is new. A service is looked at by the stack in its standby
Region, where a failover runs; by another Region's only where there is none. One service that fails
does not keep the others from being looked at: ``SweepIncomplete`` names those that did.

As a failback's step it is called with ``{"run", "state"}`` and returns ``{"ready": bool}``: what
would be in the next failover's way is told in the thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import readiness, readiness_news, service
from oncall.errors import BadInput, SweepIncomplete
from oncall.failover import FAILOVER
from oncall.failover_facts import read_facts
from oncall.incident import Entry
from oncall.readiness_facts import read_inventory
from oncall.readiness_seen import RULES
from oncall.stack_facts import has_function
from oncall.step import logged, logger, services, step
from oncall.targets import service_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.readiness_seen import Finding
    from oncall.service import Service
    from oncall.services import Services
    from oncall.step import Call

OWN_NAME = "check-readiness"
"""The end of this function's name."""


def handler(event: Mapping[str, Any], context: object) -> Mapping[str, Any]:
    """Check every service, or as a step the run's."""
    if "run" in event:
        return _after_failback(event, context)
    with logged(function="check_readiness"):
        return check_all(services())


def check_all(aws: Services) -> Mapping[str, Any]:
    """Look at every service; ``{"checked": [names], "left": [names]}``.

    ``left`` are those that the stack in their standby Region looks at.
    """
    done: dict[str, list[str]] = {"checked": [], "left": []}
    failures = []
    for name in service.names():
        try:
            done["checked" if _check(aws, name) else "left"].append(name)
        except Exception as error:  # noqa: BLE001 -- collected, and raised in the end
            logger.exception(f"{name} was not checked")
            failures.append(f"{name} ({type(error).__name__}: {error})")
    logger.info("checked", extra={"done": done, "failures": failures})
    if failures:
        raise SweepIncomplete(
            f"The readiness of {len(failures)} services was not checked: {'; '.join(failures)}. "
            f"`runbook doctor` checks it by hand."
        )
    return done


def _check(aws: Services, name: str) -> bool:
    here = aws.settings.region
    try:
        one = service.load(name)
    except BadInput as error:
        aws.store.put_readiness(
            name, readiness_news.written(here, (readiness.broken_file(str(error)),))
        )
        return True
    if _left_to_another(aws, one):
        return False
    aws.store.put_readiness(name, readiness_news.written(here, _findings(aws, one)))
    return True


def _findings(aws: Services, one: Service) -> tuple[Finding, ...]:
    facts = read_facts(aws, one, RULES, direction=FAILOVER)
    return readiness.findings(one, facts, read_inventory(aws, one, aws.settings.stack))


def _left_to_another(aws: Services, one: Service) -> bool:
    """Say whether the stack in the service's standby Region looks at it.

    Where that does not answer, this one does: told twice is better than not at all.
    """
    standby = one.regions["standby"]
    if standby == aws.settings.region:
        return False
    try:
        return has_function(aws.within(standby), f"{aws.settings.stack}-{OWN_NAME}")
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        return False


def _work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Tell in the thread what would be in the next failover's way."""
    one = service.load(service_name(call.run.target))
    said = readiness.after_failback(one, _findings(aws, one))
    incident = aws.store.load(call.run.incident)
    entry = Entry(
        id=f"readiness-{call.run.round}",
        kind="warned" if said.lines else "verified",
        text="\n".join([said.summary, *said.lines]),
    )
    progress = dict(incident.progress)
    if said.lines:
        progress |= {"warning": said.summary, "need": said.need}
    aws.store.note(call.run, entry, progress=progress)
    return {"ready": not said.lines}


_after_failback = step(_work)
