"""The page on which people look at recorded events and say what they were.

:func:`~anomaly_detector.review.server.serve` serves it; ``docs/review.md`` describes it. It writes
``review.json`` into the events' folders and changes nothing else in them.
"""
