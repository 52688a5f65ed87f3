"""Pipes and FIFOs. Start at buffer.py."""
