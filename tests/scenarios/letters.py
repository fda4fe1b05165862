"""What stories about dead letters do, and what becomes of every letter."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core.responses import request_scope

from local.playground import REGION, STACK
from oncall import archive
from tests.scenarios.account import account
from tests.scenarios.scene import RUN, Part
from tests.scenarios.targets import Letters
from tests.scenarios.targets.mail import Seen
from tests.scenarios.world import eventually

_SAID = re.compile(
    r"(\d+) letters replayed(?:, (up to )?(\d+) (?:of|more by) a worker that died)?(?!.*under way)"
)


class _Post(Part):
    """The story's dead letters."""

    @property
    def post(self) -> Letters:
        assert isinstance(self.target, Letters)
        return self.target

    def _arrived(self) -> list[tuple[str, Seen]]:
        with request_scope(self.world.aws.account, REGION):
            return self.post.mail.letters()

    def _left(self) -> list[Any]:
        with request_scope(self.world.aws.account, REGION):
            return self.post.mail.lying(self.post.arn)


class LetterSteps(_Post):
    """What happens to dead letters and to those who consume them."""

    def _do_letters(self, given: Any) -> None:
        for what, value in given.items():
            if what == "add":
                self.post.give(value)
            elif what == "come_back":
                self.post.come_back(value)
            else:
                self.post.reappear()

    def _do_consumer(self, given: Any) -> None:
        if given == "stops":
            self.post.stop_consuming()
        elif given == "takes":
            self.post.consume()
        elif "takes" in given:
            self.post.consume(most=given["takes"])
        else:
            bounces, after = given["bounces"], given.get("after", 0)

            def fails(number: int, body: str) -> bool:
                if number <= after:
                    return False
                if isinstance(bounces, str):
                    return re.search(bounces, body) is not None
                return int(number * bounces) > int((number - 1) * bounces)

            self.post.consume(fails)

    def _do_entries_fail(self, given: Any) -> None:
        self.post.refuse_entries(given)

    def _do_moves_by_hand(self, each_second: int) -> None:
        self.post.move_by_hand(each_second)

    def _do_cancels_by_hand(self, _: object) -> None:
        handles = [task["TaskHandle"] for task in self.post.move_tasks() if "TaskHandle" in task]
        for handle in handles:
            self.world.client("sqs").cancel_message_move_task(TaskHandle=handle)

    def _do_forbid_copies(self, _: object) -> None:
        self.world.client("sqs").tag_queue(
            QueueUrl=self.post.url, Tags={"runbook:archive": "never"}
        )

    def _until_move_task(self, _: str, wanted: str) -> None:
        eventually(
            lambda: self.post.move_tasks()[-1]["Status"] == wanted, f"the move task is {wanted}"
        )

    def _do_letters_vanish(self, count: int) -> None:
        """Let somebody take letters out of the dead-letter queue."""
        with request_scope(self.world.aws.account, REGION):
            self.post.mail.vanish(count)

    def _do_ledger_forgets(self, count: int) -> None:
        """Let somebody take letters out of the first ledger, as no worker does."""
        s3, bucket = self.world.client("s3"), self.world.outputs["ArchiveBucket"]
        folder = archive.ledger_key(self.scene.incident_id(RUN), "").removesuffix(".jsonl.gz")
        store = _Archived(s3, bucket)
        key = next(iter(store.keys(folder)))
        lines = list(archive.read_ledger(store.get(key)))
        s3.put_object(Bucket=bucket, Key=key, Body=archive.pack_ledger(lines[count:]))

    def _until_replayed(self, _: str, wanted: int) -> None:
        eventually(lambda: len(self._arrived()) >= wanted, f"{wanted} letters are replayed")

    def _until_dlq(self, _: str, wanted: int) -> None:
        eventually(lambda: len(self._left()) == wanted, f"{wanted} dead letters lie there")

    def _until_untouched_for(self, _: str, seconds: float) -> None:
        """Wait until the runbook lets the queue alone: a worker outlives a stopped execution."""
        touched, since = -1, time.monotonic()

        def untouched() -> bool:
            nonlocal touched, since
            now = sum(
                call.role.startswith(STACK) and call.resource == self.post.arn
                for call in list(self.world.aws.calls)[self.scene.calls_before :]
            )
            if now != touched:
                touched, since = now, time.monotonic()
            return time.monotonic() - since >= seconds

        eventually(untouched, f"the queue is untouched for {seconds:g} s", seconds=90)


