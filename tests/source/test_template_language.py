"""The bounded template language: what it writes, what it refuses, and that nothing makes it run away."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kit.templating.meter import Limits, TemplateFault
from agent.kit.templating.template import parse

VALUES: dict[str, Any] = {
    "version": "1.4.0",
    "vars": {"name": "web", "ports": ["80", "443"], "map": {"b": "2", "a": "1"}, "empty": "", "n": "5"},
    "long": "x" * 100_000,
}


def render(source: str, limits: Limits | None = None) -> str:
    return parse(source, limits).render(VALUES, limits)


def fault(source: str, limits: Limits | None = None) -> str:
    with pytest.raises(TemplateFault) as caught:
        render(source, limits)
    return f"{caught.value.line}: {caught.value.message}"


@pytest.mark.parametrize(
    "source",
    [
        "plain {text} with } and {",
        "{{ version }}-{{ vars.name }}\n",
        "{% if vars.name == 'web' %}yes{% elif version %}maybe{% else %}no{% endif %}\n\n",
        "{% for p in vars.ports %}{{ loop.index }}:{{ p }}{{ ',' if not loop.last else '' }}{% endfor %}",
        "{%- for p in vars.ports if p != '80' -%} {{ p }} {%- else -%} none {%- endfor %}",
        "{% for k, v in vars.map.items() %}{{ k }}={{ v }};{% endfor %}",
        "{% for k, v in vars.map|dictsort %}{{ k }}={{ v }};{% endfor %}",
        "{% for i in range(2, 8, 3) %}{{ i }}{% for j in range(i) %}{{ j }}{% endfor %}{% endfor %}",
        "{% set x = vars.n|int * 2 + 1 %}{{ x }}{{ x // 2 }}{{ x % 4 }}{{ -x }}{{ 7 / 2 }}{{ 2 - 3 }}",
        "{{ vars.nope is defined and 1 or 'no' }}{{ vars.name is string and 1 or 'no' }}",
        "{{ vars.nope|default('d') }}{{ vars.empty|default('e', true) }}{{ vars.empty or 'f' }}",
        "{{ vars.ports|join('+') }}{{ vars.ports|first }}{{ vars.ports|last }}{{ vars.ports|length }}",
        "{{ vars.name|upper }}{{ vars.name|title }}{{ ' x '|trim }}{{ 'a-b'|replace('-', '_') }}",
        "{{ vars.name[0] }}{{ vars['name'] }}{{ vars.ports[-1] }}{{ vars.ports[:1]|join }}{{ version[2:] }}",
        "{{ 1 if '80' in vars.ports and 'x' not in vars.name and 'a' in vars.map and 1 < 2 <= 2 else 2 }}",
        "{{ {'web': 1, 'db': 2}[vars.name] }}{{ [3, 1, 2]|sort|join }}{{ [1, 2]|sum }}",
        "{{ [1, 2, 1]|unique|join }}{{ '%s' }}{{ 3.7|int }}{{ '2.5'|float }}",
        "{{ 'a\nb\n\nc'|indent(2) }}{{ 'a b&c'|urlencode }}{{ '<a>'|e }}",
        "{# nothing #}{% raw %}{{ not rendered }}{% endraw %}",
        "a\r\n{{ version }}\r\n",
        "{{ 'w' if vars.name.startswith('w') }}{{ version.split('.')[1] }}{{ vars.map.get('q', 'z') }}",
    ],
)
def test_it_writes_what_jinja2_writes(source: str) -> None:
    newline: Any = "\r\n" if "\r\n" in source else "\n"
    environment = jinja2.Environment(keep_trailing_newline=True, newline_sequence=newline)
    assert render(source) == environment.from_string(source).render(VALUES)


def test_truth_is_written_as_configuration_files_write_it() -> None:
    assert render("{{ true }} {{ vars.name == 'x' }} {{ 'on'|bool }}") == "true false true"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("\n{{ verson }}", "2: verson is not defined, did you mean version?"),
        ("{{ vars.nam }}", "1: vars.nam is not defined, did you mean vars.name?"),
        ("{{ vars.a.b }}", "1: vars.a is not defined"),
        ("{% if vars.q %}{% endif %}", "1: vars.q is not defined"),
        ("{{ vars.ports }}", "1: a list cannot be written; use a loop, join or tojson"),
        ("{{ vars }}", "1: a mapping cannot be written; use a loop, join or tojson"),
        ("{{ none }}", "1: nothing cannot be written"),
        ("{{ vars.n + 1 }}", "1: text is not a number, use the filter int or float"),
        ("{{ vars.n < 1 }}", "1: text and a number have no order, use the filter int or float"),
        ("{% for c in version %}{% endfor %}", "1: text is not a list, use the filter split"),
        ("{{ 1 // 0 }}", "1: integer division or modulo by zero"),
        ("{{ version|uper }}", "1: unknown filter uper, did you mean upper?"),
        ("{{ version is odder }}", "1: unknown test odder, did you mean odd?"),
        ("a\n\n{% for %}", "3: Expected an expression, got 'end of statement block'"),
        ("{{ version", "1: unexpected end of template, expected 'end of print statement'."),
        ("{{ 'x'|replace('x') }}", "1: filter replace: wrong arguments"),
    ],
)
def test_a_mistake_has_its_line_and_a_hint(source: str, expected: str) -> None:
    assert fault(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ vars['__class__'] }}",
        "{{ vars.ports.append(1) }}",
        "{{ range.__globals__ }}",
        "{{ self }}{{ cycler }}{{ lipsum }}{{ namespace }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ version|attr('__class__') }}",
        "{{ vars.ports|map('attr', '__class__')|list }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x=1) %}",
        "{% set vars.x = 1 %}",
        "{% for x in vars.ports recursive %}{{ loop(x) }}{% endfor %}",
        "{% block b %}{% endblock %}",
        "{% filter upper %}{% endfilter %}",
        "{% call f() %}{% endcall %}",
        "{{ version(*vars.ports) }}",
    ],
)
def test_nothing_of_python_and_no_other_template_can_be_reached(source: str) -> None:
    fault(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ long * 1000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 9223372036854775807 * 9223372036854775807 }}",
        "{{ " + "9" * 5000 + " }}",
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
        "{{ range(1000000000)|length }}",
        "{% for a in range(9999) %}{% if 'q' in long %}{% endif %}{% endfor %}",
        "{% for a in range(9999) %}{{ long|replace('x', 'y')|length }}{% endfor %}",
        "{% for a in range(9999) %}{{ long }}{% endfor %}",
        "{% for a in range(9999) %}{{ long == long ~ 'x' }}{% endfor %}",
        "{% set x = 'a' %}" + "{% set x = x ~ x %}" * 60 + "{{ x|length }}",
        "{% set x = 'a' %}" + "{% set x = x + x %}" * 60 + "{{ x|length }}",
        "{% set x = [1] %}" + "{% set x = x + x %}" * 60 + "{{ x|length }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 35 + "{{ x|tojson }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x == x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x in x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|sort }}",
        "{% set x = [long, long, long, long] %}{% set x = x + x + x + x %}{{ (x + x + x + x)|join }}",
        "{{ 'a'|replace('a', 'b' * 1000)|replace('b', 'c' * 100000) }}",
        "{{ 'a\n' * 1000 | indent(100000) }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "not " * 3000 + "1 }}",
        "{{ " + "1+" * 30000 + "1 }}",
        "{% if 1 %}" * 500 + "{% endif %}" * 500,
        "{{ '%1000000000d' % 1 }}",
        "{{ long|center(1000000000) }}",
        "{{ [1]|batch(1000000000)|list }}",
        "{{" * 100_000,
        "x" * 200_000,
    ],
)
def test_what_would_run_away_is_stopped(source: str) -> None:
    fault(source)


def test_time_is_a_bound_of_its_own() -> None:
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    assert fault(endless, Limits(steps=10**12, made=10**12, seconds=0.05)) == "1: takes longer than 0.05 s"


def test_the_output_is_bounded() -> None:
    assert fault("{% for i in range(99) %}{{ long }}{% endfor %}").endswith(
        "writes more than 1048576 characters"
    )


def test_a_template_names_what_it_needs() -> None:
    source = "{% set a = b %}{% for c in d %}{{ loop.index ~ a ~ c ~ e.f }}{% endfor %}{{ range(3)|join }}"
    assert parse(source).names == {"b", "d", "e"}


PIECES = (
    "{{ }} {% %} {# #} if else endif for in endfor set = vars version long ' ( ) [ ] { } . , | + - * / % ~ =="
)
MORE = "< not and or is defined range 1 9999 1e9 default join map items tojson loop :"
_pieces = st.sampled_from([*PIECES.split(), *MORE.split(), '"'])


@given(st.one_of(st.text(max_size=200), st.lists(_pieces, max_size=40).map(" ".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_rendered_or_refused(source: str) -> None:
    with suppress(TemplateFault):
        assert isinstance(render(source), str)
