"""Templates: parsed by Jinja2, checked against what is allowed, rendered within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import jinja2
from jinja2 import nodes

from agent.kit.templating.evaluate import EXPRESSIONS, Evaluator
from agent.kit.templating.filters import FILTERS, METHODS, TESTS
from agent.kit.templating.meter import Limits, Meter, TemplateFault

DEPTH_MAX = 40  # of nested statements and expressions
_STATEMENTS = frozenset({nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Assign})
_PARTS = frozenset({nodes.Operand, nodes.Keyword, nodes.Pair, nodes.Slice})
_ALLOWED = EXPRESSIONS | _STATEMENTS | _PARTS
_NAMES = {nodes.Pow: "the operator **", nodes.AssignBlock: "a set block", nodes.NSRef: "namespace"}

# Jinja2 writes every line's end in one way: the one that the template has.
_parsers = {
    end: jinja2.Environment(keep_trailing_newline=True, newline_sequence=end).parse  # noqa: S701 - only parses
    for end in ("\n", "\r\n")
}


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template. `names` are the values it uses and does not set itself."""

    body: tuple[nodes.Node, ...]
    names: frozenset[str]

    def render(self, values: Mapping[str, Any], limits: Limits | None = None) -> str:
        """The text it makes of `values` (texts, numbers, lists and mappings of such).

        Raises TemplateFault with the line: a name is not defined, operands do not fit, a bound is passed.
        """
        evaluator = Evaluator(values, Meter(limits or Limits()))
        try:
            return evaluator.render(self.body)
        except TemplateFault as fault:
            raise TemplateFault(fault.message, evaluator.line) from None
        except (ArithmeticError, TypeError, ValueError, LookupError) as error:
            raise TemplateFault(str(error)[:200], evaluator.line) from error


def parse(source: str, limits: Limits | None = None) -> Template:
    """Parse and check a template. Raises TemplateFault for wrong syntax and for what is not allowed."""
    limit = (limits or Limits()).source
    if len(source) > limit:
        raise TemplateFault(f"the template is longer than {limit} characters")
    try:
        tree = _parsers["\r\n" if "\r\n" in source else "\n"](source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFault((error.message or "wrong syntax")[:200], error.lineno) from None
    except RecursionError:
        raise TemplateFault("the template is nested too deeply") from None
    except ValueError:  # the parser passes on what int() says of a number of thousands of digits
        raise TemplateFault("a number in the template is too large") from None
    return Template(tuple(tree.body), _check(tree))


def _check(tree: nodes.Template) -> frozenset[str]:
    """Refuse every node that is not allowed; returns the names that must come from outside."""
    used: set[str] = set()
    stored = {"loop", "range"}
    pending: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > DEPTH_MAX:
            raise TemplateFault("the template is nested too deeply", node.lineno)
        if type(node) not in _ALLOWED:
            word = _NAMES.get(type(node)) or f"{type(node).__name__.lower()}"
            raise TemplateFault(f"{word} is not supported in templates", node.lineno)
        if isinstance(node, nodes.Name):
            (stored if node.ctx == "store" else used).add(node.name)
        _check_use(node)
        pending += [(child, depth + 1) for child in node.iter_child_nodes()]
    return frozenset(used - stored)


def _check_use(node: nodes.Node) -> None:
    if isinstance(node, nodes.Filter | nodes.Call | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
        raise TemplateFault("* and ** in arguments are not supported in templates", node.lineno)
    if isinstance(node, nodes.Filter):
        _known(node.name, FILTERS, "filter", node.lineno)
    elif isinstance(node, nodes.Test):
        _known(node.name, TESTS, "test", node.lineno)
        if node.args or node.kwargs:
            raise TemplateFault(f"the test {node.name} takes no argument", node.lineno)
    elif isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            _known(node.node.attr, METHODS, "method", node.lineno)
        elif not (isinstance(node.node, nodes.Name) and node.node.name == "range") or node.kwargs:
            raise TemplateFault("only range(…) can be called in templates", node.lineno)
    elif isinstance(node, nodes.For) and node.recursive:
        raise TemplateFault("recursive loops are not supported in templates", node.lineno)


def _known(name: str, table: Mapping[str, object], word: str, line: int) -> None:
    if name in table:
        return
    near = get_close_matches(name[:64], table, n=1)
    raise TemplateFault(f"unknown {word} {name[:64]}" + (f", did you mean {near[0]}?" if near else ""), line)
