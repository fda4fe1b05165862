"""Report: bring Slack, PagerDuty and the S3 report up to date with an incident's record.

Fed by the table's stream (keys are enough), or called with ``{"incident": "<id>"}`` by the sweeper
to deliver what is owed. It looks at what the record says now and at what has been told, and sends
the difference, so it may be called at any time and as often as one likes.

What the daily run finds of a service's readiness it tells as well: in Slack what is new, or, where
Slack is not configured or does not take it, by the topic ``Fallback``. ``{"check": "channels"}``
answers what is wrong with the secrets, which nobody else may read.

What has been sent is remembered after every single success. A crash, or an answer that is lost,
between sending and remembering repeats one Slack message a channel and attempt at most, and a
change event; PagerDuty's other events carry a ``dedup_key`` and repeat without effect.

Graphs come last, when all that the batch had to say is said, and at most for some seconds: a
picture that fails is one line in the thread, once an incident, and one that a crash interrupts is
tried once more.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import graph_images, graphs, messages, pages, readiness_news
from oncall.channels import ChannelDown, Gone, PagerDuty, Refused, SlackChannel
from oncall.counting import count
from oncall.errors import NotDelivered, NotFound
from oncall.graph_images import NoGraph
from oncall.headline import told_elsewhere
from oncall.links import links_of
from oncall.messages import Message
from oncall.reports import PICTURE, report_json, report_key, report_link, report_markdown
from oncall.run_graph import run_graph
from oncall.secret_values import SecretValues
from oncall.step import logged, logger, services
from oncall.texts import escape
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from oncall.incident import Incident
    from oncall.links import Links
    from oncall.services import Services

_CLAIM = timedelta(seconds=120)
"""As long as the function may run (its Timeout): nobody else reports the incident meanwhile."""
_REPORTED = ("RECORD", "ENTRY#", "CHANGE#")
"""Beginnings of the sort keys whose change may be news."""
_GRAPH_SECONDS = 10.0
"""After so long no further graph is begun: the next messages wait."""
_GRAPH_RESERVE = 60.0
"""Seconds that must be left to the function for a graph; its calls' time limits add up to less."""
_GRAPH_TRIES = 2


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Where to report; an empty ARN or bucket means that the channel is not configured."""

    slack_secret: str
    """Secrets Manager: ``{"bot_token", "signing_secret"}``."""
    slack_channel: str
    slack_mention: str
    """Who is mentioned when a human is needed, e.g. ``<!subteam^S0123>``; ``""`` for nobody."""
    slack_api_url: str
    pagerduty_secret: str
    """Secrets Manager: ``{"routing_key", "escalation_routing_key"}``, the second optional."""
    pagerduty_url: str
    bucket: str
    fallback: str
    """The topic that reaches people without Slack and PagerDuty."""
    docs_url: str
    """Address of a runbook's document; ``{runbook}`` in it is replaced."""
    edit_seconds: int
    """Least time between two edits that only show progress."""
    graphs: bool = True
    """Whether threads get graphs."""

    @classmethod
    def from_environment(cls) -> ReportSettings:
        """Read the settings; what is missing is not configured."""
        names = os.environ
        return cls(
            slack_secret=names.get("SLACK_SECRET_ARN", ""),
            slack_channel=names.get("SLACK_CHANNEL", ""),
            slack_mention=names.get("SLACK_MENTION", ""),
            slack_api_url=names.get("SLACK_API_URL", ""),
            pagerduty_secret=names.get("PAGERDUTY_SECRET_ARN", ""),
            pagerduty_url=names.get("PAGERDUTY_EVENTS_URL", ""),
            bucket=names.get("REPORT_BUCKET", ""),
            fallback=names.get("FALLBACK_TOPIC", ""),
            docs_url=names.get("RUNBOOK_DOCS_URL", ""),
            edit_seconds=int(names.get("SLACK_EDIT_SECONDS", "30")),
            graphs=names.get("SLACK_GRAPHS", "on") == "on",
        )


