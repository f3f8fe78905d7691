"""The detector node, a lifecycle node: its states, parameters, watchers, topics and process."""
