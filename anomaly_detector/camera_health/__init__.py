"""What ails a camera, and since when: from cheap statistics of its frames and of the training's."""
