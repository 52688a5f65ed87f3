"""Descriptors of the host that are donated as standard input, output and error."""
