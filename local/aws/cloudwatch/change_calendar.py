"""Systems Manager Change Calendar, which MiniStack lacks: calendars and their state.

CreateDocument, UpdateDocument, GetDocument and DeleteDocument for documents of type ChangeCalendar,
and GetCalendarState. It lives beside the alarms because both are what guards read.

https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetCalendarState.html
https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-change-calendar.html
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

from dateutil import rrule  # type: ignore[import-untyped]  # ships without types
from ministack.core import iam_actions
from ministack.core.responses import (
    AccountRegionScopedDict,
    error_response_json,
    get_account_id,
    get_region,
)
from ministack.services import ssm

from local.aws.cloudwatch.patching import Patches

_documents = AccountRegionScopedDict()
_HORIZON = timedelta(days=366)

type Document = dict[str, Any]


class CalendarError(Exception):
    """A request is refused: the API's error code and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Calendar:
    """When changes are allowed: open by default except during its events, or the reverse."""

    open_by_default: bool
    events: tuple[tuple[datetime, datetime, str], ...]  # start, end, recurrence rule or ""

    def is_open(self, at: datetime) -> bool:
        """Say whether the calendar is open; an event covers its start but not its end."""
        during = any(start <= at < end for start, end in self._around(at))
        return during is not self.open_by_default

    def next_transition(self, at: datetime) -> datetime | None:
        """Return the next moment at which the state changes, up to a year ahead."""
        now = self.is_open(at)
        edges = sorted({edge for pair in self._around(at) for edge in pair if edge > at})
        return next((edge for edge in edges if self.is_open(edge) is not now), None)

    def _around(self, at: datetime) -> list[tuple[datetime, datetime]]:
        found = []
        for start, end, rule in self.events:
            length = end - start
            if not rule:
                found.append((start, end))
                continue
            repeats = rrule.rrulestr(rule, dtstart=start)
            following = repeats.xafter(at - length - timedelta(days=1))
            near = takewhile(lambda begin: begin < at + _HORIZON, following)
            found += [(begin, begin + length) for begin in near]
        return found


def parse(text: str) -> Calendar:
    """Read an iCalendar text as Change Calendar writes it. Raises CalendarError."""
    # RFC 5545: a line that starts with a space continues the one before.
    unfolded = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "")
    lines = [line for line in unfolded.split("\n") if line.strip()]
    if not lines or lines[0].strip() != "BEGIN:VCALENDAR":
        raise CalendarError(
            "InvalidDocumentContent", "Content must be iCalendar text, 'BEGIN:VCALENDAR' …"
        )
    kind = ""
    events: list[tuple[datetime, datetime, str]] = []
    fields: dict[str, tuple[str, str]] | None = None
    for line in lines:
        name, _, value = line.partition(":")
        name, _, options = name.partition(";")
        if line.strip() == "BEGIN:VEVENT":
            fields = {}
        elif line.strip() == "END:VEVENT" and fields is not None:
            events.append(_event(fields))
            fields = None
        elif fields is not None:
            fields[name.upper()] = (options, value.strip())
        elif name == "X-CALENDAR-TYPE":
            kind = value.strip()
    if kind not in ("DEFAULT_OPEN", "DEFAULT_CLOSED"):
        raise CalendarError(
            "InvalidDocumentContent",
            "Content must set X-CALENDAR-TYPE:DEFAULT_OPEN or X-CALENDAR-TYPE:DEFAULT_CLOSED.",
        )
    return Calendar(kind == "DEFAULT_OPEN", tuple(events))


def _event(fields: Mapping[str, tuple[str, str]]) -> tuple[datetime, datetime, str]:
    if "DTSTART" not in fields or "DTEND" not in fields:
        raise CalendarError("InvalidDocumentContent", "Each VEVENT needs DTSTART and DTEND.")
    return _moment(*fields["DTSTART"]), _moment(*fields["DTEND"]), fields.get("RRULE", ("", ""))[1]


def _moment(options: str, value: str) -> datetime:
    zone: Any = UTC
    for option in options.split(";"):
        if option.startswith("TZID="):
            zone = ZoneInfo(option.removeprefix("TZID="))
    try:
        layout = "%Y%m%d" if len(value) == len("20260301") else "%Y%m%dT%H%M%S"
        return datetime.strptime(value.removesuffix("Z"), layout).replace(tzinfo=zone)
    except ValueError as error:
        raise CalendarError(
            "InvalidDocumentContent", f"{value!r} is no time such as 20260301T030000Z."
        ) from error


def calendar_state(names: Sequence[str], at: datetime) -> tuple[bool, datetime | None]:
    """Return whether every calendar is open at that time, and the earliest next transition."""
    calendars = [parse(_document(name)["Content"]) for name in names]
    moments = [moment for calendar in calendars if (moment := calendar.next_transition(at))]
    return all(calendar.is_open(at) for calendar in calendars), min(moments, default=None)


