"""System calls on ids, capabilities and keys."""
