"""The agent of emptybox: pulls the wanted state from Git, and makes it so.

Each sub-package's docstring says what lives there; docs/architecture.md says who may import whom.
"""
