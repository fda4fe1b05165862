"""Then: what has to be so, by the story and after every story."""

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from PIL import Image

from local.playground import STACK
from oncall.headline import behind, emoji, told_elsewhere
from oncall.incident import Incident
from oncall.reports import PICTURE, report_key
from oncall.texts import clean
from tests.scenarios.letters import LetterChecks
from tests.scenarios.scene import RUN, said
from tests.scenarios.targets import Queue
from tests.scenarios.world import WIND_DOWN, eventually
from tests.unit.pictures import SVG, parsed
from tools.checks.commands import check_commands

_COMMAND = re.compile(r"`(aws [^`]+)`")
_LINES = ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E))
"""The colours of a graph's first two lines; in the legend they take some fifty pixels each."""
_LEAST_DRAWN = 250
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT")
_AFTERWARDS = frozenset(
    {"settings", "denied", "failed_reports", "failed_events", "untold", "duplicates"}
)
"""What a story says of the checks that follow it."""


class Checks(LetterChecks):
    """Who looks whether it is so."""

    def all_told(self) -> None:
        """Wait until report has caught up with the record of every incident of the story."""
        if self.scene.story.then.get("untold"):
            return

        def late() -> list[str]:
            told = self.world.store.report_state
            return [i.id for i in self.scene.incidents() if behind(i, told(i.id))]

        eventually(lambda: not late(), f"everything is told: {late()}", seconds=20)

    def check(self, then: Mapping[str, Any], run: str = RUN) -> None:
        for key, wanted in then.items():
            if key not in _AFTERWARDS:
                getattr(self, f"_then_{key}")(run, wanted)

    def _then_runs(self, _: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        for name, then in wanted.items():
            self.check(then, name)

    def _then_status(self, run: str, wanted: str) -> None:
        ended = self.scene.ended(self.scene.runs[run])
        assert ended["status"] == wanted, ended

    def _then_error(self, run: str, wanted: str) -> None:
        ended = self.scene.ended(self.scene.runs[run])
        assert ended.get("error") == wanted, ended

    def _then_cause(self, run: str, wanted: list[str]) -> None:
        ended = self.scene.ended(self.scene.runs[run])
        for text in wanted:
            assert text in ended.get("cause", ""), ended

    def _then_outcome(self, run: str, wanted: str | None) -> None:
        found = self.scene.incident(run)
        if wanted is None:
            assert found is None
        else:
            assert found is not None
            assert found.outcome == wanted, self.scene.story_of(run)

    def _then_diagnosis(self, run: str, wanted: str) -> None:
        assert self.scene.load(run).diagnosis == wanted, self.scene.story_of(run)

    def _then_record(self, run: str, wanted: Mapping[str, Any]) -> None:
        incident = self.scene.load(run)
        found = {name: getattr(incident, name) for name in wanted}
        assert found == wanted, self.scene.story_of(run)

    def _then_timeline(self, run: str, wanted: list[str]) -> None:
        story, at = self.scene.story_of(run), 0
        for text in wanted:
            found = story.find(text, at)
            assert found >= 0, f"{text!r} is not in the rest of:\n{story}"
            at = found + len(text)

    def _then_changes(self, run: str, wanted: list[Mapping[str, Any]]) -> None:
        shown = [
            {"lever": c.lever, "from": c.before, "to": c.after, "state": c.state}
            for c in self.scene.load(run).changes
        ]
        assert len(shown) == len(wanted), shown
        for found, one in zip(shown, wanted, strict=True):
            assert {key: found[key] for key in one} == one, shown

    def _then_slack(self, run: str, wanted: list[str]) -> None:
        def lacking() -> list[str]:
            thread = self.scene.thread_text(run)
            return [text for text in wanted if text not in thread]

        eventually(lambda: not lacking(), f"Slack says {wanted}", seconds=10)

    def _then_slack_never(self, run: str, wanted: list[str]) -> None:
        thread = self.scene.thread_text(run)
        for text in wanted:
            assert text not in thread, f"{text!r} is in:\n{thread}"

    def _then_graphs(self, run: str, wanted: list[list[str]]) -> None:
        thread = self.world.slack.thread(self.scene.header(run).ts)
        graphs = [file for message in thread for file in message.files]
        assert len(graphs) == len(wanted), [graph.title for graph in graphs]
        for graph, texts in zip(graphs, wanted, strict=True):
            for text in texts:
                assert text in graph.alt, f"{text!r} is not in {graph.alt!r}"
            assert _drawn(graph.content) > _LEAST_DRAWN, f"{graph.title} shows no data"

    def _then_readiness(self, _: str, wanted: list[str]) -> None:
        def told() -> str:
            new = self.world.slack.messages[self.scene.messages_before :]
            return "\n".join(one.text for one in new if "runbook doctor" in one.text)

        for text in wanted:
            eventually(partial(_within, text, told), f"{text!r} is told")

    def _then_mentioned(self, _: str, wanted: list[str]) -> None:
        told = self.world.slack.messages[self.scene.messages_before :]
        assert sorted({who for message in told for who in message.mentions}) == wanted

    def _then_header(self, run: str, wanted: list[str]) -> None:
        header = self.scene.header_text(run)
        for text in wanted:
            assert text in header, f"{text!r} is not in:\n{header}"

    def _then_mentions(self, run: str, wanted: list[str]) -> None:
        thread = self.world.slack.thread(self.scene.header(run).ts)
        assert sorted(set().union(*(m.mentions for m in thread))) == wanted

    def _then_buttons(self, run: str, wanted: list[str]) -> None:
        assert self.scene.buttons(run) == wanted

    def _then_answers(self, _: str, wanted: list[str]) -> None:
        _alike(self.scene.answers, wanted)

    def _then_paged(self, _: str, wanted: list[str]) -> None:
        if wanted:
            eventually(lambda: len(self.scene.pages()) >= len(wanted), f"pages {wanted}")
        _alike(self.scene.pages(), wanted)

    def _then_severities(self, _: str, wanted: list[str]) -> None:
        pages = self.world.pagerduty.pages[self.scene.pages_before :]
        assert [page.incident.severity for page in pages] == wanted

    def _then_pagerduty_status(self, _: str, wanted: str) -> None:
        page = self.world.pagerduty.pages[-1].incident
        eventually(lambda: page.status == wanted, f"PagerDuty says {wanted}")

    def _then_executions(self, _: str, wanted: int) -> None:
        assert self.scene.executions() == wanted

    def _then_wind_downs(self, _: str, wanted: int) -> None:
        assert len(set(self.world.executions(WIND_DOWN)) - self.scene.wound_down) == wanted

    def _then_dispatched(self, _: str, wanted: list[str]) -> None:
        assert self.scene.dispatched == wanted

    def _then_counted(self, _: str, wanted: Mapping[str, float]) -> None:
        for metric, count in wanted.items():
            name, _, reason = metric.partition(" ")
            by = {"Reason": reason} if reason else {}
            eventually(partial(self.scene.is_counted, name, by, count), f"{metric}: {count}")

    def _then_swept(self, _: str, wanted: list[Mapping[str, Any]]) -> None:
        found = [
            {key: one.get(key) for key in some}
            for one, some in zip(self.scene.swept, wanted, strict=True)
        ]
        assert found == wanted, self.scene.swept

    def _then_settings_now(self, _: str, wanted: Mapping[str, Any]) -> None:
        found = self.target.settings()
        assert {key: found[key] for key in wanted} == wanted

    def _then_queue(self, _: str, wanted: int) -> None:
        assert isinstance(self.target, Queue)
        assert self.world.depth(self.target.url) == wanted

    def _then_calls(self, _: str, wanted: Mapping[str, int]) -> None:
        found = {action: self.scene.answered(action) for action in wanted}
        assert found == wanted, found

    def _then_nothing_changed(self, _: str, wanted: object) -> None:
        del wanted
        assert not self.scene.writes(), self.scene.writes()

    def _then_log(self, _: str, wanted: list[str]) -> None:
        logged = self.world.logs(self.scene.since)
        for text in wanted:
            assert text in logged

    def _then_storm(self, _: str, then: Mapping[str, Any]) -> None:
        storms = [one for one in self.scene.incidents() if one.runbook == "storm"]
        assert len(storms) == 1, storms
        [storm] = storms
        texts = "\n".join(entry.text for entry in storm.entries)
        gathered = {e.data["incident"] for e in storm.entries if "incident" in e.data}
        counts = {
            name: self.scene.counted(f"Alarms{name.capitalize()}")
            for name in ("started", "gathered", "ignored")
        }
        # A delivery that is tried again is counted again; not one may be missing.
        assert sum(counts.values()) >= then["alarms"], counts
        alarms = {
            str(one.trigger.get("alarm", {}).get("name", "")) for one in self.scene.incidents()
        }
        alarms |= {
            str(e.data.get("alarm", "")) for one in self.scene.incidents() for e in one.entries
        }
        assert len(alarms - {""}) == then["alarms"], sorted(alarms)
        # Two alarms may start a run each before one has the lock; the other then joins it.
        working = [one for one in self.scene.incidents() if not told_elsewhere(one)]
        assert len(working) <= then["targets"] + 1, [one.id for one in working]
        about = [page for page in self.scene.pages() if page.startswith("many targets")]
        assert len(about) == 1, self.scene.pages()
        assert len(self.scene.pages()) <= then["pages"], self.scene.pages()
        assert 0 < len(gathered) <= counts["gathered"], texts
        assert storm.outcome == then["outcome"]
        ts = self.world.store.report_state(storm.id)["slack"]["ts"]
        assert not [m for m in self.world.slack.thread(ts) if m.files], "a storm has no graphs"

    def leaves_nothing(self) -> None:
        then = self.scene.story.then
        for target, before in zip(self.scene.targets, self.scene.settings_before, strict=True):
            wanted = {**before, **then.get("settings", {})}
            found = target.settings()
            assert found == wanted, f"settings of {target.name}: {found}, not {wanted}"
        eventually(lambda: not self._opened(), f"what is open: {self._opened()}", seconds=10)
        for incident in self.scene.incidents():
            assert incident.status == "closed", incident.id
            self._told_the_end(incident)
            self._reported(incident)
            for command in _commands(incident):
                assert not check_commands(incident.id, command), command
        for output, flag in (
            ("FailedReports", "failed_reports"),
            ("FailedEvents", "failed_events"),
        ):
            if not then.get(flag):
                depth = self.world.depth(self._dead_letters(output))
                assert depth == 0, f"{output} holds {depth}"
        denied = {call.action for call in self.scene.denied()}
        assert denied == set(then.get("denied", [])), self.scene.denied()
        self.every_letter_is_accounted_for()
        self._no_secret_is_out()

    def _opened(self) -> list[tuple[Any, Any]]:
        """Return open incidents, held locks, leased settings and reports that are owed."""
        return [(item["pk"], item["sk"]) for item in self.world.items() if "open" in item]

    def _dead_letters(self, logical: str) -> str:
        found = self.world.client("cloudformation").describe_stack_resource(
            StackName=STACK, LogicalResourceId=logical
        )
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def _reported(self, incident: Incident) -> None:
        """See the report in S3, with the way that the run has gone where there was one."""
        if self.scene.story.then.get("untold"):
            return
        s3 = self.world.client("s3")
        bucket = self.world.outputs["ReportBucket"]

        def read(name: str) -> str:
            found = s3.get_object(Bucket=bucket, Key=report_key(incident, name))
            return str(found["Body"].read().decode())

        text = read("report.md")
        assert incident.outcome in text
        if incident.execution:
            assert f"]({PICTURE})" in text
            groups = parsed(read(PICTURE)).iter(f"{SVG}g")
            shown = {one.get("data-state"): one.get("class") for one in groups}
            # A guard that refuses leaves it by an error.
            assert shown["Open incident"] in {"rb-state rb-done", "rb-state rb-failed"}, shown
            assert "rb-state rb-current" not in shown.values(), shown

    def _told_the_end(self, incident: Incident) -> None:
        if told_elsewhere(incident) or self.scene.story.then.get("untold"):
            return
        state = self.world.store.report_state(incident.id)
        shown = [m for m in self.world.slack.messages if m.ts == state["slack"]["ts"]]
        assert shown, f"Slack has no message on {incident.id}"
        if incident.parent:
            assert emoji(incident) in said(shown[0])
            return
        thread = "\n".join(said(message) for message in self.world.slack.thread(shown[0].ts))
        # Slack shows a time of day in the reader's own zone, and of a refusal one sentence.
        sentence = clean(incident.summary).partition(". ")[0]
        end = _MOMENT.split(sentence[:80])[0]
        assert end in thread, f"Slack does not say {end!r}:\n{thread}"

    def _no_secret_is_out(self) -> None:
        world = self.world
        tokens = [
            str(i["token"]) for i in world.items("INCIDENT#") if str(i["sk"]).startswith("ASK#")
        ]
        secrets = [*tokens, world.slack.bot_token, world.slack.signing_secret]
        secrets += [secret for target in self.scene.targets for secret in target.secrets()]
        slack = "\n".join(
            request.body.decode("utf-8", "replace") for request in world.slack.requests
        )
        pagerduty = "\n".join(
            request.body.decode("utf-8", "replace") for request in world.pagerduty.requests
        )
        logs = world.logs(self.scene.since)
        for secret in secrets:
            for name, text in (("Slack", slack), ("PagerDuty", pagerduty), ("the log", logs)):
                assert secret not in text, f"a secret is in {name}"
        assert world.pagerduty.routing_key not in slack + logs


def _commands(incident: Incident) -> list[str]:
    """Return the commands that an incident's record tells people."""
    texts = [incident.happened, incident.doing, incident.need, incident.summary]
    told = [change.undo for change in incident.changes]
    for entry in incident.entries:
        texts.append(entry.text)
        told += [str(entry.data.get(key, "")) for key in ("by_hand", "undo")]
    return [*told, *(command for text in texts for command in _COMMAND.findall(text))]


def _drawn(png: bytes) -> int:
    """Count the pixels of a graph's lines, whose edges are smooth; one may hide the other."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return sum(
        count
        for count, colour in picture.getcolors(picture.width * picture.height) or []
        for line in _LINES
        if isinstance(colour, tuple)
        and all(abs(a - b) < 30 for a, b in zip(colour, line, strict=True))
    )


def _alike(found: list[str], wanted: list[str]) -> None:
    """Compare texts one by one: each wanted one is part of the found one."""
    assert len(found) == len(wanted), found
    for one, part in zip(found, wanted, strict=True):
        assert part in one, f"{part!r} is not in {one!r}"


def _within(text: str, told: Callable[[], str]) -> bool:
    return text in told()
