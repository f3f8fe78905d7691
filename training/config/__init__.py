"""Options of a training run, and recipes of them."""
