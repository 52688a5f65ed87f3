"""Sockets of the host, for `--network=host`: the network process makes and donates them."""
