"""System calls on clocks and timers."""
