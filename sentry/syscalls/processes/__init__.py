"""System calls on processes and threads."""
