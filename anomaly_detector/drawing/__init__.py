"""Results as pictures and pages: the overlay of a frame, the timeline of a drive, HTML reports.

``anomaly_detector.draw_overlay`` is the way in. This package imports nothing itself: OpenCV,
matplotlib and jinja2 are loaded by the module that needs them.
"""
