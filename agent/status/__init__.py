"""What is going on, as conditions, a board, metrics and log lines. Listens to facts, decides nothing."""
