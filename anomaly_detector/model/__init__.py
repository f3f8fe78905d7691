"""The model file and what runs it: its check, its metadata, ONNX Runtime's session, the detector.

``anomaly_detector.Detector`` and ``anomaly_detector.read_metadata`` are the way in. This package
imports nothing itself, so that finding a shipped model does not load ONNX Runtime.
"""
