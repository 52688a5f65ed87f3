"""System calls that tell of the machine, or change it."""
