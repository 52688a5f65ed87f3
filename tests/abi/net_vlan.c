/* VLANs: tags as packet sockets see them, what follows what, who gets which frame. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/if_vlan.h>
#include <net/ethernet.h>

#define KIND 0x88B5 /* of frames that nobody else sends */
#define TAG 0xE005  /* priority 7, number 5 */

static int packet_socket(const char *name)
{
    struct sockaddr_ll own = {AF_PACKET, htons(ETH_P_ALL), if_nametoindex(name)};
    int sock = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), on = 1;
    CHECK(bind(sock, (void *)&own, sizeof own) == 0);
    CHECK(setsockopt(sock, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) == 0);
    return sock;
}

/* A frame for all, with a tag if there is one. */
static int frame(unsigned char *made, int protocol, int tag)
{
    int size = 12;
    memset(made, 0, 2000);
    memset(made, 255, 6);
    memcpy(made + 6, (char[]){2, 0, 0, 0, 0, 9}, 6);
    if (tag) {
        made[size++] = protocol >> 8, made[size++] = protocol & 255;
        made[size++] = tag >> 8, made[size++] = tag & 255;
    }
    made[size++] = KIND >> 8, made[size++] = KIND & 255;
    return size;
}

/* The next frame of ours has this tag beside it. */
static void tag_is(int sock, int protocol, int tag)
{
    static unsigned char got[2000];
    char beside[200];
    struct sockaddr_ll from;
    struct iovec one = {got, sizeof got};
    struct msghdr message;
    do {
        message = (struct msghdr){&from, sizeof from, &one, 1, beside, sizeof beside};
        CHECK(recvmsg(sock, &message, 0) > 0);
    } while (from.sll_pkttype == PACKET_OUTGOING || got[12] != KIND >> 8);
    CHECK(got[13] == (KIND & 255) && from.sll_protocol == htons(KIND));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head && head->cmsg_level == SOL_PACKET && head->cmsg_type == PACKET_AUXDATA);
    struct tpacket_auxdata *about = (void *)CMSG_DATA(head);
    int is_valid = TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID;
    CHECK((about->tp_status & is_valid) == (protocol ? is_valid : 0));
    CHECK(about->tp_vlan_tci == tag && about->tp_vlan_tpid == protocol);
    CHECK(about->tp_net == 14);
}

static void tags(void)
{
    static unsigned char made[2000];
    int sends = packet_socket("a"), hears = packet_socket("b"), size;
    size = frame(made, 0, 0);
    CHECK(send(sends, made, size + 46, 0) == size + 46);
    tag_is(hears, 0, 0);
    size = frame(made, ETH_P_8021Q, TAG);
    CHECK(send(sends, made, size + 46, 0) == size + 46);
    tag_is(hears, ETH_P_8021Q, TAG);
    size = frame(made, ETH_P_8021AD, 1);
    CHECK(send(sends, made, size + 46, 0) == size + 46);
    tag_is(hears, ETH_P_8021AD, 1);
    frame(made, ETH_P_8021Q, TAG);
    CHECK(send(sends, made, 1518, 0) == 1518);
    tag_is(hears, ETH_P_8021Q, TAG);
    CHECK_ERR(send(sends, made, 1519, 0), EMSGSIZE);
    frame(made, 0, 0);
    CHECK_ERR(send(sends, made, 1515, 0), EMSGSIZE);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TAG, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xFFFF),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {4, code};
    CHECK(setsockopt(hears, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
    size = frame(made, ETH_P_8021Q, TAG - 1);
    CHECK(send(sends, made, size + 46, 0) == size + 46);
    size = frame(made, ETH_P_8021Q, TAG);
    CHECK(send(sends, made, size + 46, 0) == size + 46);
    tag_is(hears, ETH_P_8021Q, TAG);
    close(sends);
    close(hears);
}

static int make_vlan(const char *name, int lower, int number, int protocol)
{
    unsigned short id = number, kind = htons(protocol);
    begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    add(IFLA_IFNAME, name, strlen(name) + 1);
    if (lower) add(IFLA_LINK, &lower, 4);
    struct rtattr *nest = add(IFLA_LINKINFO, "", 0);
    add(IFLA_INFO_KIND, "vlan", 4);
    struct rtattr *data = add(IFLA_INFO_DATA, "", 0);
    if (number >= 0) add(IFLA_VLAN_ID, &id, 2);
    if (protocol) add(IFLA_VLAN_PROTOCOL, &kind, 2);
    end(data);
    end(nest);
    return ask();
}

static void errors(int lower)
{
    CHECK(make_vlan("x", 0, 6, 0) == EINVAL);
    CHECK(make_vlan("x", lower, -1, ETH_P_8021Q) == EINVAL);
    CHECK(make_vlan("x", 9999, 6, 0) == ENODEV);
    CHECK(make_vlan("x", lower, 4095, 0) == ERANGE);
    CHECK(make_vlan("x", lower, 6, 0x9100) == EPROTONOSUPPORT);
    CHECK(make_vlan("x", lower, 5, 0) == EEXIST);
    CHECK(make_vlan("x", if_nametoindex("lo"), 6, 0) == EOPNOTSUPP);
    CHECK(if_nametoindex("x") == 0);
    CHECK(make_vlan("x", lower, 5, ETH_P_8021AD) == 0 && delete_link("x") == 0);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(make_vlan("x", lower, 6, 0) == EPERM);
    });
}

