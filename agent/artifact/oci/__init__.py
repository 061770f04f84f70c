"""Artifacts from OCI registries: images and artifacts as vehicles of files. No container engine is asked.

    reference ─► registry: manifest ─► platform ─► layers, several at a time ─► merged into one tree

`image` is the door.
"""
