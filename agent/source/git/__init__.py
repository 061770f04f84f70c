"""A small Git client: one commit at a time, over exchangeable transports.

Protocol v2 is spoken, and v0 where a server refuses that. `remote.GitRemote` is the door. Below it,
downward only: `client` (the conversation) over a `transport` (`http`, `ssh`), or `local` (a repository on
disk), then `protocol`, `version0` and `pktline` (bytes, no input or output), `spool` and `pack` (what
came), `snapshot` and `export` (what is made of it). No git program is run, nothing here knows what the
files mean.
"""
