"""Recordings in, tables of scores and alarms out."""
