"""Reports and figures of evaluations."""
