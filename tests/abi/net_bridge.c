/* A bridge and its ports: who gets which frame, and what netlink says of them. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <linux/if_bridge.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>

#define KIND 0x88B5 /* of frames that nobody else sends */

static int set_master(const char *name, int index)
{
    begin(RTM_SETLINK, 0);
    request.info.ifi_index = if_nametoindex(name);
    add(IFLA_MASTER, &index, 4);
    return ask();
}

static int set_port(const char *name, int what, unsigned char value)
{
    begin(RTM_SETLINK, 0);
    request.info.ifi_family = AF_BRIDGE;
    request.info.ifi_index = if_nametoindex(name);
    struct rtattr *nest = add(IFLA_PROTINFO | NLA_F_NESTED, "", 0);
    add(what, &value, 1);
    end(nest);
    return ask();
}

/* The number in an attribute of an interface; 0: there is none. */
static int told(const char *name, int what)
{
    static char answer[16384];
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), found = 0;
    begin(RTM_GETLINK, 0);
    request.head.nlmsg_flags = NLM_F_REQUEST;
    request.info.ifi_index = if_nametoindex(name);
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) == request.head.nlmsg_len);
    int left = recv(sock, answer, sizeof answer, 0) - NLMSG_LENGTH(sizeof request.info);
    CHECK(left > 0 && ((struct nlmsghdr *)answer)->nlmsg_type == RTM_NEWLINK);
    struct rtattr *each = (void *)(answer + NLMSG_LENGTH(sizeof request.info));
    for (; RTA_OK(each, left); each = RTA_NEXT(each, left))
        if (each->rta_type == what) found = *(int *)RTA_DATA(each);
    close(sock);
    return found;
}

static void hardware_of(const char *name, unsigned char *address)
{
    struct ifreq asked;
    CHECK(get(name, SIOCGIFHWADDR, &asked) == 0);
    memcpy(address, asked.ifr_hwaddr.sa_data, 6);
}

static void set_hardware(const char *name, int last)
{
    struct ifreq asked = named(name, 0);
    int sock = control();
    asked.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(asked.ifr_hwaddr.sa_data, (char[]){2, 0, 0, 0, 0, last}, 6);
    CHECK(ioctl(sock, SIOCSIFHWADDR, &asked) == 0);
    close(sock);
}

static void errors(void)
{
    CHECK(make_link("other", "bridge") == 0 && make_pair("x", "y", -1) == 0);
    int bridge = if_nametoindex("br0");
    CHECK(set_master("x", 9999) == EINVAL);
    CHECK(set_master("x", if_nametoindex("y")) == EOPNOTSUPP);
    CHECK(set_master("lo", bridge) == EINVAL);
    CHECK(set_master("other", bridge) == ELOOP);
    CHECK(set_port("x", IFLA_BRPORT_MODE, 1) == EOPNOTSUPP);
    CHECK(set_master("x", bridge) == 0 && told("x", IFLA_MASTER) == bridge);
    CHECK(set_master("x", if_nametoindex("other")) == 0);
    CHECK(told("x", IFLA_MASTER) == if_nametoindex("other"));
    CHECK(set_master("x", 0) == 0 && told("x", IFLA_MASTER) == 0);
    CHECK(set_master("x", 0) == 0);
    CHECK(set_master("x", if_nametoindex("other")) == 0 && delete_link("other") == 0);
    CHECK(told("x", IFLA_MASTER) == 0);
    CHECK(set_master("x", bridge) == 0 && delete_link("y") == 0 && if_nametoindex("x") == 0);
}

