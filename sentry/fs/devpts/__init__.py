"""Pseudo-terminals: pty(7), devpts. Start at discipline.py, then terminal.py."""
