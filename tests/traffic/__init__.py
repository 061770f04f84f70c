"""Tests of agent.traffic on real sockets and real children."""
