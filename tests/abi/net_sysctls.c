/* Values below /proc/sys/net: what sockets heed, which bounds they have, who owns those of a network
   namespace of a nested user namespace. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_own.h"
#include "ns.h"

static char text[200];

static int put(const char *name, const char *value)
{
    char path[200];
    snprintf(path, sizeof path, "proc/sys/net/%s", name);
    return write_text(path, value);
}

static const char *get(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "proc/sys/net/%s", name);
    read_text(path, text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    return text;
}

/* The last value that is too small, the first and the last that are taken, one that is too large. */
static void bounds(const char *name, const char *below, const char *low, const char *high,
                   const char *above)
{
    char before[200];
    strcpy(before, get(name));
    CHECK(put(name, below) == -EINVAL);
    CHECK(put(name, above) == -EINVAL);
    CHECK(put(name, "abc") == -EINVAL && !strcmp(get(name), before));
    CHECK(put(name, low) == (int)strlen(low) && !strcmp(get(name), low));
    CHECK(put(name, high) == (int)strlen(high) && !strcmp(get(name), high));
    CHECK(put(name, before) == (int)strlen(before));
}

static void ranges(void)
{
    bounds("ipv4/ip_default_ttl", "0", "1", "255", "256");
    bounds("ipv4/ip_nonlocal_bind", "-1", "0", "255", "256");
    bounds("ipv4/icmp_echo_ignore_all", "-1", "0", "1", "2");
    bounds("ipv4/icmp_echo_ignore_broadcasts", "-1", "0", "1", "2");
    bounds("ipv4/icmp_ratelimit", "-1", "0", "1000", "2147483648");
    bounds("ipv4/icmp_msgs_per_sec", "-1", "0", "2147483647", "2147483648");
    bounds("ipv4/icmp_msgs_burst", "-1", "0", "2147483647", "2147483648");
    bounds("ipv6/icmp/ratelimit", "-1", "0", "100", "2147483648");
    bounds("ipv6/bindv6only", "-1", "0", "255", "256");
    bounds("ipv6/ip_nonlocal_bind", "-1", "0", "255", "256");
    bounds("ipv6/icmp/echo_ignore_all", "-1", "0", "255", "256");
    bounds("ipv6/icmp/echo_ignore_multicast", "-1", "0", "255", "256");
    bounds("ipv6/conf/lo/hop_limit", "0", "1", "255", "256");
    bounds("ipv6/conf/lo/mtu", "1279", "1280", "65536", "65537");
    bounds("ipv6/conf/all/mtu", "1279", "1280", "2147483647", "2147483648");
    bounds("ipv6/conf/lo/accept_ra", "-2147483649", "-1", "2", "2147483648");
    bounds("ipv6/conf/lo/ndisc_tclass", "-1", "0", "255", "256");
    bounds("ipv6/conf/default/ioam6_id", "-1", "0", "65535", "65536");
    bounds("ipv6/conf/all/seg6_enabled", "-2147483649", "-1", "2", "2147483648");
    bounds("ipv6/conf/lo/router_solicitation_delay", "-2147483647", "-1", "65536", "2147483647");
    CHECK(!strcmp(get("ipv6/conf/lo/router_solicitations"), "-1"));
    CHECK(!strcmp(get("ipv6/conf/all/temp_valid_lft"), "604800"));
    CHECK(!strcmp(get("ipv6/conf/lo/accept_dad"), "-1"));
    CHECK(!strcmp(get("ipv6/conf/default/accept_dad"), "1"));
    CHECK(!strcmp(get("ipv6/conf/lo/use_tempaddr"), "-1"));
    CHECK(!strcmp(get("ipv6/conf/all/mtu"), "1280") && !strcmp(get("ipv6/conf/lo/mtu"), "65536"));
    /* Ports that may be found are none that need a capability. */
    CHECK(put("ipv4/ip_local_port_range", "1000 2000") == -EINVAL);
    CHECK(put("ipv4/ip_unprivileged_port_start", "40000") == -EINVAL);
    CHECK(put("ipv4/ip_unprivileged_port_start", "65536") == -EINVAL);
    CHECK(put("ipv4/ip_unprivileged_port_start", "80") == 2);
    CHECK(put("ipv4/ip_local_port_range", "80 2000") == 7);
    CHECK(put("ipv4/ip_local_port_range", "32768 60999") == 11);
}

