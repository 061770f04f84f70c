"""Measured comparisons against a yardstick in the same run."""
