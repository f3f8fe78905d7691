"""What a frame costs in the node, between camera, node and listener processes."""
