"""A trained model and a drive of today in, a model that is right today out, and on the days before.

``adapt`` does it, ``threshold`` chooses the threshold.
"""
