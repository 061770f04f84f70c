"""Children as the agent sees them: starting, probing, restarting, stopping, commands."""
