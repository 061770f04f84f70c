"""Telling others: commit statuses for the forge, notices for a chat. Nothing here delays or fails a run."""
