#!/bin/bash
# Runs a command with ROS 2 and this package sourced; as PID 1, so that it gets the signals itself.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
exec "$@"