def install(patches: Patches) -> None:
    """Answer the document and calendar operations before MiniStack refuses them."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(
            method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any
        ) -> Any:
            action = headers.get("x-amz-target", "").rpartition(".")[2]
            operation = _OPERATIONS.get(action)
            data = json.loads(body or b"{}")
            # A document that is no calendar is another's to show.
            others = action == "GetDocument" and _short(data) not in _documents
            if operation is None or others:
                return await original(method, path, headers, body, query)
            try:
                answer = operation(data)
            except CalendarError as error:
                return error_response_json(error.code, str(error), 400)
            written = json.dumps(answer).encode()
            return 200, {"Content-Type": "application/x-amz-json-1.1"}, written

        return handle

    patches.replace(ssm, "handle_request", around)
    patches.replace(iam_actions, "extract_resource_arn", _around_resource)


def _around_resource(original: Callable[..., Any]) -> Callable[..., Any]:
    """Authorize against the document; MiniStack takes every Name for a parameter's.

    A request for several calendars is authorized against the first of them here.
    https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html
    """

    def resource(  # noqa: PLR0917 -- MiniStack's signature
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query: Any,
        region: str,
        account: str,
    ) -> Any:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        if service != "ssm" or action not in _OPERATIONS:
            return original(service, method, path, headers, body, query, region, account)
        data = json.loads(body or b"{}")
        name = next(iter(data.get("CalendarNames") or [data.get("Name", "")]))
        name = name.rpartition("document/")[2]
        return f"arn:aws:ssm:{region}:{account}:document/{name}"

    return resource


def forget() -> None:
    """Drop every calendar of every account."""
    _documents.clear()


def _short(data: Mapping[str, Any]) -> str:
    return str(data.get("Name", "")).rpartition("document/")[2]


def _document(name: str) -> Document:
    document: Document | None = _documents.get(name.rpartition("document/")[2])
    if document is None:
        raise CalendarError("InvalidDocument", f"Document with name {name} does not exist.")
    return document


def _create(data: Mapping[str, Any]) -> dict[str, Any]:
    name = data["Name"]
    if data.get("DocumentType") != "ChangeCalendar":
        raise CalendarError(
            "InvalidDocumentType", "Only documents of type ChangeCalendar are supported here."
        )
    if name in _documents:
        raise CalendarError("DocumentAlreadyExists", f"Document {name} already exists.")
    parse(data["Content"])
    created = datetime.now(tz=UTC).timestamp()
    _documents[name] = {"Name": name, "Content": data["Content"], "Version": 1, "Created": created}
    return {"DocumentDescription": _description(name)}


def _update(data: Mapping[str, Any]) -> dict[str, Any]:
    document = _document(data["Name"])
    parse(data["Content"])
    if document["Content"] == data["Content"]:
        raise CalendarError(
            "DuplicateDocumentContent", "The content is the same as the latest version's."
        )
    document["Content"] = data["Content"]
    document["Version"] += 1
    return {"DocumentDescription": _description(data["Name"])}


def _get(data: Mapping[str, Any]) -> dict[str, Any]:
    return _description(data["Name"]) | {"Content": _document(data["Name"])["Content"]}


def _delete(data: Mapping[str, Any]) -> dict[str, Any]:
    del _documents[_document(data["Name"])["Name"]]
    return {}


def _description(name: str) -> dict[str, Any]:
    document = _document(name)
    return {
        "Name": document["Name"],
        "Owner": get_account_id(),
        "CreatedDate": document["Created"],
        "Status": "Active",
        "DocumentVersion": str(document["Version"]),
        "LatestVersion": str(document["Version"]),
        "DocumentType": "ChangeCalendar",
        "DocumentFormat": "TEXT",
    }


def _state(data: Mapping[str, Any]) -> dict[str, Any]:
    names = data.get("CalendarNames") or []
    if not names:
        raise CalendarError("ValidationException", "CalendarNames must name a calendar.")
    for name in names:
        if name.startswith("arn:") and f":{get_region()}:" not in name:
            raise CalendarError("InvalidDocument", f"{name} is in another region.")
    asked = data.get("AtTime")
    try:
        at = datetime.fromisoformat(asked) if asked else datetime.now(tz=UTC)
    except ValueError as error:
        raise CalendarError(
            "ValidationException",
            f"AtTime {asked!r} is not ISO 8601, such as 2026-03-01T03:00:00Z.",
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    is_open, following = calendar_state(names, at)
    answer = {"State": "OPEN" if is_open else "CLOSED", "AtTime": _iso(at)}
    return answer | ({"NextTransitionTime": _iso(following)} if following else {})


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_OPERATIONS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "CreateDocument": _create,
    "DeleteDocument": _delete,
    "GetCalendarState": _state,
    "GetDocument": _get,
    "UpdateDocument": _update,
}
