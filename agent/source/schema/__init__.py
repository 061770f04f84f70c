"""The schema of the state repository: raw types, one concern a file, and what each becomes.

A raw type names every key that may be written, landed or not; a function beside it turns it into its
part of `agent.domain.spec.AppSpec`. Nothing here reads a file but through `place.Place`.
"""
