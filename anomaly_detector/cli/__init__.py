"""The robot side's command line: one thin module a verb; ``arguments.py`` has what they share."""
