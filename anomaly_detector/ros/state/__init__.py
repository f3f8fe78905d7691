"""``~/state``: its message, who publishes it and who listens to it."""
