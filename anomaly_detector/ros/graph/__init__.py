"""What the ROS graph and its middleware say."""
