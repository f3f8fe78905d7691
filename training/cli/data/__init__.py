"""Verbs on recordings rather than on models."""