static int echo(const char *to)
{
    unsigned char request[8] = {8, 0, 0xf7, 0xff}, answer[64];
    struct sockaddr_in a = {AF_INET};
    inet_pton(AF_INET, to, &a.sin_addr);
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), seen = 0;
    set_option(raw, SOL_SOCKET, SO_BROADCAST, 1);
    CHECK(sendto(raw, request, 8, 0, (SA *)&a, sizeof a) == 8);
    while (recv(raw, answer, sizeof answer, MSG_DONTWAIT) > 0)
        seen += answer[20] == 0;
    close(raw);
    return seen;
}

static void heeded(void)
{
    struct sockaddr_in6 l = {AF_INET6, htons(9), 0, IN6ADDR_LOOPBACK_INIT}, there = {AF_INET6};
    struct sockaddr_in far = {AF_INET};
    inet_pton(AF_INET, "10.1.1.1", &far.sin_addr);
    inet_pton(AF_INET6, "fd00::1", &there.sin6_addr);
    int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(put("ipv4/ip_default_ttl", "77") == 2 && option(s, 0, IP_TTL) == 77);
    CHECK(set_option(s, 0, IP_TTL, 5) == 0 && option(s, 0, IP_TTL) == 5);
    CHECK(set_option(s, 0, IP_TTL, -1) == 0 && option(s, 0, IP_TTL) == 77);
    CHECK(put("ipv6/conf/lo/hop_limit", "55") == 2 && option(t, 41, IPV6_UNICAST_HOPS) == 64);
    CHECK(connect(t, (SA *)&l, sizeof l) == 0 && option(t, 41, IPV6_UNICAST_HOPS) == 55);
    CHECK(put("ipv6/conf/all/hop_limit", "56") == 2 && option(t, 41, IPV6_UNICAST_HOPS) == 55);
    close(t);
    t = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(option(t, 41, IPV6_UNICAST_HOPS) == 56 && option(t, 41, IPV6_V6ONLY) == 0);
    CHECK_ERR(bind(s, (SA *)&far, sizeof far), EADDRNOTAVAIL);
    CHECK_ERR(bind(t, (SA *)&there, sizeof there), EADDRNOTAVAIL);
    CHECK(put("ipv4/ip_nonlocal_bind", "1") == 1 && bind(s, (SA *)&far, sizeof far) == 0);
    CHECK_ERR(bind(t, (SA *)&there, sizeof there), EADDRNOTAVAIL);
    CHECK(put("ipv6/ip_nonlocal_bind", "1") == 1 && bind(t, (SA *)&there, sizeof there) == 0);
    close(s), close(t);
    CHECK(put("ipv6/bindv6only", "1") == 1);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(option(t, 41, IPV6_V6ONLY) == 1 && put("ipv6/bindv6only", "0") == 1);
    close(t);
    CHECK(echo("127.0.0.1") == 1 && put("ipv4/icmp_echo_ignore_all", "1") == 1);
    CHECK(echo("127.0.0.1") == 0 && put("ipv4/icmp_echo_ignore_all", "0") == 1);
    CHECK(echo("127.255.255.255") == 0);

    CHECK(put("ipv6/conf/lo/mtu", "1400") == 4);
    t = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(connect(t, (SA *)&l, sizeof l) == 0 && option(t, 41, IPV6_MTU) == 1400);
    close(t);
}

