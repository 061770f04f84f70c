"""What may be wrong with a host: findings about kernel, machine and access, with or without an agent."""