static void addresses(void)
{
    unsigned char address[6];
    CHECK(make_link("br1", "bridge") == 0 && make_pair("p", "q", -1) == 0);
    set_hardware("p", 9);
    set_hardware("q", 8);
    set_up("br1", 1);
    CHECK(carrier_of("br1")); /* until it has had a port */
    CHECK(set_master("p", if_nametoindex("br1")) == 0);
    hardware_of("br1", address);
    CHECK(!memcmp(address, (char[]){2, 0, 0, 0, 0, 9}, 6));
    CHECK(!carrier_of("br1"));
    CHECK(set_master("q", if_nametoindex("br1")) == 0);
    hardware_of("br1", address);
    CHECK(!memcmp(address, (char[]){2, 0, 0, 0, 0, 8}, 6));
    set_up("p", 1);
    set_up("q", 1);
    CHECK(carrier_of("br1"));
    set_hardware("br1", 7);
    CHECK(set_master("q", 0) == 0);
    hardware_of("br1", address);
    CHECK(!memcmp(address, (char[]){2, 0, 0, 0, 0, 7}, 6)); /* a chosen one stays */
    struct ifreq mtu = named("p", 0);
    int sock = control();
    mtu.ifr_mtu = 1300;
    CHECK(ioctl(sock, SIOCSIFMTU, &mtu) == 0 && get("br1", SIOCGIFMTU, &mtu) == 0);
    CHECK(mtu.ifr_mtu == 1300);
    close(sock);
    CHECK(delete_link("p") == 0 && !carrier_of("br1"));
    CHECK(delete_link("br1") == 0);
}

static int socks[3], indexes[3];

