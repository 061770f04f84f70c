"""Tests of agent.source.git, against real servers."""
