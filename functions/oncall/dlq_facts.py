"""Read a dead-letter queue, a sample of its letters, and the queue that they go back to."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml
from botocore.exceptions import ClientError

from oncall import archive, deliveries, elsewhere, elsewhere_facts, letters, metrics, queue_facts
from oncall import contract as contracts
from oncall.archive_store import bucket_store
from oncall.errors import BadInput
from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE
from oncall.replays import DELIVERABLE, QUEUE, Arrived, Consumer, Facts, consumer_of, kind_of
from oncall.sqs_wire import Queue
from oncall.targets import MISSING, queue_url, resolve
from oncall.unarchived import ARCHIVE_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oncall.incident import Incident, Run
    from oncall.services import Services

RULES_TAG = "runbook:replay-rules"
"""On the dead-letter queue: the SSM parameter with its owner's rules, as JSON or YAML."""
IDEMPOTENT_TAG = "runbook:idempotent"
"""On the source queue: ``yes`` where the owner declares that a message may come twice."""
RATE_TAG = "runbook:replay-rate"
"""On the source queue: how many letters a second its owner lets come at most."""
_ASYNC_FATE_SECONDS = 200
"""Lambda tries an event that fails again after one and after two minutes more (Developer Guide,
"How Lambda handles errors and retries with asynchronous invocation")."""
_SAMPLE_SECONDS = 60
_RATE = re.compile(r"[1-9]\d{0,5}(\.\d+)?", re.ASCII)
_BATCH = 10
_EMPTY_POLLS = 3


def read_facts(aws: Services, run: Run, incident: Incident) -> Facts:
    """Read the facts of the dead-letter queue that the run is about.

    Sampled letters are visible again afterwards; a queue that has a dead-letter queue of its own is
    not sampled, as each reading counts there, nor is one that is not opted in.
    """
    contract = contracts.load(run.runbook)
    options = {key: str(value) for key, value in incident.trigger.get("options", {}).items()}
    url = queue_url(aws, run.target)
    tags = queue_facts.tags(aws, url)
    queue = _queue(aws, run, url)
    sources = _sources(aws, url)
    source = _chosen(sources, options.get("source", ""))
    raw, wrong = _rules(aws, tags.get(RULES_TAG, ""), source if len(sources) > 1 else None)
    kept = archive.not_replayed(bucket_store(aws), options.get("from_archive", ""))
    archived = 0
    sample: Sequence[letters.Letter] = ()
    most = int(contract.limits["sample_letters"])
    if options.get("from_archive"):
        sample = list(islice(kept, most))
        archived = len(sample) + sum(1 for _ in kept)
    elif tags.get(OPT_IN_TAG) == OPT_IN_VALUE and not queue["own_dlq"]:
        sample = _sample(aws, url, most)
    kinds = Counter(map(kind_of, sample))
    kind = next(iter(kinds)) if len(kinds) == 1 and kinds.keys() <= DELIVERABLE.keys() else QUEUE
    named = options.get("deliver_to", "")
    if kind != QUEUE:
        where = _target(aws, run.target, named, sample)
    elif named and (source or not sources):
        where = _target(aws, run.target, named, ())
    else:
        where = source
    goes = _destination(aws, run.target, where) if where else {}
    now = aws.clock().timestamp()
    fates: Counter[str] = Counter()
    if where and not wrong:
        fits = letters.Destination(goes["destination_fifo"], goes["destination_max_bytes"])
        sorting = letters.Sorting(
            run.incident, fits, letters.compile_rules(raw), int(contract.limits["max_replays"])
        )
        fates = Counter(_word(sorting.judge(letter, now)[0]) for letter in sample)
    return Facts(
        period_seconds=aws.settings.period_seconds,
        now=now,
        kinds=dict(kinds),
        kind=kind,
        sources=sources,
        source=source,
        sampled=len(sample),
        classes=dict(fates),
        oldest_sent=min((letters.sent_at(letter) for letter in sample), default=None),
        rules=raw,
        rules_from=tags.get(RULES_TAG, ""),
        rules_wrong=wrong,
        drops=any(rule["then"] == "drop" for rule in raw),
        archive=options.get("from_archive", ""),
        archived=archived,
        archive_tag=tags.get(ARCHIVE_TAG, ""),
        consumer=_consumer(aws, run, where) if where and not goes["destination_trouble"] else None,
        **queue,
        **goes,
    )


def look_again(
    aws: Services, run: Run, incident: Incident, needs_sample: Callable[[Facts], bool]
) -> Facts:
    """Read what a look after the plan judges by: both queues' depths and the consumer's health.

    Letters are only looked at where ``needs_sample`` of these facts.
    """
    where = incident.plan.get("order", {}).get("destination")
    facts = Facts(
        period_seconds=aws.settings.period_seconds,
        now=aws.clock().timestamp(),
        destination=where,
        consumer=_consumer(aws, run, where) if where else None,
        **_queue(aws, run, queue_url(aws, run.target)),
    )
    if not needs_sample(facts):
        return facts
    most = int(contracts.load(run.runbook).limits["sample_letters"])
    return replace(facts, arrived=_arrived(aws, run, incident, most))


def _arrived(aws: Services, run: Run, incident: Incident, most: int) -> Arrived:
    sample = _sample(aws, queue_url(aws, run.target), most)
    known = unmarked(aws, incident)
    since = incident.plan["looked_at"]
    back = new = 0
    for letter in sample:
        mark = letters.read_mark(letter)
        ours = mark is not None and mark.run == run.incident
        if ours or (known is not None and known.has_come_back(letter)):
            back += 1
        else:
            new += letters.sent_at(letter) > since
    return Arrived(sampled=len(sample), back=back, new=new)