static void plug(int which, int network, int here)
{
    char near[] = "p0", far[] = "f0";
    near[1] = far[1] = '0' + which;
    CHECK(make_pair(near, far, network) == 0);
    CHECK(set_master(near, if_nametoindex("br0")) == 0);
    set_up(near, 1);
    CHECK(setns(network, CLONE_NEWNET) == 0);
    set_hardware(far, 0x10 + which);
    set_up(far, 1);
    indexes[which] = if_nametoindex(far);
    struct sockaddr_ll own = {AF_PACKET, htons(KIND), indexes[which]};
    socks[which] = socket(AF_PACKET, SOCK_RAW, htons(KIND));
    CHECK(bind(socks[which], (void *)&own, sizeof own) == 0);
    struct packet_mreq all = {indexes[which], PACKET_MR_PROMISC};
    CHECK(setsockopt(socks[which], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0);
}

static void send_frame(int from, const unsigned char *target, int last, int number)
{
    unsigned char frame[60] = {0};
    memcpy(frame, target, 6);
    memcpy(frame + 6, (char[]){2, 0, 0, 0, 0, last}, 6);
    frame[12] = KIND >> 8;
    frame[13] = KIND & 255;
    frame[14] = number;
    CHECK(send(socks[from], frame, sizeof frame, 0) == sizeof frame);
}

/* Bits of those who get a frame: what comes before one for all that is sent later, by another port
   and then by the same. */
static int reached(int from, const unsigned char *target, int last)
{
    static const unsigned char all[6] = {255, 255, 255, 255, 255, 255};
    static int number;
    unsigned char got[2000];
    int found = 0, by = from == 2 ? 1 : 2;
    send_frame(from, target, last, ++number);
    send_frame(by, all, 0x10 + by, 0);
    for (int i = 0; i < 3; i++)
        while (i != by && recv(socks[i], got, sizeof got, 0) > 0 && got[14])
            found |= (got[14] == number) << i;
    send_frame(from, all, 0x10 + from, 0);
    while (recv(socks[by], got, sizeof got, 0) > 0 && got[14]) found |= (got[14] == number) << by;
    for (int i = 0; i < 3; i++)
        if (i != by && i != from) CHECK(recv(socks[i], got, sizeof got, 0) > 0 && !got[14]);
    return found;
}

static void frames(void)
{
    unsigned char nobody[6] = {2, 0, 0, 0, 0, 0x77}, second[6] = {2, 0, 0, 0, 0, 0x30};
    unsigned char one[6] = {2, 0, 0, 0, 0, 0x11}, two[6] = {2, 0, 0, 0, 0, 0x12};
    unsigned char fourth[6] = {2, 0, 0, 0, 0, 0x44}, got[60];
    unsigned char group[6] = {0x33, 0x33, 0, 0, 0, 9}, link[6] = {1, 0x80, 0xC2, 0, 0, 0};
    CHECK(reached(0, nobody, 0x10) == 6);
    CHECK(reached(1, nobody, 0x11) == 5);
    CHECK(reached(0, one, 0x10) == 2);
    CHECK(reached(0, two, 0x10) == 4);
    CHECK(reached(0, group, 0x10) == 6);
    CHECK(reached(0, link, 0x10) == 6); /* of STP, which is off */
    link[5] = 14;
    CHECK(reached(0, link, 0x10) == 0);
    CHECK(reached(0, nobody, 0x30) == 6 && reached(0, second, 0x10) == 0);
    CHECK(set_port("p0", IFLA_BRPORT_MODE, 1) == 0);
    send_frame(0, second, 0x10, 99);
    CHECK(recv(socks[0], got, sizeof got, 0) == sizeof got && got[14] == 99);
    CHECK(set_port("p0", IFLA_BRPORT_MODE, 0) == 0);
    CHECK(set_port("p2", IFLA_BRPORT_UNICAST_FLOOD, 0) == 0);
    CHECK(reached(0, nobody, 0x10) == 2 && reached(0, two, 0x10) == 4);
    CHECK(set_port("p2", IFLA_BRPORT_UNICAST_FLOOD, 1) == 0);
    CHECK(set_port("p1", IFLA_BRPORT_LEARNING, 0) == 0);
    CHECK(reached(1, nobody, 0x44) == 5 && reached(0, fourth, 0x10) == 6);
    CHECK(set_port("p1", IFLA_BRPORT_LEARNING, 1) == 0);
    set_hardware("br0", 0x60);
    set_hardware("br0", 0x61);
    fourth[5] = 0x60;
    CHECK(reached(0, fourth, 0x10) == 6); /* the bridge's no more */
    fourth[5] = 0x61;
    CHECK(reached(0, fourth, 0x10) == 0);
    CHECK(reached(2, nobody, 0x30) == 3 && reached(0, second, 0x10) == 4); /* it has moved */
}

static int change_fdb(int kind, int flags, const char *name, int last, int state, int how)
{
    unsigned char address[6] = {2, 0, 0, 0, 0, last};
    struct ndmsg *about = (void *)&request.info;
    begin(kind, flags);
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *about);
    *about = (struct ndmsg){AF_BRIDGE, 0, 0, if_nametoindex(name), state, how, 0};
    add(NDA_LLADDR, address, 6);
    return ask();
}

/* The state of who is known behind a port; -1: it is not. */
static int known(const char *name, int last)
{
    static char answer[65536];
    unsigned char address[6] = {2, 0, 0, 0, 0, last};
    struct ndmsg *about = (void *)&request.info;
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), found = -1, over = 0;
    begin(RTM_GETNEIGH, 0);
    request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *about);
    about->ndm_family = AF_BRIDGE;
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) > 0);
    while (!over) {
        int left = recv(sock, answer, sizeof answer, 0);
        struct nlmsghdr *each = (void *)answer;
        for (; NLMSG_OK(each, left); each = NLMSG_NEXT(each, left)) {
            if ((over = each->nlmsg_type == NLMSG_DONE)) break;
            about = NLMSG_DATA(each);
            struct rtattr *one = (void *)(about + 1);
            int rest = each->nlmsg_len - NLMSG_LENGTH(sizeof *about), is_it = 0, has_bridge = 0;
            for (; RTA_OK(one, rest); one = RTA_NEXT(one, rest)) {
                is_it |= one->rta_type == NDA_LLADDR && !memcmp(RTA_DATA(one), address, 6);
                has_bridge |= one->rta_type == NDA_MASTER;
            }
            if (is_it && has_bridge && about->ndm_ifindex == if_nametoindex(name))
                found = about->ndm_state;
        }
    }
    close(sock);
    return found;
}

