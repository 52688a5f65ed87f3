"""IPv4, IPv6 and ICMP over the links of a sandbox."""
