"""Tests: sentences about behaviour, on real parts. Folders mirror the packages."""