static void fdb(void)
{
    unsigned char set[6] = {2, 0, 0, 0, 0, 0x50}, ours[6] = {2, 0, 0, 0, 0, 0x52};
    int create = NLM_F_CREATE, fresh = NLM_F_CREATE | NLM_F_EXCL;
    CHECK(known("p0", 0x10) == NUD_REACHABLE && known("p1", 0x10) == -1);
    CHECK(known("p2", 0x30) == NUD_REACHABLE);
    CHECK(change_fdb(RTM_NEWNEIGH, 0, "p1", 0x50, NUD_NOARP, NTF_MASTER) == ENOENT);
    CHECK(change_fdb(RTM_NEWNEIGH, fresh, "p1", 0x50, NUD_NOARP, NTF_MASTER) == 0);
    CHECK(change_fdb(RTM_NEWNEIGH, fresh, "p1", 0x50, NUD_NOARP, NTF_MASTER) == EEXIST);
    CHECK(known("p1", 0x50) == NUD_NOARP && reached(0, set, 0x10) == 2);
    CHECK(change_fdb(RTM_NEWNEIGH, create, "p2", 0x50, NUD_NOARP, 0) == 0);
    CHECK(known("p1", 0x50) == -1 && reached(0, set, 0x10) == 4);
    CHECK(change_fdb(RTM_NEWNEIGH, create, "p1", 0x51, 0, NTF_MASTER) == EINVAL);
    CHECK(change_fdb(RTM_NEWNEIGH, create, "p1", 0x51, NUD_PERMANENT,
                     NTF_MASTER | NTF_STICKY) == EINVAL);
    CHECK(change_fdb(RTM_NEWNEIGH, create, "br0", 0x52, NUD_NOARP, NTF_SELF) == EINVAL);
    CHECK(change_fdb(RTM_NEWNEIGH, create, "br0", 0x52, NUD_PERMANENT, NTF_SELF) == 0);
    CHECK(known("br0", 0x52) == NUD_PERMANENT && reached(0, ours, 0x10) == 0);
    CHECK(change_fdb(RTM_DELNEIGH, 0, "br0", 0x52, 0, NTF_SELF) == 0 && known("br0", 0x52) == -1);
    CHECK(reached(0, ours, 0x10) == 6);
    CHECK(change_fdb(RTM_DELNEIGH, 0, "p1", 0x50, 0, NTF_MASTER) == ENOENT);
    CHECK(change_fdb(RTM_DELNEIGH, 0, "p2", 0x50, 0, NTF_MASTER) == 0 && known("p2", 0x50) == -1);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(change_fdb(RTM_NEWNEIGH, create, "p1", 0x50, NUD_NOARP, NTF_MASTER) == EPERM);
    });
}

int main(void)
{
    own_tun_network();
    CHECK(make_link("br0", "bridge") == 0);
    errors();
    addresses();
    int here = open("/proc/self/ns/net", O_RDONLY), networks[3];
    for (int i = 0; i < 3; i++) plug(i, networks[i] = other_network(), here);
    set_up("br0", 1);
    frames();
    fdb();
    address("br0", "10.8.0.1");
    pid_t child = echo_in(networks[1], "f1", "10.8.0.2");
    talk("10.8.0.2");
    CHECK(status_of(child) == 0);
    child = echo_in(here, "br0", "10.8.0.1");
    CHECK(setns(networks[0], CLONE_NEWNET) == 0);
    address("f0", "10.8.0.3");
    talk("10.8.0.1");
    CHECK(status_of(child) == 0);
    child = echo_in(networks[2], "f2", "10.8.0.4");
    talk("10.8.0.4");
    CHECK(status_of(child) == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0 && delete_link("br0") == 0);
    CHECK(told("p0", IFLA_MASTER) == 0);
    return 0;
}
