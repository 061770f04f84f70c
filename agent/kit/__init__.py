"""Helpers for asyncio and files with no deployment word in them. Imports nothing of the agent."""
