"""The story of a deploy: plan, task graph, lanes, journal, quarantine."""
