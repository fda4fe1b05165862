"""Block Kit's rules, as Slack's API enforces them and slack_sdk mostly does not.

Limits: https://docs.slack.dev/reference/block-kit (one page for each block, element and
composition object). Only the blocks that an incident needs are known; others are refused, which is
stricter than Slack, so that nothing is shown here that was never checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jsonschema import ValidationError

type Json = dict[str, Any]

MAX_BLOCKS = 50
MAX_ATTACHMENTS = 100


def _object(required: Sequence[str], **properties: Any) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _string(longest: int, shortest: int = 1) -> Json:
    return {"type": "string", "minLength": shortest, "maxLength": longest}


def _text(longest: int, *types: str) -> Json:
    allowed = _object(
        ["type", "text"],
        type={"enum": list(types)},
        text=_string(longest),
        emoji={"type": "boolean"},
        verbatim={"type": "boolean"},
    )
    # Each flag belongs to one type of text.
    allowed["allOf"] = [
        {
            "if": {"properties": {"type": {"const": kind}}},
            "then": {"properties": {flag: False}},
        }
        for kind, flag in (("mrkdwn", "emoji"), ("plain_text", "verbatim"))
    ]
    return allowed


_CONFIRM = _object(
    ["title", "text", "confirm", "deny"],
    title=_text(100, "plain_text"),
    text=_text(300, "plain_text", "mrkdwn"),
    confirm=_text(30, "plain_text"),
    deny=_text(30, "plain_text"),
    style={"enum": ["primary", "danger"]},
)
_ELEMENTS = {
    "button": _object(
        ["type", "text"],
        type={},
        text=_text(75, "plain_text"),
        action_id=_string(255),
        url=_string(3000),
        value=_string(2000, 0),
        style={"enum": ["primary", "danger"]},
        confirm=_CONFIRM,
        accessibility_label=_string(75),
    ),
    "image": _object(
        ["type", "image_url", "alt_text"],
        type={},
        image_url=_string(3000),
        alt_text=_string(2000, 0),
    ),
    "plain_text": _text(3000, "plain_text"),
    "mrkdwn": _text(3000, "mrkdwn"),
}


def _one_of(*types: str) -> Json:
    """Choose the schema by `type`, so that an error names the field and not the alternatives."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(types)}},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
                "then": _ELEMENTS[kind],
            }
            for kind in types
        ],
    }


def _block(required: Sequence[str] = (), **properties: Any) -> Json:
    return _object(["type", *required], type={}, block_id=_string(255), **properties)


_BLOCKS = {
    kind: Draft202012Validator(schema)
    for kind, schema in {
        "section": {
            **_block(
                text=_text(3000, "plain_text", "mrkdwn"),
                fields={
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 10,
                    "items": _text(2000, "plain_text", "mrkdwn"),
                },
                accessory=_one_of("button", "image"),
                expand={"type": "boolean"},
            ),
            "anyOf": [{"required": ["text"]}, {"required": ["fields"]}],
        },
        "header": _block(["text"], text=_text(150, "plain_text")),
        "divider": _block(),
        "context": _block(
            ["elements"],
            elements={
                "type": "array",
                "minItems": 1,
                "maxItems": 10,
                "items": _one_of("image", "plain_text", "mrkdwn"),
            },
        ),
        "actions": _block(
            ["elements"],
            elements={
                "type": "array",
                "minItems": 1,
                "maxItems": 25,
                "items": _one_of("button"),
            },
        ),
        "image": _block(
            ["image_url", "alt_text"],
            image_url=_string(3000),
            alt_text=_string(2000, 0),
            title=_text(2000, "plain_text"),
        ),
        "markdown": _block(["text"], text=_string(12_000)),
    }.items()
}


def block_errors(blocks: Sequence[Any], where: str = "/blocks") -> list[str]:
    """List what Slack would refuse, in its words, each with the JSON pointer of the fault."""
    if len(blocks) > MAX_BLOCKS:
        return [f"no more than {MAX_BLOCKS} items allowed [json-pointer:{where}]"]
    errors = []
    block_ids: set[str] = set()
    for index, block in enumerate(blocks):
        pointer = f"{where}/{index}"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCKS:
            errors.append(f"unsupported type: {kind} [json-pointer:{pointer}/type]")
            continue
        errors += [_sentence(fault, pointer) for fault in _BLOCKS[kind].iter_errors(block)]
        block_id = block.get("block_id")
        if block_id in block_ids:
            errors.append(f"block_id {block_id!r} already exists [json-pointer:{pointer}/block_id]")
        if block_id is not None:
            block_ids.add(block_id)
        errors += _repeated_action_ids(block, pointer)
    return errors


def _repeated_action_ids(block: Json, pointer: str) -> Iterator[str]:
    """Find action ids that occur twice in one block; in two blocks they may (button element)."""
    seen: set[str] = set()
    if block["type"] != "actions" or not isinstance(block.get("elements"), list):
        return
    for index, element in enumerate(block["elements"]):
        action_id = element.get("action_id") if isinstance(element, dict) else None
        if action_id in seen:
            at = f"{pointer}/elements/{index}/action_id"
            yield f"action_id {action_id!r} already exists [json-pointer:{at}]"
        if action_id is not None:
            seen.add(action_id)


def _sentence(fault: ValidationError, pointer: str) -> str:
    at = "/".join([pointer, *(str(part) for part in fault.absolute_path)])
    limit: Any = fault.validator_value
    match fault.validator:
        case "maxLength":
            words = f"must be less than {limit + 1} characters"
        case "minLength":
            words = f"must be more than {limit - 1} characters"
        case "maxItems":
            words = f"no more than {limit} items allowed"
        case _:
            words = fault.message
    return f"{words} [json-pointer:{at}]"


def texts_of(value: Any) -> Iterator[Json]:
    """Find every mrkdwn text object at any depth; Slack looks for mentions in no other."""
    if isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            yield value
        elif value.get("type") == "markdown":
            yield {"text": value["text"]}
        else:
            for part in value.values():
                yield from texts_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts_of(part)


def total_text(value: Any) -> int:
    """Count the characters of all text in these blocks, of any type and at any depth."""
    if isinstance(value, list):
        return sum(total_text(part) for part in value)
    if not isinstance(value, dict):
        return 0
    own = len(value["text"]) if isinstance(value.get("text"), str) else 0
    return own + sum(total_text(part) for part in value.values())


def ids_filled_in(blocks: Sequence[Mapping[str, Any]], version: str) -> list[Json]:
    """Give each block and button the id that its sender left out, as Slack does."""
    filled = []
    for index, block in enumerate(blocks):
        copy = {**block, "block_id": block.get("block_id") or f"b{index}-{version}"}
        if copy["type"] == "actions":
            copy["elements"] = [
                {**element, "action_id": element.get("action_id") or f"a{index}.{number}"}
                for number, element in enumerate(copy["elements"])
            ]
        accessory = copy.get("accessory")
        if accessory and accessory["type"] == "button":
            copy["accessory"] = {
                **accessory,
                "action_id": accessory.get("action_id") or f"a{index}",
            }
        filled.append(copy)
    return filled
