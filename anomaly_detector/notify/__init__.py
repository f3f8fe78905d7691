"""Tells people outside ROS what a detector node reports."""
