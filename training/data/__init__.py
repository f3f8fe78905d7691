"""Recordings, labels and data sets for training and evaluation."""
