"""What the replay benchmark starts as processes of their own: `python replay_clients.py KIND ...`.

`boto3 SOURCE TARGET THREADS` is the loop that everybody writes: receive ten, send ten, delete ten.
`ours SOURCE TARGET THREADS FOLDER RULES` is the runbook's engine; it archives into a folder, and a
write takes $ARCHIVE_SECONDS.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import boto3
from botocore.config import Config

from oncall import letters, mover
from oncall.sqs_wire import Queue

REGION = "eu-west-1"


class Folder:
    """`mover.Archive` in a folder, each write as slow as a call."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = Path(path)
        self._seconds = seconds

    def put(self, key: str, data: bytes) -> None:
        time.sleep(self._seconds)
        (self._path / key.replace("/", "_")).write_bytes(data)


def bare_boto3(source: str, target: str, threads: str) -> None:
    sqs = boto3.client("sqs", config=Config(max_pool_connections=int(threads)))

    def loop() -> None:
        while True:
            messages = sqs.receive_message(
                QueueUrl=source, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            ).get("Messages", [])
            if not messages:
                return
            sqs.send_message_batch(
                QueueUrl=target,
                Entries=[
                    {
                        "Id": one["MessageId"],
                        "MessageBody": one["Body"],
                        "MessageAttributes": one["MessageAttributes"],
                    }
                    for one in messages
                ],
            )
            sqs.delete_message_batch(
                QueueUrl=source,
                Entries=[
                    {"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]}
                    for one in messages
                ],
            )

    workers = [threading.Thread(target=loop) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def ours(source: str, target: str, threads: str, folder: str, rules: str) -> None:
    session = boto3.session.Session()
    order = mover.Order(
        run="bench",
        worker="worker",
        deadline=time.time() + 600,
        most=10_000_000,
        destination=letters.Destination(fifo=False, max_message_bytes=1_048_576),
        rules=letters.compile_rules(json.loads(rules)),
        max_replays=3,
        fifo_source=False,
        threads=int(threads),
        wait_seconds=1,
    )
    with Queue(session, source, REGION) as letters_from, Queue(session, target, REGION) as to:
        ports = mover.Ports(
            source=letters_from,
            sink=to,
            archive=Folder(folder, float(os.environ["ARCHIVE_SECONDS"])),
            stop=lambda: False,
            clock=time.time,
            sleep=time.sleep,
        )
        tally = mover.move(order, ports)
    if tally.ended != "empty" or tally.left or tally.possible_duplicates:
        sys.exit(repr(tally))


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "ours":
        ours(*words)
    else:
        bare_boto3(*words)
