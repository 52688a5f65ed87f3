"""Links: Ethernet frames, neighbours, and the packet socket that is the uplink."""
