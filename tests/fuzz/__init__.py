"""Hostile input for a bounded time: `make fuzz`."""
