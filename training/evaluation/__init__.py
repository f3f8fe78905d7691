"""What a model is worth: metrics, labelled drives, injected faults."""
