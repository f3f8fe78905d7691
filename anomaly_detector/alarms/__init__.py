"""From scores to alarms: thresholds and the alarm filter."""
