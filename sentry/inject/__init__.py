"""Faults that are injected."""
