"""From bytes that are not trusted to a tree of files: sniffing, inflating, reading tar, writing.

Nothing here knows of downloads, digests or releases. Everything is fed (`feed`, `finish`) and runs in
whatever thread the caller is in; memory stays bounded whatever comes. The standard library's tarfile is
not used: its filter has been escaped, knows no limits, and stops before a broken gzip trailer.
"""
