"""From trained networks to the one file that is the detector."""
