"""What a frame costs on this machine, step by step beside the floor; ``ros/`` measures nodes."""
