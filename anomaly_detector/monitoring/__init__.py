"""What the node counts, and what it makes of it."""
