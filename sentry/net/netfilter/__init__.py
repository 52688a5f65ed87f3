"""Netfilter: tables of rules at the hooks of a stack, followed connections, translation."""
