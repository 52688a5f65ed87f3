"""Overlays that programs mount: see README.md."""
