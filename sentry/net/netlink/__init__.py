"""AF_NETLINK: how programs ask about interfaces, addresses, routes and sockets. netlink(7)."""
