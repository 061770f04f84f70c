"""The whole agent, started as a user starts it, on real Git, artifacts, processes and ports."""
