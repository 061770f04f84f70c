"""A parsed template, walked: statements write, expressions have values.

The tree was checked before (`template.py`): it holds only the nodes known here, and its depth is
bounded, so recursion is. Scopes are a chain of dictionaries; a loop's body has its own, as in Jinja2.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import nodes

from agent.kit.templating.filters import FILTERS, METHODS, TAKES_UNDEFINED, TESTS
from agent.kit.templating.meter import Meter, TemplateFault
from agent.kit.templating.values import (
    LIST_MAX,
    Undefined,
    bounded,
    is_scalar,
    items,
    kind,
    member,
    number,
    text,
    undefined,
    whole,
)

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}
_REST: Mapping[type[nodes.BinExpr], Callable[[Any, Any], Any]] = {
    nodes.Sub: operator.sub,
    nodes.Div: operator.truediv,
    nodes.FloorDiv: operator.floordiv,
    nodes.Mod: operator.mod,
}


class Evaluator:
    """One rendering. `line` is where it is, for faults."""

    def __init__(self, values: Mapping[str, Any], meter: Meter) -> None:
        self.line = 1
        self._meter = meter
        self._scopes: list[dict[str, Any]] = [dict(values)]
        self._written: list[str] = []

    def render(self, body: Sequence[nodes.Node]) -> str:
        """The text of a template's body. Raises TemplateFault, or what Python raises for wrong operands."""
        self._body(body)
        return "".join(self._written)

    # Statements

    def _body(self, body: Sequence[nodes.Node]) -> None:
        for node in body:
            self.line = node.lineno
            self._meter.step()
            if isinstance(node, nodes.Output):
                self._output(node)
            elif isinstance(node, nodes.If):
                self._if(node)
            elif isinstance(node, nodes.For):
                self._for(node)
            elif isinstance(node, nodes.Assign):
                self._store(node.target, self._value(node.node), self._scopes[-1])

    def _output(self, node: nodes.Output) -> None:
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                written = part.data
            else:
                self.line = part.lineno
                written = text(self._value(part))
            self._meter.write(len(written))
            self._written.append(written)

    def _if(self, node: nodes.If) -> None:
        for branch in [node, *node.elif_]:
            if self._value(branch.test):
                return self._body(branch.body)
        return self._body(node.else_)

    def _for(self, node: nodes.For) -> None:
        found = items(self._meter, self._value(node.iter))
        if node.test is not None:
            found = [item for item in found if self._chosen(node, node.test, item)]
        for index, item in enumerate(found):
            self._meter.step()
            scope: dict[str, Any] = {"loop": _loop(index, len(found))}
            self._store(node.target, item, scope)
            self._within(scope, lambda: self._body(node.body))
        if not found:
            self._body(node.else_)

    def _chosen(self, node: nodes.For, test: nodes.Node, item: object) -> bool:
        scope: dict[str, Any] = {}
        self._store(node.target, item, scope)
        return bool(self._within(scope, lambda: self._value(test)))

    def _within(self, scope: dict[str, Any], work: Callable[[], Any]) -> Any:
        self._scopes.append(scope)
        try:
            return work()
        finally:
            self._scopes.pop()

    def _store(self, target: nodes.Node, value: object, scope: dict[str, Any]) -> None:
        if isinstance(target, nodes.Name):
            scope[target.name] = value
            return
        assert isinstance(target, nodes.Tuple)
        parts = items(self._meter, value)
        if len(parts) != len(target.items):
            raise TemplateFault(f"{len(parts)} values for {len(target.items)} names")
        for part, item in zip(target.items, parts, strict=True):
            self._store(part, item, scope)

    # Expressions

    def _value(self, node: nodes.Node) -> Any:
        """The value of an expression, which must be there."""
        value = self._maybe(node)
        if isinstance(value, Undefined):
            raise value.fault()
        return value

    def _maybe(self, node: nodes.Node) -> Any:
        self._meter.step()
        return _EXPRESSIONS[type(node)](self, node)

    def _const(self, node: nodes.Const) -> Any:
        return bounded(node.value) if isinstance(node.value, int) else node.value

    def _data(self, node: nodes.TemplateData) -> str:
        return node.data

    def _name(self, node: nodes.Name) -> Any:
        for scope in reversed(self._scopes):
            if node.name in scope:
                return scope[node.name]
        return undefined("", node.name, [name for scope in self._scopes for name in scope])

    def _getattr(self, node: nodes.Getattr) -> Any:
        return member(self._maybe(node.node), node.attr, _spelled(node.node))

    def _getitem(self, node: nodes.Getitem) -> Any:
        value = self._maybe(node.node)
        if not isinstance(node.arg, nodes.Slice):
            return member(value, self._value(node.arg), _spelled(node.node))
        if not isinstance(value, str | list | tuple):
            raise TemplateFault(f"{kind(value)} cannot be sliced")
        cut = slice(*[None if n is None else whole(self._value(n)) for n in _cuts(node.arg)])
        self._meter.make(len(value))
        return value[cut]

    def _filter(self, node: nodes.Filter) -> Any:
        assert node.node is not None
        take = self._maybe if node.name in TAKES_UNDEFINED else self._value
        return self._apply(FILTERS[node.name], f"filter {node.name}", take(node.node), node)

    def _call(self, node: nodes.Call) -> Any:
        if isinstance(node.node, nodes.Getattr):
            name = node.node.attr
            return self._apply(METHODS[name], f".{name}()", self._value(node.node.node), node)
        numbers = range(*[whole(self._value(arg)) for arg in node.args])
        if len(numbers) > LIST_MAX:
            raise TemplateFault(f"range gives more than {LIST_MAX} numbers")
        self._meter.make(len(numbers))
        return list(numbers)

    def _apply(
        self, function: Callable[..., Any], name: str, value: object, node: nodes.Filter | nodes.Call
    ) -> Any:
        positional = [self._value(arg) for arg in node.args]
        named = {pair.key: self._value(pair.value) for pair in node.kwargs if isinstance(pair, nodes.Keyword)}
        try:
            return function(self._meter, value, *positional, **named)
        except (TypeError, ValueError) as error:
            raise TemplateFault(f"{name}: wrong arguments") from error

    def _test(self, node: nodes.Test) -> bool:
        return TESTS[node.name](self._maybe(node.node))

    def _compare(self, node: nodes.Compare) -> bool:
        left = self._value(node.expr)
        for operand in node.ops:
            right = self._value(operand.expr)
            if not self._holds(operand.op, left, right):
                return False
            left = right
        return True

    def _holds(self, op: str, left: object, right: object) -> bool:
        if op in ("in", "notin"):
            return self._contains(right, left) == (op == "in")
        for side in (left, right):
            if not is_scalar(side) and side is not None:
                raise TemplateFault(f"{kind(side)} cannot be compared")
            self._meter.step(len(side) if isinstance(side, str) else 0)
        if op in ("eq", "ne"):
            return (left == right) == (op == "eq")
        if isinstance(left, str) != isinstance(right, str) or left is None or right is None:
            raise TemplateFault(f"{kind(left)} and {kind(right)} have no order, use the filter int or float")
        return _ORDER[op](left, right)

    def _contains(self, holder: object, item: object) -> bool:
        if not is_scalar(item):
            raise TemplateFault(f"{kind(item)} cannot be looked for")
        if isinstance(holder, str):
            if not isinstance(item, str):
                raise TemplateFault(f"{kind(item)} cannot be looked for in a text")
            self._meter.step(len(holder))
            return item in holder
        if isinstance(holder, Mapping):
            return item in holder
        return item in [v for v in items(self._meter, holder) if is_scalar(v)]

    def _and(self, node: nodes.And) -> Any:
        return self._value(node.left) and self._value(node.right)

    def _or(self, node: nodes.Or) -> Any:
        return self._value(node.left) or self._value(node.right)

    def _not(self, node: nodes.Not) -> bool:
        return not self._value(node.node)

    def _either(self, node: nodes.CondExpr) -> Any:
        if self._value(node.test):
            return self._value(node.expr1)
        return (
            Undefined("the other case of an if without else")
            if node.expr2 is None
            else self._value(node.expr2)
        )

    def _concat(self, node: nodes.Concat) -> str:
        parts = [text(self._value(part)) for part in node.nodes]
        self._meter.make(sum(map(len, parts)))
        return "".join(parts)

    def _add(self, node: nodes.Add) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if (isinstance(left, str) and isinstance(right, str)) or (
            isinstance(left, list) and isinstance(right, list)
        ):
            self._meter.make(len(left) + len(right))
            return operator.add(left, right)
        return bounded(number(left) + number(right))

    def _mul(self, node: nodes.Mul) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(left, str) and isinstance(right, int):
            self._meter.make(len(left) * max(0, right))
            return left * right
        return bounded(number(left) * number(right))

    def _reckon(self, node: nodes.BinExpr) -> int | float:
        left, right = number(self._value(node.left)), number(self._value(node.right))
        return bounded(_REST[type(node)](left, right))

    def _negative(self, node: nodes.Neg) -> int | float:
        return -number(self._value(node.node))

    def _positive(self, node: nodes.Pos) -> int | float:
        return number(self._value(node.node))

    def _list(self, node: nodes.List | nodes.Tuple) -> list[Any]:
        return [self._value(item) for item in node.items]

    def _dict(self, node: nodes.Dict) -> dict[str, Any]:
        return {text(self._value(pair.key)): self._value(pair.value) for pair in node.items}


