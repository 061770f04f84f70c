"""Jinja2's syntax, evaluated by ourselves with a bound on time, memory and reach; knows no deployment word.

Jinja2's own sandbox keeps a template from Python's insides but bounds neither time nor memory
(`{{ 'a' * 10**9 }}`, two nested loops). So Jinja2 parses here, and a small evaluator walks its tree:
every node costs a step, every text made is charged by its length, and no attribute of a Python object
can be reached, because values are only texts, numbers, lists and mappings.
"""
