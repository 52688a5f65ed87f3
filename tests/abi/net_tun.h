/* Interfaces that the program itself serves, in a network of its own; packets of IPv4 by hand. */
#ifndef NET_TUN_H
#define NET_TUN_H

#include "abi.h"
#include "ns.h"

#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define DEVICE "tun-device"

#define NO_IPV6 "proc/sys/net/ipv6/conf/default/disable_ipv6"

/* A namespace with the loopback down, and the device in the working directory. What the kernel
   says by IPv6 as an interface comes up is not in the way of what is read. */
static inline void own_tun_network(void)
{
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mkdir("proc", 0755) == 0 && mount("proc", "proc", "proc", 0, NULL) == 0);
    CHECK(write_text(NO_IPV6, "1") == 1);
    CHECK(mknod(DEVICE, S_IFCHR | 0600, makedev(10, 200)) == 0);
}

static inline int open_tun(int flags)
{
    int fd = open(DEVICE, O_RDWR | flags);
    CHECK(fd >= 0);
    return fd;
}

static inline struct ifreq named(const char *name, int flags)
{
    struct ifreq request = {.ifr_flags = flags};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return request;
}

static inline int control(void)
{
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(sock >= 0);
    return sock;
}

static inline int get(const char *name, unsigned long what, struct ifreq *request)
{
    int sock = control(), done;
    *request = named(name, 0);
    done = ioctl(sock, what, request);
    close(sock);
    return done;
}

static inline int flags_of(const char *name)
{
    struct ifreq request;
    CHECK(get(name, SIOCGIFFLAGS, &request) == 0);
    return request.ifr_flags & 0xFFFF;
}

/* Whether somebody is at the other end; IFF_RUNNING follows a little later. */
static inline int carrier_of(const char *name)
{
    struct ethtool_value value = {ETHTOOL_GLINK};
    struct ifreq request = named(name, 0);
    int sock = control();
    request.ifr_data = (void *)&value;
    CHECK(ioctl(sock, SIOCETHTOOL, &request) == 0);
    close(sock);
    return value.data;
}

static inline void set_address(const char *name, unsigned long what, const char *ip)
{
    struct ifreq request = named(name, 0);
    struct sockaddr_in *address = (void *)&request.ifr_addr;
    int sock = control();
    address->sin_family = AF_INET;
    CHECK(inet_pton(AF_INET, ip, &address->sin_addr) == 1);
    CHECK(ioctl(sock, what, &request) == 0);
    close(sock);
}

static inline void set_up(const char *name, int up)
{
    struct ifreq request = named(name, (flags_of(name) & ~IFF_UP) | (up ? IFF_UP : 0));
    int sock = control();
    CHECK(ioctl(sock, SIOCSIFFLAGS, &request) == 0);
    close(sock);
}

/* Made, with an address and a netmask, and up. */
static inline int make_up(const char *name, int flags, const char *ip, const char *mask)
{
    int fd = open_tun(0);
    struct ifreq request = named(name, flags);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0);
    set_address(name, SIOCSIFADDR, ip);
    set_address(name, SIOCSIFNETMASK, mask);
    set_up(name, 1);
    return fd;
}

static inline unsigned sum_of(const void *data, size_t size, unsigned total)
{
    const unsigned char *p = data;
    for (size_t at = 0; at < size; at += 2) total += p[at] << 8 | (at + 1 < size ? p[at + 1] : 0);
    while (total >> 16) total = (total & 0xFFFF) + (total >> 16);
    return total;
}

static inline unsigned pseudo_sum(const struct iphdr *ip, size_t size)
{
    return sum_of(&ip->saddr, 8, ip->protocol + size);
}

/* The next packet of IPv4, whole, behind nothing; but for those to groups (IGMP). */
static inline int next_packet(int fd, unsigned char *packet, size_t size)
{
    struct iphdr *ip = (void *)packet;
    int got;
    do {
        got = read(fd, packet, size);
        CHECK(got > 20 && got == ntohs(ip->tot_len) && sum_of(ip, ip->ihl * 4, 0) == 0xFFFF);
    } while (ntohl(ip->daddr) >> 28 == 14);
    return got;
}

/* A header before `size` bytes: as from `source` to `target`. */
static inline void put_header(unsigned char *packet, int size, int protocol, unsigned source,
                              unsigned target)
{
    struct iphdr *ip = (void *)packet;
    *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = protocol,
                         .tot_len = htons(20 + size), .saddr = source, .daddr = target};
    ip->check = htons(~sum_of(ip, 20, 0));
}

static inline void write_packet(int fd, const unsigned char *packet)
{
    int size = ntohs(((const struct iphdr *)packet)->tot_len);
    CHECK(write(fd, packet, size) == size);
}

static inline struct sockaddr_in place(const char *ip, int port)
{
    struct sockaddr_in made = {AF_INET, htons(port)};
    CHECK(inet_pton(AF_INET, ip, &made.sin_addr) == 1);
    return made;
}

#endif
