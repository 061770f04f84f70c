"""A small Git client: protocol v2, one commit at a time, over exchangeable transports."""