@cache
def _reporter() -> Reporter:
    return Reporter(services(), ReportSettings.from_environment())


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Report one incident, or each incident that a batch of stream records names."""
    reporter = _reporter()
    reporter.begin()
    if event.get("check") == "channels":
        return {"channels": reporter.channels()}
    if "incident" in event:
        _report("INCIDENT", str(event["incident"]), reporter)
        reporter.show_graphs(_seconds_for_graphs(context))
        return {"delivered": event["incident"]}
    failed = []
    for kind, name, sequence_number in _news_in(event["Records"]):
        try:
            _report(kind, name, reporter)
        except Exception:  # noqa: BLE001 -- logged there; one incident must not block the others
            failed.append({"itemIdentifier": sequence_number})
    reporter.show_graphs(_seconds_for_graphs(context))
    return {"batchItemFailures": failed}


def _seconds_for_graphs(context: Any) -> float:
    left: float = context.get_remaining_time_in_millis() / 1000
    return min(_GRAPH_SECONDS, left - _GRAPH_RESERVE)


def _report(kind: str, name: str, reporter: Reporter) -> None:
    try:
        if kind == "READINESS":
            with logged(service_file=name):
                reporter.tell_readiness(name)
        else:
            with logged(incident=name):
                reporter.deliver(name)
    except Exception:
        count("ReportsNotDelivered")
        raise


def _news_in(records: list[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield each incident and service once: kind, name, and its first record's number."""
    seen = set()
    for record in records:
        keys = record["dynamodb"]["Keys"]
        kind, _, name = keys["pk"]["S"].partition("#")
        news = record["eventName"] != "REMOVE" and keys["sk"]["S"].startswith(_REPORTED)
        if kind in {"INCIDENT", "READINESS"} and news and (kind, name) not in seen:
            seen.add((kind, name))
            yield kind, name, record["dynamodb"]["SequenceNumber"]


class Told:
    """What the channels have been told of one incident; written down after every success."""

    def __init__(self, aws: Services, incident: str) -> None:
        self._aws = aws
        self._incident = incident
        self._state = aws.store.report_state(incident)
        self._lock = threading.Lock()
        self._stored = json.dumps(self._state)
        self.deferred = False
        """Whether an edit waits for its time."""
        self.texts_owed = self._state.get("owed", False) and not self._state.get("only_graph")
        """Whether something besides a graph was owed when this was read."""

    def get(self, channel: str) -> dict[str, Any]:
        """Return a copy of what is remembered of a channel."""
        with self._lock:
            return dict(self._state.get(channel, {}))

    def remember(self, channel: str, /, **fields: Any) -> None:
        """Remember at once; until the end something is owed, should this be the last we do."""
        with self._lock:
            self._state[channel] = {**self._state.get(channel, {}), **fields}
            self._store(owed=True)

    def finish(self, *, owed: bool, graph: bool = False) -> None:
        """Remember whether the sweeper has to come back, also where it is for a ``graph`` alone."""
        with self._lock:
            owed = owed or self.deferred
            self._state["only_graph"] = graph and not owed
            self._store(owed=owed or graph)

    def _store(self, *, owed: bool) -> None:
        self._state["owed"] = owed
        now = json.dumps(self._state)
        if now != self._stored:
            self._aws.store.put_report_state(self._incident, self._state, owed=owed)
            self._stored = now


