"""System calls on files and descriptors."""
