"""Training on several machines at once: who takes part, and the loop in place of Keras' ``fit``."""
