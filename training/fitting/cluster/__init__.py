"""Training on several machines at once."""