class Reporter:
    """Delivers incidents; lives as long as its container."""

    def __init__(self, aws: Services, settings: ReportSettings) -> None:
        self._aws = aws
        self._settings = settings
        self._secrets = SecretValues(aws)
        self._out: set[str] = set()
        self._undrawn: list[str] = []

    def begin(self) -> None:
        """Try every channel again: called at the start of a batch."""
        self._out.clear()
        self._undrawn.clear()

    def channels(self) -> dict[str, str]:
        """Return what is wrong with the secret of each channel that is configured, ``""``: nothing.

        Fields that are missing are named; values are not looked at.
        """
        wanted = {
            "slack": (self._settings.slack_secret, ("bot_token", "signing_secret")),
            "pagerduty": (self._settings.pagerduty_secret, ("routing_key",)),
        }
        found = {}
        for channel, (arn, fields) in wanted.items():
            if arn:
                found[channel] = self._lacks(arn, fields)
        if "slack" in found and not self._settings.slack_channel:
            found["slack"] = found["slack"] or "the stack's parameter SlackChannel is empty"
        return found

    def _lacks(self, arn: str, fields: Iterable[str]) -> str:
        try:
            values = self._secrets.get(arn)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            return f"the secret {arn} cannot be read ({code})"
        except ValueError:  # what is wrong with it may quote it
            return f"the secret {arn} is no JSON object"
        missing = [name for name in fields if not values.get(name)]
        return f"the secret {arn} has no {' and no '.join(missing)}" if missing else ""

    def tell_readiness(self, service: str) -> None:
        """Tell people what is new of a service's readiness; what was told is remembered after.

        Raises what the topic raises: then nothing was told, and the next time it is.
        """
        store = self._aws.store
        record, known = store.readiness(service)
        found = readiness_news.read(record)
        new = readiness_news.news(readiness_news.read(known), found)
        if new and not self._told_in_slack(readiness_news.message(service, found, new)):
            subject, text = readiness_news.mail(service, found, new)
            self._aws.client("sns").publish(
                TopicArn=self._settings.fallback, Subject=subject, Message=text
            )
        if record != known:
            store.readiness_told(service, record)

    def _told_in_slack(self, message: Message) -> bool:
        """Post a message that belongs to no incident; ``False`` where Slack does not take it."""
        if not self._settings.slack_secret or "slack" in self._out:
            return False
        try:
            token = self._secret(self._settings.slack_secret, "bot_token")
            slack = SlackChannel(token, self._settings.slack_channel, self._settings.slack_api_url)
            slack.post(message)
        except (ChannelDown, Refused, Gone, ClientError, BotoCoreError, ValueError) as error:
            logger.warning("Slack does not take it", extra={"reason": type(error).__name__})
            if not isinstance(error, Refused):
                self._out.add("slack")
            return False
        return True

    def deliver(self, incident_id: str) -> None:
        """Bring every channel up to date. Raises ``NotDelivered`` when one of them is not.

        Channels do not wait for each other, and what one has taken is not sent to it again.
        """
        store = self._aws.store
        if not store.claim_report(incident_id, _CLAIM):
            raise NotDelivered(f"Another report of incident {incident_id} is under way.")
        try:
            self._deliver(incident_id)
        finally:
            store.release_report(incident_id)

    def _deliver(self, incident_id: str) -> None:
        try:
            incident = self._aws.store.load(incident_id)
        except NotFound:
            logger.info("no such incident any more")
            return
        told = Told(self._aws, incident_id)
        faults = []
        with ThreadPoolExecutor(max_workers=2) as pool:
            tasks = [
                pool.submit(self._in_channel, "pagerduty", self._page, incident, told),
                pool.submit(self._report_and_slack, incident, told),
            ]
            for task in tasks:
                faults += task.result()
        graph = "slack" not in self._out and self._graph_due(incident, told)
        if graph:
            self._undrawn.append(incident_id)
        told.finish(owed=bool(faults), graph=bool(graph))
        if faults:
            raise NotDelivered(
                f"Incident {incident_id} is not told everywhere: {'; '.join(faults)}."
            )

    def _report_and_slack(self, incident: Incident, told: Told) -> list[str]:
        """Write the report first: the last edit of the header links to it."""
        return [
            *self._in_channel("s3", self._write_report, incident, told),
            *self._in_channel("slack", self._tell_slack, incident, told),
        ]

    def _in_channel(
        self,
        name: str,
        tell: Callable[[Incident, Told], None],
        incident: Incident,
        told: Told,
    ) -> list[str]:
        """Return why a channel was not brought up to date; ``[]`` when it was.

        A channel that is out is not tried again for the other incidents of the batch.
        """
        if name in self._out:
            return [f"{name} was out a moment ago"]
        try:
            tell(incident, told)
        except (ChannelDown, ClientError, BotoCoreError) as error:
            self._out.add(name)
            logger.warning("channel is out", extra={"channel": name, "reason": str(error)})
            return [f"{name}: {error}"]
        except Exception as error:  # noqa: BLE001 -- logged and told; the other channels go on
            logger.exception("could not tell", extra={"channel": name})
            return [f"{name}: {type(error).__name__}"]
        return []

    def _links(self, incident: Incident, told: Told) -> Links:
        return links_of(
            incident,
            docs_url=self._settings.docs_url,
            report=told.get("report").get("url", ""),
            thread=told.get("slack").get("permalink", ""),
        )

    # S3

    def _write_report(self, incident: Incident, told: Told) -> None:
        """Write the closed incident's report; again when something of it has changed since."""
        bucket = self._settings.bucket
        if not bucket or incident.status == "open":
            return
        document = report_json(incident)
        digest = hashlib.sha256(document.encode()).hexdigest()
        if told.get("report").get("digest") == digest:
            return
        picture = self._picture(incident)
        text = report_markdown(incident, self._links(incident, told), PICTURE if picture else "")
        for name, body, kind in (
            ("record.json", document, "application/json"),
            (PICTURE, picture, "image/svg+xml"),
            ("report.md", text, "text/markdown; charset=utf-8"),
        ):
            if not body:
                continue
            self._aws.client("s3").put_object(
                Bucket=bucket,
                Key=report_key(incident, name),
                Body=body.encode(),
                ContentType=kind,
            )
        link = report_link(incident, bucket, self._aws.settings.region)
        told.remember("report", digest=digest, url=link)

    def _picture(self, incident: Incident) -> str:
        """Draw the way that the run has gone; a picture never fails a report."""
        try:
            return run_graph(self._aws, incident)
        except Exception:  # noqa: BLE001 -- logged; the report goes without
            logger.exception("could not draw the run")
            return ""

    # Slack

    def _tell_slack(self, incident: Incident, told: Told) -> None:
        if not self._settings.slack_secret or told_elsewhere(incident):
            return
        token = self._secret(self._settings.slack_secret, "bot_token")
        channel = told.get("slack").get("channel") or self._settings.slack_channel
        slack = SlackChannel(token, channel, self._settings.slack_api_url)
        # A message need not link to itself.
        links = replace(self._links(incident, told), thread="")
        thread = self._thread_of_parent(incident)
        self._show(slack, incident, told, links, thread)
        if not thread:
            self._reply(slack, incident, told, links)

    def _thread_of_parent(self, incident: Incident) -> str:
        """Return the storm's thread, posting its header first where there is none yet."""
        if not incident.parent or incident.parent == incident.id:
            return ""
        store = self._aws.store
        if store.find(incident.parent) is None:
            logger.warning("the storm's incident does not exist", extra={"parent": incident.parent})
            return ""
        for attempt in range(2):
            found = str(store.report_state(incident.parent).get("slack", {}).get("ts", ""))
            if found or attempt:
                break
            try:
                self.deliver(incident.parent)
            except NotDelivered as error:
                logger.warning("the storm's incident is not told everywhere: %s", error)
        if not found:
            raise ChannelDown(f"the storm's incident {incident.parent} has no thread yet")
        return found

    def _show(
        self, slack: SlackChannel, incident: Incident, told: Told, links: Links, thread: str
    ) -> None:
        """Post the incident's one message, or edit it where it says something else by now."""
        known = told.get("slack")
        message, without_progress = self._rendered(incident, links, bool(thread))
        digest, state = _digest(message), _digest(without_progress)
        if digest == known.get("digest"):
            return
        ts = str(known.get("ts", ""))
        now = self._aws.clock()
        if ts and state == known.get("state"):
            next_edit = parse(known["edited_at"]) + timedelta(seconds=self._settings.edit_seconds)
            if now < next_edit:
                told.deferred = True
                return
        if ts:
            try:
                _plainer(lambda said: slack.update(ts, said), message, incident, links)
            except Gone:
                ts = ""
        if not ts:
            ts = _plainer(lambda said: slack.post(said, thread), message, incident, links)
        told.remember(
            "slack", ts=ts, channel=slack.channel, digest=digest, state=state, edited_at=iso(now)
        )
        if known.get("ts") != ts:
            told.remember("slack", permalink=slack.permalink(ts))

    def _rendered(
        self,
        incident: Incident,
        links: Links,
        gathered: bool,  # noqa: FBT001 -- private, one call
    ) -> tuple[Message, Message]:
        """Render; a record that cannot be rendered is told in plain words."""
        try:
            if gathered:
                message = messages.child(incident)
                return message, message
            return (
                messages.header(incident, links),
                messages.header(incident, links, progress=False),
            )
        except Exception:  # noqa: BLE001 -- logged; whatever is in the record, people are told
            logger.exception("could not render")
        try:
            message = messages.plain(incident, links)
        except Exception:  # noqa: BLE001 -- as above
            logger.exception("could not render plainly")
            message = messages.bare(incident)
        return message, message

    def _reply(self, slack: SlackChannel, incident: Incident, told: Told, links: Links) -> None:
        """Tell the timeline's news in the thread."""
        known = told.get("slack")
        try:
            waiting = messages.replies(
                incident,
                int(known.get("seq", 0)),
                links,
                mention=self._settings.slack_mention,
                now=self._aws.clock(),
            )
        except Exception:  # noqa: BLE001 -- logged; the report has the timeline
            logger.exception("could not render the timeline")
            return
        for reply in waiting:
            try:
                slack.post(reply, known["ts"])
            except Refused as error:
                logger.warning("Slack refuses a reply", extra={"reason": str(error)})
                slack.post(messages.unshowable(reply), known["ts"])
            except Gone as error:
                told.remember("slack", ts="", digest="")
                raise ChannelDown("the thread is gone; the next try starts another") from error
            told.remember("slack", seq=reply.last_seq)

    # Graphs

    def show_graphs(self, seconds: float) -> None:
        """Show the graphs of what has been delivered, beginning none after so many seconds.

        Raises nothing: whoever reads the thread has been told all the same. What is left undone is
        owed, and the sweeper has it made.
        """
        ends = time.monotonic() + seconds
        for incident in self._undrawn:
            if time.monotonic() > ends:
                logger.info("no time for a graph now", extra={"correlation_id": incident})
                continue
            try:
                with logged(incident=incident):
                    self._show_graph(incident)
            except Exception:  # noqa: BLE001, S110 -- logged there; a picture fails no report
                pass

    def _graph_due(self, incident: Incident, told: Told) -> str:
        wanted = self._settings.graphs and self._settings.slack_secret
        if not wanted or not told.get("slack").get("ts"):
            return ""
        return graphs.due(incident, told.get("graph").get("done", ()))

    def _show_graph(self, incident_id: str) -> None:
        store = self._aws.store
        if not store.claim_report(incident_id, _CLAIM):
            return  # whoever reports it by now shows the graph as well
        try:
            incident, told = store.load(incident_id), Told(self._aws, incident_id)
            which = self._graph_due(incident, told)
            if which:
                self._draw(incident, told, which)
            told.finish(owed=told.texts_owed)
        finally:
            store.release_report(incident_id)

    def _draw(self, incident: Incident, told: Told, which: str) -> None:
        known, slack = told.get("graph"), told.get("slack")
        done = {"done": [*known.get("done", ()), which], "tries": 0}
        tries = int(known.get("tries", 0))
        if tries >= _GRAPH_TRIES:
            logger.warning("the graph was begun and never finished", extra={"graph": which})
            told.remember("graph", **done)
            return
        told.remember("graph", tries=tries + 1)
        token = self._secret(self._settings.slack_secret, "bot_token")
        channel = SlackChannel(token, slack["channel"], self._settings.slack_api_url, patient=False)
        failure = self._post_graph(channel, incident, which, slack["ts"])
        told.remember("graph", **done)
        if failure and not known.get("failed"):
            told.remember("graph", failed=True)
            _say_no_graph(channel, failure, slack["ts"])

    def _post_graph(
        self, channel: SlackChannel, incident: Incident, which: str, thread: str
    ) -> str:
        """Put a graph into the thread; return why there is none."""
        try:
            taken = graph_images.take(self._aws, incident)
            if taken:
                graph, picture = taken
                name = f"{incident.id}-{which}.png"
                channel.upload(picture, name=name, title=graph.title, alt=graph.alt, thread=thread)
        except (NoGraph, ChannelDown, Refused, Gone) as error:
            logger.warning("no graph", extra={"graph": which, "reason": str(error)})
            return str(error)
        except Exception as error:  # noqa: BLE001 -- logged and told; a picture fails no report
            logger.exception("no graph", extra={"graph": which})
            return type(error).__name__
        return ""

    # PagerDuty

    def _page(self, incident: Incident, told: Told) -> None:
        if not self._settings.pagerduty_secret:
            return
        known = told.get("pagerduty")
        sent = list(known.get("sent", []))
        opened = dict(known.get("opened", {}))
        waiting = pages.lacking(incident, sent, opened)
        if not waiting:
            return
        arn = self._settings.pagerduty_secret
        pagerduty = PagerDuty(
            self._secret(arn, "routing_key"),
            self._secrets.get(arn).get("escalation_routing_key", ""),
            self._settings.pagerduty_url,
        )
        links = self._links(incident, told)
        for page in waiting:
            pagerduty.send(page, links)
            sent.append(page.id)
            if page.action == "trigger":
                opened[page.dedup_key] = page.escalated
            elif page.action == "resolve":
                opened.pop(page.dedup_key, None)
            told.remember("pagerduty", sent=list(sent), opened=dict(opened))

    def _secret(self, arn: str, name: str) -> str:
        value = self._secrets.get(arn).get(name)
        if not value:
            raise ChannelDown(f'the secret {arn} has no "{name}"')
        return value


def _say_no_graph(channel: SlackChannel, why: str, thread: str) -> None:
    """Say once an incident why its thread has no graph; where even that fails, the log has it."""
    try:
        channel.post(Message(escape(f"no graph: {why}", 400)), thread)
    except (ChannelDown, Refused, Gone) as error:
        logger.warning("could not say so", extra={"reason": str(error)})


def _plainer[T](
    send: Callable[[Message], T], message: Message, incident: Incident, links: Links
) -> T:
    """Send; what Slack refuses is sent again in plain words."""
    try:
        return send(message)
    except Refused as error:
        logger.warning("Slack refuses the message", extra={"reason": str(error)})
        return send(messages.plain(incident, links))


def _digest(message: Message) -> str:
    text = json.dumps([message.text, message.blocks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
