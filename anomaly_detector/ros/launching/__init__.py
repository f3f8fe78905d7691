"""What the launch files share: arguments, the node's action, the list of cameras."""
