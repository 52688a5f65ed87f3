"""/proc/sys/net: values of a network namespace that have bounds. What heeds them: net/sysctls.py.

ip-sysctl.rst, net/ipv4/sysctl_net_ipv4.c, net/ipv6/addrconf.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sentry.abi.limits import INT_MAX
from sentry.auth.userns import NO_ID, kernel_id
from sentry.errors import EINVAL
from sentry.fs.proc.sysctl import computed, numbers_in, values_of

PORT_MAX: Final = 65535
PORT_RANGE: Final = "net/ipv4/ip_local_port_range"
RESERVED: Final = "net/ipv4/ip_local_reserved_ports"
PRIVILEGED: Final = "net/ipv4/ip_unprivileged_port_start"
PING_GROUPS: Final = "net/ipv4/ping_group_range"
GID_MAX: Final = 0xFFFFFFFE
MTU_MIN: Final = 1280
"""IPV6_MIN_MTU."""
U8: Final = range(256)
U16: Final = range(1 << 16)
U32: Final = range(1 << 32)
SWITCH: Final = range(2)
SECONDS: Final = range(-(INT_MAX // 250), INT_MAX // 250 + 1)
"""Kept in ticks of 4 ms."""
INT: Final = range(-INT_MAX - 1, INT_MAX + 1)
COUNT: Final = range(INT_MAX + 1)

FORWARD: Final = "net/ipv4/ip_forward"
WHICH: Final = ("all", "default", "lo")
CONF: Final = (
    # name, values of `all`, `default` and `lo`, what may be written
    ("accept_dad", "0 1 -1", INT),
    ("accept_ra", "1 1 1", INT),
    ("accept_ra_defrtr", "1 1 1", INT),
    ("accept_ra_from_local", "0 0 0", INT),
    ("accept_ra_min_hop_limit", "1 1 1", INT),
    ("accept_ra_min_lft", "0 0 0", INT),
    ("accept_ra_mtu", "1 1 1", INT),
    ("accept_ra_pinfo", "1 1 1", INT),
    ("accept_ra_rt_info_max_plen", "0 0 0", INT),
    ("accept_ra_rt_info_min_plen", "0 0 0", INT),
    ("accept_ra_rtr_pref", "1 1 1", INT),
    ("accept_redirects", "1 1 1", INT),
    ("accept_source_route", "0 0 0", INT),
    ("accept_untracked_na", "0 0 0", range(3)),
    ("autoconf", "1 1 1", INT),
    ("dad_transmits", "1 1 1", INT),
    ("disable_policy", "0 0 0", INT),
    ("drop_unicast_in_l2_multicast", "0 0 0", INT),
    ("drop_unsolicited_na", "0 0 0", INT),
    ("enhanced_dad", "1 1 1", INT),
    ("force_mld_version", "0 0 0", INT),
    ("force_tllao", "0 0 0", INT),
    ("hop_limit", "64 64 64", range(1, 256)),
    ("ignore_routes_with_linkdown", "0 0 0", INT),
    ("ioam6_enabled", "0 0 0", SWITCH),
    ("ioam6_id", "65535 65535 65535", U16),
    ("ioam6_id_wide", "4294967295 4294967295 4294967295", U32),
    ("keep_addr_on_down", "0 0 0", INT),
    ("max_addresses", "16 16 16", INT),
    ("max_desync_factor", "600 600 600", INT),
    ("ndisc_evict_nocarrier", "1 1 1", SWITCH),
    ("ndisc_notify", "0 0 0", INT),
    ("ndisc_tclass", "0 0 0", U8),
    ("optimistic_dad", "0 0 0", INT),
    ("proxy_ndp", "0 0 0", INT),
    ("ra_defrtr_metric", "1024 1024 1024", range(1, 1 << 32)),
    ("ra_honor_pio_life", "0 0 0", SWITCH),
    ("ra_honor_pio_pflag", "0 0 0", SWITCH),
    ("regen_max_retry", "3 3 3", INT),
    ("regen_min_advance", "2 2 2", INT),
    ("router_probe_interval", "60 60 60", SECONDS),
    ("router_solicitation_delay", "1 1 1", SECONDS),
    ("router_solicitation_interval", "4 4 4", SECONDS),
    ("router_solicitation_max_interval", "3600 3600 3600", SECONDS),
    ("router_solicitations", "-1 -1 -1", range(-1, INT_MAX + 1)),
    ("rpl_seg_enabled", "0 0 0", SWITCH),
    ("seg6_enabled", "0 0 0", INT),
    ("seg6_require_hmac", "0 0 0", INT),
    ("suppress_frag_ndisc", "1 1 1", INT),
    ("temp_prefered_lft", "86400 86400 86400", INT),
    ("temp_valid_lft", "604800 604800 604800", INT),
    ("use_oif_addrs_only", "0 0 0", INT),
    ("use_optimistic", "0 0 0", INT),
    ("use_tempaddr", "0 0 -1", INT),
)
"""Of net/ipv6/conf. What is about neighbours waits for a link that has any."""


def _one(value: str, allowed: range) -> int:
    found = numbers_in(value)
    if len(found) != 1 or found[0] not in allowed:
        raise EINVAL(value)
    return found[0]


def _bounded(
    path: str, default: str, allowed: range, then: Callable[[Any, int], None] | None = None
) -> None:
    """A value that is kept; `then` is what it does at once."""

    def put(who: Any, value: str) -> None:
        number = _one(value, allowed)
        values_of(who, path)[path] = str(number)
        if then is not None:
            then(who, number)

    def checked(value: str) -> str:
        return str(_one(value, allowed))

    computed(path, put, of_reader=True, checked=checked)(
        lambda who: values_of(who, path).get(path, default)
    )


_bounded("net/ipv4/ip_default_ttl", "64", range(1, 256))
_bounded("net/ipv4/ip_nonlocal_bind", "0", U8)
_bounded("net/ipv4/icmp_echo_ignore_all", "0", SWITCH)
_bounded("net/ipv4/icmp_echo_ignore_broadcasts", "1", SWITCH)
_bounded("net/ipv4/icmp_ratelimit", "1000", COUNT)
_bounded("net/ipv4/icmp_msgs_per_sec", "1000", COUNT)
_bounded("net/ipv4/icmp_msgs_burst", "50", COUNT)
_bounded("net/ipv4/fib_multipath_hash_policy", "0", SWITCH)
_bounded("net/ipv6/fib_multipath_hash_policy", "0", SWITCH)
_bounded("net/ipv6/bindv6only", "0", U8)
_bounded("net/ipv6/ip_nonlocal_bind", "0", U8)
_bounded("net/ipv6/icmp/echo_ignore_all", "0", U8)
_bounded("net/ipv6/icmp/echo_ignore_multicast", "0", U8)
_bounded("net/ipv6/icmp/ratelimit", "100", COUNT)
for _name, _defaults, _allowed in CONF:
    for _which, _default in zip(WHICH, _defaults.split(), strict=True):
        _bounded(f"net/ipv6/conf/{_which}/{_name}", _default, _allowed)


# --- routers: `sentry.net.ip.forward`


def _turn_all_into_routers(version: int) -> Callable[[Any, int], None]:
    """inet_forward_change(), addrconf_forward_change(): `all` is the others, too. A router heeds no
    redirects of IPv4 unless it is told to afterwards."""

    def turn(who: Any, number: int) -> None:
        which = {*WHICH, *who.ns.net.link_names()}
        changed = {f"net/ipv{version}/conf/{each}/forwarding": number for each in which}
        if version == 4:
            changed[FORWARD] = number
            changed["net/ipv4/conf/all/accept_redirects"] = int(not number)
        for path, each in changed.items():
            values_of(who, path)[path] = str(each)

    return turn


_bounded(FORWARD, "0", INT, _turn_all_into_routers(4))
for _version in (4, 6):
    _bounded(f"net/ipv{_version}/conf/all/forwarding", "0", INT, _turn_all_into_routers(_version))
    for _which in ("default", "lo"):
        _bounded(f"net/ipv{_version}/conf/{_which}/forwarding", "0", INT)
for _name, _default in (
    ("accept_local", "0"), ("accept_redirects", "1"), ("arp_notify", "0"), ("route_localnet", "0"),
    ("rp_filter", "0"), ("send_redirects", "1"),
    # these are kept alone
    ("arp_accept", "0"), ("arp_announce", "0"), ("arp_filter", "0"), ("arp_ignore", "0"),
    ("drop_gratuitous_arp", "0"), ("drop_unicast_in_l2_multicast", "0"),
    ("force_igmp_version", "0"), ("ignore_routes_with_linkdown", "0"), ("log_martians", "0"),
    ("promote_secondaries", "0"), ("proxy_arp", "0"), ("proxy_arp_pvlan", "0"),
    ("secure_redirects", "1"), ("shared_media", "1"), ("src_valid_mark", "0"),
):  # fmt: skip
    for _which in WHICH:
        _bounded(f"net/ipv4/conf/{_which}/{_name}", _default, INT)
for _name, _values in (
    ("accept_source_route", "0 1 1"), ("disable_policy", "0 0 1"), ("disable_xfrm", "0 0 1"),
):  # fmt: skip
    for _which, _default in zip(WHICH, _values.split(), strict=True):
        _bounded(f"net/ipv4/conf/{_which}/{_name}", _default, INT)


# --- connections that are followed: `sentry.net.netfilter.conntrack`

for _name, _default, _allowed in (
    ("nf_conntrack_acct", "0", SWITCH),
    ("nf_conntrack_generic_timeout", "600", range(INT_MAX)),
    ("nf_conntrack_helper", "0", SWITCH),
    ("nf_conntrack_icmp_timeout", "30", range(INT_MAX)),
    ("nf_conntrack_icmpv6_timeout", "30", range(INT_MAX)),
    ("nf_conntrack_max", "16384", range(INT_MAX)),
    ("nf_conntrack_tcp_be_liberal", "1", SWITCH),
    ("nf_conntrack_tcp_loose", "1", SWITCH),
    ("nf_conntrack_tcp_timeout_close", "10", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_close_wait", "60", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_established", "432000", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_fin_wait", "120", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_last_ack", "30", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_syn_recv", "60", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_syn_sent", "120", range(INT_MAX)),
    ("nf_conntrack_tcp_timeout_time_wait", "120", range(INT_MAX)),
    ("nf_conntrack_udp_timeout", "30", range(INT_MAX)),
    ("nf_conntrack_udp_timeout_stream", "120", range(INT_MAX)),
):
    _bounded(f"net/netfilter/{_name}", _default, _allowed)
computed("net/netfilter/nf_conntrack_count", of_reader=True)(
    lambda who: str(who.ns.net.followed())
)


# --- IPv6 on and off


def _disable(which: str) -> str:
    return f"net/ipv6/conf/{which}/disable_ipv6"


def _turn_loopback(who: Any, number: int) -> None:
    who.ns.net.stack.interfaces.loopback.turn_ipv6(number == 0)


def _turn_all(who: Any, number: int) -> None:
    """addrconf_disable_ipv6(): `all` is the others, too."""
    which = {"default", "lo", *who.ns.net.turn_own_ipv6(number == 0)}
    for path in map(_disable, which):
        values_of(who, path)[path] = str(number)
    _turn_loopback(who, number)


_bounded(_disable("all"), "0", INT, _turn_all)
_bounded(_disable("default"), "0", INT)
_bounded(_disable("lo"), "0", INT, _turn_loopback)


def _set_mtu(who: Any, value: str) -> None:
    link = who.ns.net.stack.interfaces.loopback
    link.ipv6_mtu = _one(value, range(MTU_MIN, link.mtu + 1))


computed("net/ipv6/conf/lo/mtu", _set_mtu, of_reader=True)(
    lambda who: str(who.ns.net.stack.interfaces.loopback.mtu_of_ipv6)
)
for _which in ("all", "default"):
    _bounded(f"net/ipv6/conf/{_which}/mtu", str(MTU_MIN), range(MTU_MIN, INT_MAX + 1))


# --- ports


def _ports(who: Any) -> tuple[int, int]:
    low, high = values_of(who, PORT_RANGE).get(PORT_RANGE, "32768\t60999").split()
    return int(low), int(high)


def _first_free(who: Any) -> int:
    return int(values_of(who, PRIVILEGED).get(PRIVILEGED, "1024"))


def _set_port_range(who: Any, value: str) -> None:
    """Two ports in order, and none that needs a capability: ipv4_local_port_range()."""
    ports = numbers_in(value)
    if len(ports) != 2 or not 1 <= ports[0] <= ports[1] <= PORT_MAX or ports[0] < _first_free(who):
        raise EINVAL(value)
    values_of(who, PORT_RANGE)[PORT_RANGE] = f"{ports[0]}\t{ports[1]}"


def _set_privileged(who: Any, value: str) -> None:
    """ipv4_privileged_ports()."""
    first = _one(value, range(PORT_MAX + 1))
    if first > _ports(who)[0]:
        raise EINVAL(value)
    values_of(who, PRIVILEGED)[PRIVILEGED] = str(first)


def _set_reserved(who: Any, value: str) -> None:
    """proc_do_large_bitmap()."""
    values_of(who, RESERVED)[RESERVED] = who.ns.net.port_list(value)


computed(RESERVED, _set_reserved, of_reader=True)(
    lambda who: values_of(who, RESERVED).get(RESERVED, "")
)
computed(PORT_RANGE, _set_port_range, of_reader=True)(lambda who: "{}\t{}".format(*_ports(who)))
computed(PRIVILEGED, _set_privileged, of_reader=True)(lambda who: str(_first_free(who)))


# --- who may have ping sockets: the groups are kept as the kernel knows them


def _set_ping_groups(who: Any, value: str) -> None:
    """ipv4_ping_group_range(): of a range that is none, or upside down, nobody is a member."""
    found = numbers_in(value)
    low, high = _ping_groups(who)
    numbers = [*found, high][:2] if len(found) == 1 else found
    if len(numbers) != 2 or not all(0 <= number <= GID_MAX for number in numbers):
        raise EINVAL(value)
    creds = getattr(who, "creds", None)
    user_ns = creds.user_ns if creds is not None else None
    low, high = (kernel_id(user_ns, number, "gid") for number in numbers)
    if NO_ID in (low, high):
        raise EINVAL(f"{value}: groups that are not mapped")
    if numbers[1] < numbers[0] or high < low:
        low, high = 1, 0
    values_of(who, PING_GROUPS)[PING_GROUPS] = f"{low}\t{high}"


def _ping_groups(who: Any) -> tuple[int, int]:
    """As the reader knows them."""
    low, high = map(int, values_of(who, PING_GROUPS).get(PING_GROUPS, "1\t0").split())
    creds = getattr(who, "creds", None)
    return (low, high) if creds is None else (creds.shown_gid(low), creds.shown_gid(high))


computed(PING_GROUPS, _set_ping_groups, of_reader=True)(
    lambda who: "{}\t{}".format(*_ping_groups(who))
)
