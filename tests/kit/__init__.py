"""Real servers and programs that tests start on loopback and end by pid."""
