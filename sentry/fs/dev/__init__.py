"""Devices in memory: null, zero, full, random, urandom, tty."""
