"""System calls on address spaces."""
