"""System calls on mounts."""
