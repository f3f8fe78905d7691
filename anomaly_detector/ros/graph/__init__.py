"""What the ROS graph and its middleware say: silence, lost images, differences of distros."""
