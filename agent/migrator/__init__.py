"""What runs in a child process to migrate a database: SQL files, or a command, once, with nobody beside it.

The agent starts `agent/migrator/run.py` as the app's user and reads its last line. Everything here blocks,
and imports nothing but the standard library and, when a database of that kind is named, its driver.
"""
