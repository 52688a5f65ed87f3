"""Interfaces that programs serve: /dev/net/tun."""
