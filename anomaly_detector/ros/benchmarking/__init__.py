"""What a frame costs in the node."""
