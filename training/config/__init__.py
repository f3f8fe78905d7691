"""What can be chosen for a training: options, declared once, and recipes that give them."""
