"""From trained networks to the one file that is the detector, and what it says of its making."""
