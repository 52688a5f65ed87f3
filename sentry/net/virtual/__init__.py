"""Interfaces that netlink makes: veth, dummy, bridges, VLANs."""
