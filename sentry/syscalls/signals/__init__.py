"""System calls on signals."""
