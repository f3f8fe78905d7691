"""The offline command line: one module a verb."""
