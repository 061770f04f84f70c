"""What `emptybox pack` and `emptybox publish` do, without an agent: bytes go out, a state is edited.

The running agent imports nothing of it.
"""
