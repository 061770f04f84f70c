"""The steps of the task graph, one a file. Steps never import one another."""
