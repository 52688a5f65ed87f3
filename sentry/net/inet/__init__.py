"""AF_INET and AF_INET6 on the sandbox's own loopback: TCP and UDP without packets."""
