"""The incidents table in memory: as much of DynamoDB as ``record`` uses, told by its own grammar.

``tests/integration/test_record.py`` plays the same moves on this table and on the embedded AWS and
compares what is left, so that what unit tests prove by it is worth something.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from boto3.dynamodb.conditions import ConditionBase
from botocore.exceptions import ClientError

type Item = dict[str, Any]


class ConditionalCheckFailedException(ClientError):  # noqa: N818 -- boto3's
    """The modelled exception of a conditional write."""


class Killed(Exception):  # noqa: N818 -- what happens to a process, not an error of its own
    """The process has died here."""


class Death:
    """Counts calls that leave the process, and kills it right before or after one of them."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = 0
        self.after = False

    def plan(self, at: int, *, after: bool) -> None:
        self.calls, self.at, self.after = 0, at, after

    def none(self) -> None:
        self.calls, self.at = 0, 0

    def call[T](self, do: Callable[[], T]) -> T:
        self.calls += 1
        dies = self.calls == self.at
        if dies and not self.after:
            raise Killed
        try:
            return do()
        finally:
            if dies:
                raise Killed  # whatever the answer was, an error too, nobody reads it


class TableInMemory:
    """``Table`` of boto3's resource, with ``meta.client.transact_write_items``."""

    name = "incidents"

    def __init__(self, death: Death | None = None) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.death = death or Death()
        client = SimpleNamespace(
            transact_write_items=self.transact_write_items,
            exceptions=SimpleNamespace(
                ConditionalCheckFailedException=ConditionalCheckFailedException
            ),
        )
        self.meta = SimpleNamespace(client=client)

    def get_item(self, *, Key: Item, ConsistentRead: bool = False) -> Item:  # noqa: N803 -- boto3's
        assert ConsistentRead
        found = self.death.call(lambda: self.items.get((Key["pk"], Key["sk"])))
        return {"Item": copy.deepcopy(found)} if found else {}

    def query(
        self,
        *,
        KeyConditionExpression: ConditionBase,  # noqa: N803 -- boto3's
        ConsistentRead: bool = False,  # noqa: N803 -- boto3's
        IndexName: str = "",  # noqa: N803 -- boto3's
        ScanIndexForward: bool = True,  # noqa: N803 -- boto3's
        Limit: int = 0,  # noqa: ARG002, N803 -- boto3's; all is one page here
    ) -> Item:
        assert ConsistentRead != bool(IndexName)
        order = {"": "sk", "open-index": "due", "started-index": "started_at"}[IndexName]
        indexed = [item for item in self.items.values() if order in item]
        found = [item for item in indexed if _matches(KeyConditionExpression, item)]
        found.sort(key=lambda item: item[order], reverse=not ScanIndexForward)
        return self.death.call(lambda: {"Items": copy.deepcopy(found)})

    def put_item(self, **put: Any) -> Item:
        return self.death.call(lambda: self._alone({"Put": put}))

    def update_item(self, **update: Any) -> Item:
        update.pop("ReturnValues", None)
        self.death.call(lambda: self._alone({"Update": update}))
        key = update["Key"]
        return {"Attributes": copy.deepcopy(self.items[key["pk"], key["sk"]])}

    def transact_write_items(self, *, TransactItems: list[Any]) -> Item:  # noqa: N803 -- boto3's
        return self.death.call(lambda: self._transact(TransactItems))

    def _transact(self, writes: list[Any]) -> Item:
        keys = [_key(*next(iter(write.items()))) for write in writes]
        assert len(keys) == len(set(keys)), "DynamoDB refuses two writes to one item"
        codes = ["None" if self._holds(write) else "ConditionalCheckFailed" for write in writes]
        if set(codes) != {"None"}:
            answer = {
                "Error": {"Code": "TransactionCanceledException", "Message": str(codes)},
                "CancellationReasons": [{"Code": code} for code in codes],
            }
            raise ClientError(answer, "TransactWriteItems")  # type: ignore[arg-type]  # as answered
        for write in writes:
            self._apply(write)
        return {}

    def _alone(self, write: Item) -> Item:
        if not self._holds(write):
            error = {"Error": {"Code": "ConditionalCheckFailedException", "Message": ""}}
            raise ConditionalCheckFailedException(error, "PutItem")  # type: ignore[arg-type]  # as answered
        self._apply(write)
        return {}

    def _holds(self, write: Item) -> bool:
        ((action, given),) = write.items()
        condition = given.get("ConditionExpression")
        if not condition:
            return True
        item = self.items.get(_key(action, given), {})
        return any(
            all(_holds(term, item, given) for term in either.split(" AND "))
            for either in condition.split(" OR ")
        )

    def _apply(self, write: Item) -> None:
        ((action, given),) = write.items()
        key = _key(action, given)
        if action == "Put":
            self.items[key] = _stored(given["Item"])
        elif action == "Delete":
            self.items.pop(key, None)
        elif action == "Update":
            item = self.items.setdefault(key, dict(zip(("pk", "sk"), key, strict=True)))
            _update(item, given)


def _key(action: str, given: Mapping[str, Any]) -> tuple[str, str]:
    place = given["Item"] if action == "Put" else given["Key"]
    return place["pk"], place["sk"]


def _stored(value: Any) -> Any:
    """Return what DynamoDB hands back: numbers are ``Decimal``; it takes no floats."""
    assert not isinstance(value, float), "boto3 refuses floats"
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, dict):
        return {name: _stored(inner) for name, inner in value.items()}
    return value


def _name(text: str, given: Mapping[str, Any]) -> str:
    return str(given.get("ExpressionAttributeNames", {}).get(text, text))


def _holds(term: str, item: Item, given: Mapping[str, Any]) -> bool:
    function = re.fullmatch(r"attribute_(not_)?exists\((\S+)\)", term)
    if function:
        return (_name(function[2], given) in item) is not bool(function[1])
    name, operator, value = term.split(" ")
    wanted = _stored(given["ExpressionAttributeValues"][value])
    there = item.get(_name(name, given))
    if operator == "<":
        return there is not None and bool(there < wanted)
    assert operator == "="
    return bool(there == wanted)


def _update(item: Item, given: Mapping[str, Any]) -> None:
    parts = re.split(r"\b(SET|REMOVE|ADD) ", given["UpdateExpression"])[1:]
    values = given.get("ExpressionAttributeValues", {})
    for verb, terms in zip(parts[::2], parts[1::2], strict=True):
        for term in terms.strip().split(", "):
            if verb == "REMOVE":
                item.pop(_name(term, given), None)
            elif verb == "SET":
                name, value = term.split(" = ")
                item[_name(name, given)] = _stored(values[value])
            else:
                name, value = term.split(" ")
                item[name] = item.get(name, 0) + _stored(values[value])


def _matches(condition: ConditionBase, item: Item) -> bool:
    expression = condition.get_expression()
    values: Iterable[Any] = expression["values"]
    if expression["operator"] == "AND":
        return all(_matches(part, item) for part in values)
    key, *bounds = values
    there = item.get(key.name)
    if there is None:
        return False
    match expression["operator"]:
        case "=":
            return bool(there == bounds[0])
        case ">=":
            return bool(there >= bounds[0])
        case "<=":
            return bool(there <= bounds[0])
        case "BETWEEN":
            return bool(bounds[0] <= there <= bounds[1])
    raise NotImplementedError(expression["operator"])
