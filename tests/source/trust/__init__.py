"""Whose word counts."""
