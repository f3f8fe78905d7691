"""The robot side's command line: one thin module a verb."""
