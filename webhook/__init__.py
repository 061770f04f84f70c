"""A push comes in: signatures, payloads of the forges, deliveries. Knows nothing of the agent."""
