"""Jobs: programs that run to their end, when their time comes, after a release, or when somebody asks."""
