"""What the demo plays with: servers on loopback that stand in for a user's forge and file host."""
