"""The HTTP face: what the agent tells and what operators can ask. Knows no Git, process or task graph."""
