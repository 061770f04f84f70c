"""From a URL to a verified, immutable tree in the content-addressed store."""
