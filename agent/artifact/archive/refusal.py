"""Why an archive is not unpacked, naming the entry."""

from __future__ import annotations


class Refused(Exception):
    """The archive will never be unpacked as it is.

    Args:
        reason: ArchiveBroken (not what it claims to be), ArchiveRefused (would do harm),
            ArchiveTooLarge (a limit), ArchiveUnsupported (right, but not for us).
        message: what is wrong, for people; completes "entry x: ...".
        entry: the entry's name as it stands in the archive, or b"".
        remedy: what to do about it, or "".
    """

    def __init__(self, reason: str, message: str, entry: bytes = b"", remedy: str = "") -> None:
        super().__init__(f"entry {shown(entry)}: {message}" if entry else message)
        self.reason = reason
        self.message = message
        self.entry = entry
        self.remedy = remedy

    def within(self, entry: bytes) -> Refused:
        """The same, named after the entry that was read when it came up, unless it names one."""
        named = self.entry or not entry
        return self if named else Refused(self.reason, self.message, entry, self.remedy)


def broken(message: str, entry: bytes = b"") -> Refused:
    """The bytes are not a whole, valid archive."""
    return Refused("ArchiveBroken", message, entry, "build and upload the artifact again")


def harmful(message: str, entry: bytes = b"") -> Refused:
    """A valid archive that would do what no artifact may do."""
    return Refused("ArchiveRefused", message, entry, "build the archive without this entry")


def too_large(message: str, entry: bytes = b"") -> Refused:
    """A limit was reached."""
    return Refused("ArchiveTooLarge", message, entry)


def unsupported(message: str, entry: bytes = b"", remedy: str = "") -> Refused:
    """Nothing wrong with it, but it cannot be unpacked here."""
    return Refused("ArchiveUnsupported", message, entry, remedy)


def shown(name: bytes, most: int = 200) -> str:
    """A name from an archive as one printable, quoted, bounded piece of text for messages and logs."""
    text = name[: most * 4].decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{safe}'" if len(safe) <= most else f"'{safe[:most]}...'"