class _Archived:
    """What stands in the archive of the story's runs, read as the runbook reads it."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return (one["Key"] for page in pages for one in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


class LetterChecks(_Post):
    """What has to be so of dead letters."""

    def _then_dlq(self, _: str, wanted: int | Mapping[str, int]) -> None:
        found = len(self._left())
        least, most = _range(wanted)
        assert least <= found <= most, f"{found} letters are in {self.post.name}"

    def _then_free(self, _: str, wanted: object) -> None:
        del wanted
        hidden = [one["id"] for one in self._left() if one["visible_at"] > time.time()]
        assert not hidden, f"{len(hidden)} letters are still hidden"

    def _then_source(self, _: str, wanted: int) -> None:
        with request_scope(self.world.aws.account, REGION):
            found = [len(self.post.mail.lying(arn)) for arn in self.post.mail.sources]
        assert sum(found) == wanted, f"{found} messages are in the sources"

    def _then_elsewhere(self, _: str, wanted: int) -> None:
        found = self.post.come_elsewhere()
        assert found == wanted, f"{found} letters have come to {self.post.elsewhere}"

    def _then_replayed(self, _: str, wanted: int) -> None:
        found = [letter.token for _, letter in self._arrived()]
        assert len(found) == wanted, found

    def _then_source_bodies(self, _: str, wanted: list[str]) -> None:
        found = [letter.body for _, letter in self._arrived()]
        for pattern in wanted:
            assert any(re.search(pattern, body) for body in found), f"{pattern} has not arrived"
        for body in found:
            assert any(re.search(one, body) for one in wanted), f"{body[:200]} has arrived"

    def _then_unread(self, _: str, wanted: object) -> None:
        del wanted
        for message in self._left():
            found = message["receive_count"]
            assert found == self.post.mail.received[message["id"]], "somebody has received a letter"

    def _then_move_tasks(self, _: str, wanted: list[str]) -> None:
        found = [task["Status"] for task in self.post.move_tasks()]
        assert found == wanted, self.post.move_tasks()

    def _then_archived(self, run: str, wanted: int) -> None:
        store = self._archive()
        ids = {one.letter["MessageId"] for one in self._chunks(store, self.scene.incident_id(run))}
        assert len(ids) == wanted, f"{len(ids)} letters are archived"

    def _then_workers(self, run: str, wanted: int) -> None:
        folder = archive.archive_key(self.scene.incident_id(run), "").removesuffix(".jsonl.gz")
        rounds: dict[str, set[str]] = {}
        for key in self._archive().keys(folder):
            number, worker, *_ = key.removeprefix(folder).split("-")
            rounds.setdefault(number, set()).add(worker)
        assert max(map(len, rounds.values())) == wanted, rounds

    def _then_archive(self, run: str, wanted: dict[str, int]) -> None:
        found = archive.reconcile(self._archive(), self.scene.incident_id(run))
        assert {name: getattr(found, name) for name in wanted} == wanted, found
        assert found.balanced, found

    def _archive(self) -> _Archived:
        return _Archived(self.world.client("s3"), self.world.outputs["ArchiveBucket"])

    def _chunks(self, store: _Archived, incident: str) -> Iterator[archive.Archived]:
        for key in store.keys(archive.archive_key(incident, "").removesuffix(".jsonl.gz")):
            yield from archive.read_letters(store.get(key))

    def every_letter_is_accounted_for(self) -> None:
        """See that none is lost, changed, sent twice, out of order or shown to anybody."""
        if not isinstance(self.target, Letters):
            return
        mail, arrived = self.post.mail, self._arrived()
        left = [message["id"] for message in self._left()]
        store = self._archive()
        kept = [
            one
            for incident in self.scene.incidents()
            if incident.runbook == self.scene.story.runbook
            for one in self._chunks(store, incident.id)
        ]
        doubled = account(mail, arrived, left, kept, unarchived=self.post.unarchived)
        allowed = self.scene.story.then.get("duplicates", 0)
        assert doubled <= allowed, f"{doubled} letters are there twice"
        self._the_end_is_true(arrived)
        self._nobody_reads_them()

    def _the_end_is_true(self, arrived: list[tuple[str, Seen]]) -> None:
        """See that what each run says in the end to have replayed is what has come of it."""
        for incident in self.scene.incidents():
            said = _SAID.search(incident.summary)
            if said is None or incident.runbook != self.scene.story.runbook:
                continue
            came = {
                letter.token
                for key, letter in arrived
                if key.startswith("call ")
                or f";{incident.id};" in letter.mark
                or self.post.unarchived
            }
            most = int(said[1]) + int(said[3] or 0)
            least = int(said[1]) if said[2] else most
            assert least <= len(came) <= most, f"{len(came)} were replayed: {incident.summary}"

    def _nobody_reads_them(self) -> None:
        """Look for letters in the record and in histories; logs and messages are searched too."""
        histories = [
            str(event)
            for execution in self.scene.executions_of_the_story()
            for event in self.world.history(execution)
        ]
        records = [str(item) for item in self.world.items()]
        for text in (*histories, *records):
            assert self.post.mail.secret not in text, f"a letter is in {text[:300]}"


def _range(wanted: int | Mapping[str, int]) -> tuple[float, float]:
    if isinstance(wanted, int):
        return wanted, wanted
    return wanted.get("at_least", 0), wanted.get("at_most", math.inf)
