/* A router: what it sends on between two networks, and what its values in /proc/sys do. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <linux/errqueue.h>

#define VALUES "proc/sys/net/ipv4/"

static char *value_of(const char *path)
{
    static char text[32];
    int fd = open(path, O_RDONLY), got;
    CHECK(fd >= 0 && (got = read(fd, text, sizeof text - 1)) > 0);
    close(fd);
    text[got - 1] = 0;
    return text;
}

static void switches(void)
{
    CHECK(write_text(VALUES "ip_forward", "1") == 1); /* as another network may have left it */
    CHECK(write_text(VALUES "ip_forward", "0") == 1);
    CHECK(write_text(VALUES "conf/lo/forwarding", "1") == 1);
    CHECK(!strcmp(value_of(VALUES "ip_forward"), "0"));
    CHECK(write_text(VALUES "ip_forward", "1") == 1);
    CHECK(!strcmp(value_of(VALUES "conf/all/forwarding"), "1"));
    CHECK(!strcmp(value_of(VALUES "conf/default/forwarding"), "1"));
    CHECK(!strcmp(value_of(VALUES "conf/lo/forwarding"), "1"));
    CHECK(!strcmp(value_of(VALUES "conf/all/accept_redirects"), "0"));
    CHECK(write_text(VALUES "conf/all/forwarding", "0") == 1);
    CHECK(!strcmp(value_of(VALUES "ip_forward"), "0"));
    CHECK(!strcmp(value_of(VALUES "conf/all/accept_redirects"), "1"));
    CHECK(!strcmp(value_of("proc/sys/net/ipv6/conf/all/forwarding"), "0"));
    CHECK(write_text("proc/sys/net/ipv6/conf/all/forwarding", "1") == 1);
    CHECK(!strcmp(value_of("proc/sys/net/ipv6/conf/lo/forwarding"), "1"));
    CHECK(!strcmp(value_of("proc/sys/net/ipv6/conf/default/forwarding"), "1"));
}

/* All that is not near goes there. */
static void default_route(const char *gateway)
{
    unsigned ip = inet_addr(gateway);
    struct {
        struct nlmsghdr head;
        struct rtmsg route;
    } *asked = (void *)&request;
    memset(&request, 0, sizeof request);
    asked->head = (struct nlmsghdr){NLMSG_LENGTH(sizeof asked->route), RTM_NEWROUTE,
                                    NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE};
    asked->route = (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN,
                                  .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
    add(RTA_GATEWAY, &ip, 4);
    CHECK(ask() == 0);
}

/* What an error of ICMP about a datagram to it says: type, code, and who says it. */
static void told(const char *ip, int hops, int type, int code, const char *who)
{
    struct sockaddr_in to = place(ip, 9);
    char control_data[512], byte;
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control_data,
                             .msg_controllen = sizeof control_data};
    int sock = control(), on = 1;
    CHECK(setsockopt(sock, IPPROTO_IP, IP_RECVERR, &on, sizeof on) == 0);
    CHECK(setsockopt(sock, IPPROTO_IP, IP_TTL, &hops, sizeof hops) == 0);
    CHECK(sendto(sock, "x", 1, 0, (void *)&to, sizeof to) == 1);
    struct pollfd waits = {sock, 0, 0};
    CHECK(poll(&waits, 1, 10000) == 1 && waits.revents & POLLERR);
    CHECK(recvmsg(sock, &message, MSG_ERRQUEUE) == 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head && head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_RECVERR);
    struct sock_extended_err *error = (void *)CMSG_DATA(head);
    CHECK(error->ee_type == type && error->ee_code == code);
    struct sockaddr_in *offender = (void *)SO_EE_OFFENDER(error);
    CHECK(offender->sin_addr.s_addr == inet_addr(who));
    close(sock);
}

static void large(const char *ip, int mtu)
{
    struct sockaddr_in to = place(ip, 9);
    static char data[2000];
    int sock = control(), always = IP_PMTUDISC_DO, found = 0;
    socklen_t size = sizeof found;
    CHECK(setsockopt(sock, IPPROTO_IP, IP_MTU_DISCOVER, &always, sizeof always) == 0);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && send(sock, data, 1400, 0) == 1400);
    while (found != mtu) CHECK(getsockopt(sock, IPPROTO_IP, IP_MTU, &found, &size) == 0);
    CHECK_ERR(send(sock, data, 1400, 0), EMSGSIZE);
    close(sock);
}

int main(void)
{
    struct ifreq narrow = named("r2", 0);
    own_tun_network();
    switches();
    int near = other_network(), far = other_network();
    int here = open("/proc/self/ns/net", O_RDONLY);
    CHECK(make_pair("r1", "near", near) == 0 && make_pair("r2", "far", far) == 0);
    address("r1", "10.7.1.1");
    address("r2", "10.7.2.1");
    CHECK(write_text(VALUES "ip_forward", "1") == 1);
    CHECK(setns(far, CLONE_NEWNET) == 0);
    address("far", "10.7.2.2");
    default_route("10.7.2.1");
    CHECK(setns(here, CLONE_NEWNET) == 0);
    pid_t child = echo_in(far, "far", "10.7.2.2");
    CHECK(setns(near, CLONE_NEWNET) == 0);
    address("near", "10.7.1.2");
    default_route("10.7.1.1");
    talk("10.7.2.2");
    CHECK(status_of(child) == 0);
    told("10.7.2.2", 1, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, "10.7.1.1");
    told("10.7.2.2", 2, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, "10.7.2.2");
    told("11.0.0.1", 9, ICMP_DEST_UNREACH, ICMP_NET_UNREACH, "10.7.1.1");
    told("10.7.2.9", 9, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, "10.7.1.1");
    CHECK(setns(here, CLONE_NEWNET) == 0);
    narrow.ifr_mtu = 1300;
    int sock = control();
    CHECK(ioctl(sock, SIOCSIFMTU, &narrow) == 0);
    close(sock);
    CHECK(setns(near, CLONE_NEWNET) == 0);
    large("10.7.2.2", 1300);
    return 0;
}
