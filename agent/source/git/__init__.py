"""A small Git client: protocol v2, one commit at a time, over exchangeable transports.

`remote.GitRemote` is the door. Below it, downward only: `client` (the conversation) over a `transport`
(`http` today), or `local` (a repository on disk), then `protocol` and `pktline` (bytes, no input or
output), `spool` and `pack` (what came), `snapshot` and `export` (what is made of it).
No git program is run, nothing here knows what the files mean.
"""
