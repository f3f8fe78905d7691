"""The detector: one ONNX file, its metadata, and the session that runs it."""
