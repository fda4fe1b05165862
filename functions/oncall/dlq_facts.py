"""Read a dead-letter queue, a sample of its letters, and the queue that they go back to."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import yaml

from oncall import archive, letters, queue_facts
from oncall import contract as contracts
from oncall.archive_store import bucket_store
from oncall.errors import BadInput
from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE
from oncall.replays import Facts, kind_of
from oncall.sqs_wire import Queue
from oncall.targets import queue_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncall import queues
    from oncall.incident import Incident, Run
    from oncall.services import Services

RULES_TAG = "runbook:replay-rules"
"""On the dead-letter queue: the SSM parameter with its owner's rules, as JSON or YAML."""
IDEMPOTENT_TAG = "runbook:idempotent"
"""On the source queue: ``yes`` where the owner declares that a message may come twice."""
_SAMPLE_SECONDS = 60
_BATCH = 10
_EMPTY_POLLS = 3


def read_facts(aws: Services, run: Run, incident: Incident) -> Facts:
    """Read the facts of the dead-letter queue that the run is about.

    Sampled letters are visible again afterwards; a queue that has a dead-letter queue of its own is
    not sampled, as each reading counts there.
    """
    limits = contracts.load(run.runbook).limits
    options = incident.trigger.get("options", {})
    url = queue_url(aws, run.target)
    attributes = queue_facts.attributes(aws, url)
    tags = queue_facts.tags(aws, url)
    redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
    own = str(redrive.get("deadLetterTargetArn", ""))
    sources = _sources(aws, url)
    source = _chosen(sources, str(options.get("source", "")))
    raw, wrong = _rules(aws, tags.get(RULES_TAG, ""), source if len(sources) > 1 else None)
    now = aws.clock().timestamp()
    destination = _destination(aws, source) if source else {}
    sample: Sequence[letters.Letter] = ()
    fates: Counter[str] = Counter()
    opted_in = tags.get(OPT_IN_TAG) == OPT_IN_VALUE
    if opted_in and not own and not options.get("from_archive"):
        sample = _sample(aws, url, int(limits["sample_letters"]))
    if source and not wrong:
        takes = letters.Destination(
            bool(destination["destination_fifo"]), int(destination["destination_max_bytes"])
        )
        rules = letters.compile_rules(raw)
        sorting = letters.Sorting(run.incident, takes, rules, int(limits["max_replays"]))
        fates = Counter(_word(sorting.judge(letter, now)[0]) for letter in sample)
    return Facts(
        dlq=run.target.rsplit(":", 1)[-1],
        dlq_arn=run.target,
        period_seconds=aws.settings.period_seconds,
        now=now,
        fifo=run.target.endswith(".fifo"),
        visible=int(attributes["ApproximateNumberOfMessages"]),
        in_flight=int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        retention=int(attributes["MessageRetentionPeriod"]),
        own_dlq=own.rsplit(":", 1)[-1] or None,
        kinds=dict(Counter(map(kind_of, sample))),
        sources=sources,
        source=source,
        sampled=len(sample),
        classes=dict(fates),
        oldest_sent=min((_sent(letter) for letter in sample), default=None),
        rules=raw,
        rules_from=tags.get(RULES_TAG, ""),
        rules_wrong=wrong,
        drops=any(rule.get("then") == "drop" for rule in raw),
        archive=str(options.get("from_archive", "")),
        archived=_archived(aws, str(options.get("from_archive", ""))),
        **destination,
        **(_consumer(aws, run.runbook, source) if source else {}),
    )


def look_again(aws: Services, run: Run, incident: Incident) -> Facts:
    """Read what a look after the plan judges by: both queues' depths and the consumer's health."""
    url = queue_url(aws, run.target)
    attributes = queue_facts.attributes(aws, url)
    destination = incident.plan.get("order", {}).get("destination")
    return Facts(
        dlq=run.target.rsplit(":", 1)[-1],
        dlq_arn=run.target,
        period_seconds=aws.settings.period_seconds,
        now=aws.clock().timestamp(),
        fifo=run.target.endswith(".fifo"),
        visible=int(attributes["ApproximateNumberOfMessages"]),
        in_flight=int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        retention=int(attributes["MessageRetentionPeriod"]),
        destination=destination,
        consumer=_consumed(aws, run.runbook, destination) if destination else None,
    )


