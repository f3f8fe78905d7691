"""Nodes of the command line: player, watch."""