def _loop(index: int, length: int) -> dict[str, Any]:
    return {
        "index": index + 1,
        "index0": index,
        "revindex": length - index,
        "revindex0": length - index - 1,
        "first": index == 0,
        "last": index == length - 1,
        "length": length,
    }


def _cuts(node: nodes.Slice) -> tuple[nodes.Node | None, ...]:
    return node.start, node.stop, node.step


def _spelled(node: nodes.Node) -> str:
    """The expression as it stands in the template, if it is a name with dots; else a word for it."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_spelled(node.node)}.{node.attr}"
    return "the value"


_EXPRESSIONS: Mapping[type[nodes.Node], Callable[[Evaluator, Any], Any]] = {
    nodes.Const: Evaluator._const,
    nodes.TemplateData: Evaluator._data,
    nodes.Name: Evaluator._name,
    nodes.Getattr: Evaluator._getattr,
    nodes.Getitem: Evaluator._getitem,
    nodes.Filter: Evaluator._filter,
    nodes.Call: Evaluator._call,
    nodes.Test: Evaluator._test,
    nodes.Compare: Evaluator._compare,
    nodes.And: Evaluator._and,
    nodes.Or: Evaluator._or,
    nodes.Not: Evaluator._not,
    nodes.CondExpr: Evaluator._either,
    nodes.Concat: Evaluator._concat,
    nodes.Add: Evaluator._add,
    nodes.Mul: Evaluator._mul,
    nodes.Sub: Evaluator._reckon,
    nodes.Div: Evaluator._reckon,
    nodes.FloorDiv: Evaluator._reckon,
    nodes.Mod: Evaluator._reckon,
    nodes.Neg: Evaluator._negative,
    nodes.Pos: Evaluator._positive,
    nodes.List: Evaluator._list,
    nodes.Tuple: Evaluator._list,
    nodes.Dict: Evaluator._dict,
}
EXPRESSIONS = frozenset(_EXPRESSIONS)
