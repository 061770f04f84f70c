"""The nouns: what is wanted, what happened, what went wrong. No input, no output."""