static int set_mtu(const char *name, int mtu)
{
    begin(RTM_SETLINK, 0);
    request.info.ifi_index = if_nametoindex(name);
    add(IFLA_MTU, &mtu, 4);
    return ask();
}

static int mtu_of(const char *name)
{
    struct ifreq asked;
    CHECK(get(name, SIOCGIFMTU, &asked) == 0);
    return asked.ifr_mtu;
}

static void following(void)
{
    struct ifreq up = named("a.5", IFF_UP), own, below;
    int sock = control();
    CHECK(flags_of("a.5") & IFF_BROADCAST && mtu_of("a.5") == 1500);
    CHECK(get("a.5", SIOCGIFHWADDR, &own) == 0 && get("a", SIOCGIFHWADDR, &below) == 0);
    CHECK(!memcmp(own.ifr_hwaddr.sa_data, below.ifr_hwaddr.sa_data, 6));
    set_up("a.5", 1);
    set_up("a", 0);
    CHECK(!(flags_of("a.5") & IFF_UP));
    CHECK_ERR(ioctl(sock, SIOCSIFFLAGS, &up), ENETDOWN);
    set_up("a", 1);
    CHECK(flags_of("a.5") & IFF_UP);
    CHECK(set_mtu("a.5", 1501) == ERANGE && set_mtu("a", 1400) == 0 && mtu_of("a.5") == 1400);
    CHECK(set_mtu("a", 1500) == 0 && mtu_of("a.5") == 1400 && set_mtu("a.5", 1500) == 0);
    set_up("b", 0);
    CHECK(!carrier_of("a.5"));
    set_up("b", 1);
    CHECK(carrier_of("a.5"));
    close(sock);
}

/* Who wants a type, by whatever interface, hears a frame of the VLAN there alone. */
static void heard_once(void)
{
    static unsigned char made[2000], got[2000];
    int sends = packet_socket("b"), every = socket(AF_PACKET, SOCK_RAW, htons(KIND));
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    int length = frame(made, ETH_P_8021Q, 5) + 46;
    CHECK(send(sends, made, length, 0) == length);
    CHECK(recvfrom(every, got, sizeof got, 0, (void *)&from, &size) == length - 4);
    CHECK(from.sll_ifindex == (int)if_nametoindex("a.5"));
    CHECK_ERR(recv(every, got, sizeof got, MSG_DONTWAIT), EAGAIN);
    close(sends);
    close(every);
}

static int has_line(const char *path, const char *wanted)
{
    char line[200];
    int found = 0;
    FILE *file = fopen(path, "r");
    CHECK(file);
    while (fgets(line, sizeof line, file)) found |= !strcmp(line, wanted);
    fclose(file);
    return found;
}

static void shown(void)
{
    CHECK(has_line("proc/net/vlan/config", "VLAN Dev name\t | VLAN ID\n"));
    CHECK(has_line("proc/net/vlan/config", "a.5            | 5  | a\n"));
    CHECK(has_line("proc/net/vlan/a.5", "Device: a\n"));
    CHECK_ERR(open("proc/net/vlan/a.6", O_RDONLY), ENOENT);
    CHECK(make_vlan("a.6", if_nametoindex("a"), 6, 0) == 0);
    CHECK(has_line("proc/net/vlan/a.6", "Device: a\n") && delete_link("a.6") == 0);
}

int main(void)
{
    own_tun_network();
    CHECK(make_pair("a", "b", -1) == 0);
    set_up("a", 1);
    set_up("b", 1);
    tags();
    int done = make_vlan("a.5", if_nametoindex("a"), 5, 0);
    if (done == EOPNOTSUPP) return 0; /* a module that not every Linux has */
    CHECK(done == 0);
    errors(if_nametoindex("a"));
    following();
    heard_once();
    shown();
    /* a network behind it, in which only its frames are heard */
    int there = other_network(), here = open("/proc/self/ns/net", O_RDONLY);
    CHECK(move_link("b", there, NULL) == 0 && setns(there, CLONE_NEWNET) == 0);
    set_up("b", 1);
    CHECK(make_vlan("b.5", if_nametoindex("b"), 5, 0) == 0 && setns(here, CLONE_NEWNET) == 0);
    address("a.5", "10.6.0.1");
    pid_t child = echo_in(there, "b.5", "10.6.0.2");
    talk("10.6.0.2");
    CHECK(status_of(child) == 0);
    CHECK(move_link("a.5", there, "moved") == 0 && if_nametoindex("a.5") == 0);
    CHECK(setns(there, CLONE_NEWNET) == 0 && if_nametoindex("moved") != 0);
    CHECK(setns(here, CLONE_NEWNET) == 0 && delete_link("a") == 0);
    CHECK(setns(there, CLONE_NEWNET) == 0);
    CHECK(if_nametoindex("moved") == 0 && if_nametoindex("b.5") == 0);
    return 0;
}
