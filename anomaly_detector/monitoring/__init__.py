"""Whether the node is well: counts and times of its frames, and the verdict on them."""
