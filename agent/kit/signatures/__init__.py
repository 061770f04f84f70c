"""Detached signatures: one format a file, each with its keys. Nothing here opens a connection.

`sshsig` with `signers` (OpenSSH), `minisign`, `openpgp`, `cosign`; `making` makes them. Each `verify` takes
digests of what was signed, so that it may be of any length, and raises `refused.Refused`.
"""
