"""Names that a JSONata expression of a state machine uses.

Parsing is jsonata-python's, a port of the reference implementation whose syntax Step Functions
follows (https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jsonata import Jsonata  # type: ignore[import-untyped]  # published without types
from jsonata.jexception import JException  # type: ignore[import-untyped]  # as above

# https://docs.jsonata.org (function library). Step Functions has no $eval.
_JSONATA_FUNCTIONS = frozenset(
    """
    abs append assert average base64decode base64encode boolean ceil contains count decodeUrl
    decodeUrlComponent distinct each encodeUrl encodeUrlComponent error exists filter floor
    formatBase formatInteger formatNumber fromMillis join keys length lookup lowercase map match
    max merge millis min not now number pad parseInteger power reduce replace reverse round shuffle
    sift single sort split spread sqrt string substring substringAfter substringBefore sum toMillis
    trim type uppercase zip
    """.split()  # noqa: SIM905 -- sixty quoted names are harder to read
)
# The functions that Step Functions adds:
# https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
_STEP_FUNCTIONS = frozenset({"hash", "parse", "partition", "random", "range", "uuid"})
FUNCTIONS = _JSONATA_FUNCTIONS | _STEP_FUNCTIONS

_EXPRESSION = re.compile(r"\{%(.*)%\}", re.DOTALL)
PLACEHOLDER = re.compile(r"\$\{([\w:.]+)\}")
"""What `DefinitionSubstitutions` fill in before Step Functions reads the definition."""
# The parser's nodes keep links to the parser itself and to their own definition.
_LINKS = frozenset({"_outer_instance", "environment", "input", "_jsonata_lambda"})


class ExpressionError(ValueError):
    """An expression does not parse."""


@dataclass(slots=True)
class Names:
    """What an expression refers to.

    `variables` and `functions` are names without their dollar that the expression does not bind
    itself (a function that is handed on uncalled, as in `$map($x, $string)`, is in `variables`);
    `states` are the field paths read below `$states`, e.g. `("input", "queue")`;
    `not_functions` are called expressions which are no function at all.
    """

    variables: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    states: set[tuple[str, ...]] = field(default_factory=set)
    not_functions: set[str] = field(default_factory=set)


def body(text: str) -> str | None:
    """Return what stands between `{%` and `%}`, or None when the string is a literal.

    Placeholders in it become 1, for deployment fills them in before anybody parses the expression.
    """
    match = _EXPRESSION.fullmatch(text.strip())
    return PLACEHOLDER.sub("1", match[1]) if match else None


def names(expression: str) -> Names:
    """Parse an expression (without its `{% %}`) and collect its names.

    Raises ExpressionError with the parser's sentence when it does not parse.
    """
    try:
        tree = Jsonata(expression).ast
    except JException as error:
        raise ExpressionError(str(error)) from error
    found = Names()
    _collect(tree, frozenset(), found)
    return found


def _children(node: Any, *handled: str) -> Iterator[Any]:
    for name, value in vars(node).items():
        if name not in _LINKS and name not in handled:
            yield from _nodes(value)


def _nodes(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _nodes(item)
    elif hasattr(value, "lbp"):
        yield value


def _collect(node: Any, local: frozenset[str], found: Names) -> None:
    """Walk the tree; `local` are the names bound by the expression itself so far."""
    handled: tuple[str, ...] = ()
    match node.type:
        case "variable":
            _variable(node.value, local, found)
        case "path":
            handled = ("steps",)
            local = _path(node.steps, local, found)
        case "function" | "partial":
            handled = ("procedure",)
            _procedure(node.procedure, local, found)
        case "lambda":
            local |= {argument.value for argument in node.arguments}
        case "bind":
            # A function may call itself: the name is known inside its own definition.
            handled = ("lhs",)
            local |= {node.lhs.value}
        case "block":
            handled = ("expressions",)
            for expression in node.expressions:
                _collect(expression, local, found)
                if expression.type == "bind":
                    local |= {expression.lhs.value}
        case _:
            pass
    for child in _children(node, *handled):
        _collect(child, local, found)


def _variable(name: str, local: frozenset[str], found: Names) -> None:
    if name == "states":
        found.states.add(())
    elif name not in ("", "$") and name not in local:
        found.variables.add(name)


def _path(steps: list[Any], local: frozenset[str], found: Names) -> frozenset[str]:
    """Walk the steps of a path; return the names known after them."""
    if steps and steps[0].type == "variable" and steps[0].value == "states":
        fields = itertools.takewhile(lambda step: step.type == "name", steps[1:])
        found.states.add(tuple(step.value for step in fields))
        for child in _children(steps[0]):
            _collect(child, local, found)
        steps = steps[1:]
    for step in steps:
        # `@$x` and `#$i` bind a name for what follows (docs.jsonata.org/path-operators).
        local |= {name for name in (step.focus, step.index) if isinstance(name, str)}
        _collect(step, local, found)
    return local


def _procedure(node: Any, local: frozenset[str], found: Names) -> None:
    if node.type == "variable":
        if node.value not in local:
            found.functions.add(node.value)
    elif node.type == "lambda":
        _collect(node, local, found)
    else:
        parts = node.steps if node.type == "path" else [node]
        found.not_functions.add(".".join(str(part.value) for part in parts))