def _word(fate: letters.Fate) -> str:
    return fate.then if fate.then == "replay" else f"{fate.then} ({fate.why})"


def _sent(letter: letters.Letter) -> float:
    return int(letter["Attributes"]["SentTimestamp"]) / 1000


def _sources(aws: Services, url: str) -> list[str]:
    """Return the ARNs of the queues whose dead letters come here."""
    pages = aws.client("sqs").get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=url)
    return sorted(
        queue_facts.attributes(aws, source)["QueueArn"]
        for page in pages
        for source in page.get("queueUrls", [])
    )


def _chosen(sources: Sequence[str], named: str) -> str | None:
    if named:
        return next((arn for arn in sources if arn.rsplit(":", 1)[-1] == named), None)
    return sources[0] if len(sources) == 1 else None


def _rules(aws: Services, parameter: str, only: str | None) -> tuple[list[dict[str, Any]], str]:
    """Return the owner's rules, and what is wrong with them, ``""`` for nothing.

    ``only`` is the one source whose letters go back, where several share the queue.
    """
    ours: list[dict[str, Any]] = []
    if only:
        others = f"^(?!{re.escape(only)}$)"
        ours = [{"name": "other_source", "when": {"source": others}, "then": "leave"}]
    if not parameter:
        return ours, ""
    found = aws.client("ssm").get_parameters(Names=[parameter])["Parameters"]
    if not found:
        return ours, f"There is no SSM parameter {parameter}, which the tag {RULES_TAG} names."
    try:
        rules = yaml.safe_load(found[0]["Value"])
        letters.compile_rules([*ours, *rules] if isinstance(rules, list) else rules)
    except (BadInput, yaml.YAMLError) as error:
        return ours, f"The rules in {parameter} cannot be read: {error}"
    return [*ours, *rules], ""


def _sample(aws: Services, url: str, most: int) -> list[letters.Letter]:
    """Look at up to ``most`` letters and let them go again."""
    found: dict[str, letters.Letter] = {}
    handles: dict[str, str] = {}
    empty = 0
    with Queue(aws.session, url, aws.settings.region) as queue:
        while len(found) < most and empty < _EMPTY_POLLS:
            received = queue.receive(min(_BATCH, most - len(found)), _SAMPLE_SECONDS, 1)
            empty = 0 if received else empty + 1
            for letter in received:
                found[letter["MessageId"]] = letter
                handles[letter["MessageId"]] = letter["ReceiptHandle"]
        names = list(handles)
        for start in range(0, len(names), _BATCH):
            some = {name: handles[name] for name in names[start : start + _BATCH]}
            queue.hide(some, 0)
    return list(found.values())


def _destination(aws: Services, arn: str) -> dict[str, Any]:
    url = queue_url(aws, arn)
    tags = queue_facts.tags(aws, url)
    return {
        "destination": arn,
        "destination_opted_in": tags.get(OPT_IN_TAG) == OPT_IN_VALUE,
        "destination_fifo": arn.endswith(".fifo"),
        "destination_max_bytes": int(queue_facts.attributes(aws, url)["MaximumMessageSize"]),
        "idempotent": tags.get(IDEMPOTENT_TAG) == "yes",
    }


def _consumer(aws: Services, runbook: str, source: str) -> dict[str, Any]:
    consumer = _consumed(aws, runbook, source)
    changed = None
    if consumer.function_arn:
        configuration = aws.client("lambda").get_function_configuration(
            FunctionName=consumer.function_arn
        )
        changed = datetime.fromisoformat(configuration["LastModified"]).timestamp()
    return {"consumer": consumer, "deployed_at": changed}


def _consumed(aws: Services, runbook: str, queue: str) -> queues.Facts:
    return queue_facts.read_facts(aws, runbook, queue)


def _archived(aws: Services, incident: str) -> int:
    """Return how many letters of an incident's archive were not replayed."""
    if not incident:
        return 0
    return sum(1 for _ in archive.not_replayed(bucket_store(aws), incident))