def unmarked(aws: Services, incident: Incident) -> letters.Unmarked | None:
    """Return what the run has replayed to a function so far; ``None`` where letters keep marks."""
    order = incident.plan["order"]
    if not is_function(order["destination"]):
        return None
    event_of = partial(deliveries.event_of, order["kind"])
    known = letters.Unmarked(incident.plan["looked_at"], event_of)
    for body in archive.replayed_bodies(bucket_store(aws), incident.id):
        known.replayed(body)
    return known


def _queue(aws: Services, run: Run, url: str) -> dict[str, Any]:
    attributes = queue_facts.attributes(aws, url)
    redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
    own = str(redrive.get("deadLetterTargetArn", ""))
    return {
        "dlq": run.target.rsplit(":", 1)[-1],
        "dlq_arn": run.target,
        "fifo": run.target.endswith(".fifo"),
        "visible": int(attributes["ApproximateNumberOfMessages"]),
        "in_flight": int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        "retention": int(attributes["MessageRetentionPeriod"]),
        "own_dlq": own.rsplit(":", 1)[-1] or None,
    }


def _word(fate: letters.Fate) -> str:
    return fate.then if fate.then == "replay" else f"{fate.then} ({fate.why})"


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


def _target(aws: Services, here: str, named: str, sample: Sequence[letters.Letter]) -> str | None:
    """Return the ARN of whom letters are delivered to: as named, or as EventBridge has noted.

    What is in another account or Region than ``here`` counts only if it is named.
    """
    if named:
        is_queue = ":sqs:" in named
        return named if is_queue else resolve(aws, "function", named).arn
    noted = {
        str(letter.get("MessageAttributes", {}).get("TARGET_ARN", {}).get("StringValue"))
        for letter in sample
    }
    arn = noted.pop() if len(noted) == 1 else ""
    if not is_function(arn) and ":sqs:" not in arn:
        return None
    return arn if arn.split(":")[3:5] == here.split(":")[3:5] else None


def is_function(arn: str) -> bool:
    """Return whether an ARN is a Lambda function's."""
    return ":lambda:" in arn


def destination_tags(aws: Services, arn: str) -> Mapping[str, str]:
    """Return the tags of the queue or function that letters go to."""
    if is_function(arn):
        return aws.client("lambda").list_tags(Resource=arn)["Tags"]
    return queue_facts.tags(aws, queue_url(aws, arn))


def takes(aws: Services, arn: str) -> letters.Destination:
    """Return what the queue or function that letters go to takes."""
    if is_function(arn):
        return letters.Destination(fifo=False, max_message_bytes=deliveries.MOST_BYTES)
    attributes = queue_facts.attributes(aws, queue_url(aws, arn))
    return letters.Destination(arn.endswith(".fifo"), int(attributes["MaximumMessageSize"]))


def _destination(aws: Services, here: str, arn: str) -> dict[str, Any]:
    if elsewhere.is_elsewhere(here, arn):
        return elsewhere_facts.destination(aws, arn)
    try:
        tags, most = destination_tags(aws, arn), takes(aws, arn)
    except ClientError as error:
        if is_function(arn) or error.response["Error"]["Code"] not in MISSING:
            raise
        return elsewhere_facts.unusable(arn, elsewhere.missing(arn))
    changed = None
    function = arn if is_function(arn) else _consuming_function(aws, arn)
    if function:
        configuration = aws.client("lambda").get_function_configuration(FunctionName=function)
        changed = datetime.fromisoformat(configuration["LastModified"]).timestamp()
    return {
        "destination": arn,
        "destination_opted_in": tags.get(OPT_IN_TAG) == OPT_IN_VALUE,
        "destination_trouble": "",
        "destination_fifo": most.fifo,
        "destination_max_bytes": most.max_message_bytes,
        "idempotent": tags.get(IDEMPOTENT_TAG) == "yes",
        "deployed_at": changed,
        **_owners_rate(arn.rsplit(":", 1)[-1], tags.get(RATE_TAG, "")),
    }


def _owners_rate(name: str, said: str) -> dict[str, Any]:
    if not said:
        return {}
    if _RATE.fullmatch(said):
        return {"owners_rate": float(said)}
    return {
        "owners_rate_wrong": f"{name}'s tag {RATE_TAG} says {said!r}, which is no number of "
        f"letters a second from 1 on. Give for example {RATE_TAG}=50."
    }


def _consuming_function(aws: Services, queue: str) -> str | None:
    pages = (
        aws.client("lambda")
        .get_paginator("list_event_source_mappings")
        .paginate(EventSourceArn=queue)
    )
    found = [mapping["FunctionArn"] for page in pages for mapping in page["EventSourceMappings"]]
    return found[0] if len(found) == 1 else None


def _consumer(aws: Services, run: Run, where: str) -> Consumer | None:
    if elsewhere.is_elsewhere(run.target, where):
        return elsewhere_facts.consumer(aws, where)
    rules = contracts.load(run.runbook).verification
    if not is_function(where):
        return consumer_of(queue_facts.read_facts(aws, run.runbook, where), rules)
    name = where.rsplit(":", 1)[-1]
    asked = {
        key: metrics.query("AWS/Lambda", metric, "Sum", FunctionName=name)
        for key, metric in (("called", "Invocations"), ("failed", "Errors"))
    }
    found = metrics.read(aws, asked, metrics.Window.latest(aws, rules["window_periods"]))
    called = sum(found["called"])
    reserved = aws.client("lambda").get_function_concurrency(FunctionName=where)
    return Consumer(
        function=name,
        reserved=reserved.get("ReservedConcurrentExecutions"),
        failing_share=sum(found["failed"]) / called if called else None,
        fate_seconds=_ASYNC_FATE_SECONDS,
    )