/* IPv6 on and off. */
static void without_ipv6(void)
{
    struct sockaddr_in6 l = {AF_INET6, htons(9), 0, IN6ADDR_LOOPBACK_INIT};
    int t = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(put("ipv6/conf/lo/disable_ipv6", "1") == 1);
    CHECK_ERR(connect(t, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    CHECK(put("ipv6/conf/lo/disable_ipv6", "0") == 1 && connect(t, (SA *)&l, sizeof l) == 0);
    CHECK(put("ipv6/conf/all/disable_ipv6", "1") == 1);
    CHECK(!strcmp(get("ipv6/conf/lo/disable_ipv6"), "1"));
    CHECK(!strcmp(get("ipv6/conf/default/disable_ipv6"), "1"));
    close(t);
    t = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK_ERR(connect(t, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    CHECK(put("ipv6/conf/all/disable_ipv6", "0") == 1 && connect(t, (SA *)&l, sizeof l) == 0);
    close(t);
}

static void ping_groups(void)
{
    const char *name = "ipv4/ping_group_range";
    CHECK(!strcmp(get(name), "1\t0"));
    CHECK(put(name, "0 2147483647") == 12 && !strcmp(get(name), "0\t2147483647"));
    CHECK(put(name, "0 4294967294") == 12 && !strcmp(get(name), "0\t4294967294"));
    CHECK(put(name, "0 4294967295") == -EINVAL && put(name, "-1 5") == -EINVAL);
    CHECK(put(name, "10 5") == 4 && !strcmp(get(name), "1\t0"));
    CHECK(put(name, "3") == 1 && !strcmp(get(name), "1\t0"));
}

static void owner(const char *name, int uid)
{
    struct stat found;
    char path[200];
    snprintf(path, sizeof path, "proc/sys/net/%s", name);
    CHECK(stat(path, &found) == 0 && found.st_uid == uid && found.st_gid == uid);
    CHECK((found.st_mode & 07777) == 0644);
    CHECK(access(path, R_OK) == 0 && access(path, X_OK) == -1);
    CHECK(access(path, W_OK) == (uid ? -1 : 0));
}

/* In a user namespace that has groups 0 to 999; `flags`: with a network of its own or not. */
static void nested(int flags, void (*code)(void))
{
    int ready[2], go[2];
    char byte, path[64];
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUSER | flags) == 0 && write(ready[1], "x", 1) == 1);
        CHECK(read(go[0], &byte, 1) == 1 && setgid(0) == 0 && setuid(0) == 0);
        code();
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "proc/%d/uid_map", child);
    CHECK(write_text(path, "0 100000 1000\n") > 0);
    snprintf(path, sizeof path, "proc/%d/gid_map", child);
    CHECK(write_text(path, "0 100000 1000\n") > 0);
    CHECK(write(go[1], "x", 1) == 1 && status_of(child) == 0);
    close(ready[0]), close(ready[1]), close(go[0]), close(go[1]);
}

static void own_values(void)
{
    const char *name = "ipv4/ping_group_range";
    owner(name, 0), owner("ipv6/bindv6only", 0), owner("core/somaxconn", 0);
    CHECK(!strcmp(get(name), "65534\t65534"));  // group 1 and 0 of outside
    CHECK(put(name, "0 10") == 4 && !strcmp(get(name), "0\t10"));
    CHECK(put(name, "0 99999") == -EINVAL);  // not mapped
    CHECK(put(name, "0 4294967294") == -EINVAL && !strcmp(get(name), "0\t10"));
    int ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    CHECK(ping >= 0);
    CHECK(put(name, "5 3") == 3 && !strcmp(get(name), "65534\t65534"));
    CHECK_ERR(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), EACCES);
    CHECK(put("core/somaxconn", "100") == 3 && put("ipv4/ip_unprivileged_port_start", "80") == 2);
    CHECK(put("ipv6/bindv6only", "1") == 1 && put("unix/max_dgram_qlen", "20") == 2);
    CHECK(setresuid(500, 500, 500) == 0);
    CHECK(put("core/somaxconn", "200") == -EACCES && !strcmp(get("core/somaxconn"), "100"));
}

static void others_values(void)
{
    owner("ipv4/ping_group_range", 65534), owner("ipv6/bindv6only", 65534);
    CHECK(put("ipv4/ping_group_range", "0 10") == -EACCES);
    CHECK(!strcmp(get("core/somaxconn"), "4096") && put("core/somaxconn", "1") == -EACCES);
}

int main(void)
{
    own_network();
    ranges();
    heeded();
    without_ipv6();
    ping_groups();
    nested(CLONE_NEWNET, own_values);
    nested(0, others_values);
    CHECK(!strcmp(get("core/somaxconn"), "4096") && !strcmp(get("unix/max_dgram_qlen"), "10"));
    return 0;
}
