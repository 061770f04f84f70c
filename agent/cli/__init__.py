"""The command line, one verb a file. Never imported by the running agent."""
