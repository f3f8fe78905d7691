"""ROS nodes of the command line, player and watch, and what they share."""
