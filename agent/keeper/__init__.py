"""The small parent process that owns children and sockets: standard library only, no deployment word."""
