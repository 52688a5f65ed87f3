"""Interfaces that netlink makes: veth, dummy."""
