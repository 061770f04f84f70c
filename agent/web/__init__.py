"""The agent's HTTP face: status, events, metrics, maintenance, health and control."""
