/* Who is known on a link: by netlink, by ioctl(2), in /proc. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <linux/neighbour.h>
#include <net/if_arp.h>

static int index_of_a;
static const unsigned char made_up[6] = {2, 0, 0, 0, 0, 0x55};

static int change(int kind, int flags, const char *ip, const void *hardware, int state)
{
    unsigned to = ip ? inet_addr(ip) : 0;
    struct ndmsg *about = (void *)&request.info;
    begin(kind, flags);
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *about);
    *about = (struct ndmsg){AF_INET, 0, 0, index_of_a, state, 0, 0};
    if (ip) add(NDA_DST, &to, 4);
    if (hardware) add(NDA_LLADDR, hardware, 6);
    return ask();
}

/* The state of one in a list of all, and its hardware address; -1: it is not there. */
static int listed(const char *ip, unsigned char *hardware)
{
    static char answer[65536];
    struct ndmsg *about = (void *)&request.info;
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), found = -1, over = 0;
    begin(RTM_GETNEIGH, 0);
    request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *about);
    about->ndm_family = AF_INET;
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) > 0);
    while (!over) {
        int left = recv(sock, answer, sizeof answer, 0);
        CHECK(left > 0);
        struct nlmsghdr *each = (void *)answer;
        for (; NLMSG_OK(each, left); each = NLMSG_NEXT(each, left)) {
            if ((over = each->nlmsg_type == NLMSG_DONE)) break;
            about = NLMSG_DATA(each);
            CHECK(each->nlmsg_type == RTM_NEWNEIGH && about->ndm_family == AF_INET);
            struct rtattr *one = (void *)(about + 1);
            int rest = each->nlmsg_len - NLMSG_LENGTH(sizeof *about), is_it = 0;
            unsigned char *own = NULL;
            for (; RTA_OK(one, rest); one = RTA_NEXT(one, rest)) {
                if (one->rta_type == NDA_DST)
                    is_it = *(unsigned *)RTA_DATA(one) == inet_addr(ip);
                if (one->rta_type == NDA_LLADDR) own = RTA_DATA(one);
            }
            if (!is_it || about->ndm_ifindex != index_of_a) continue;
            found = about->ndm_state;
            if (own && hardware) memcpy(hardware, own, 6);
        }
    }
    close(sock);
    return found;
}

static struct arpreq about(const char *ip, const char *device)
{
    struct arpreq made = {.arp_pa.sa_family = AF_INET};
    ((struct sockaddr_in *)&made.arp_pa)->sin_addr.s_addr = inet_addr(ip);
    strcpy(made.arp_dev, device);
    return made;
}

static int has_line(const char *start, const char *end)
{
    char line[200];
    int found = 0;
    FILE *file = fopen("proc/net/arp", "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        found |= !strncmp(line, start, strlen(start)) && strstr(line, end);
    fclose(file);
    return found;
}

static void by_netlink(void)
{
    unsigned char hardware[6];
    int make = NLM_F_CREATE, fresh = NLM_F_CREATE | NLM_F_EXCL;
    CHECK(listed("10.6.0.77", NULL) == -1);
    CHECK(change(RTM_NEWNEIGH, 0, "10.6.0.77", made_up, NUD_PERMANENT) == ENOENT);
    CHECK(change(RTM_NEWNEIGH, make, NULL, made_up, NUD_PERMANENT) == EINVAL);
    CHECK(change(RTM_NEWNEIGH, make, "10.6.0.77", NULL, NUD_PERMANENT) == EINVAL);
    CHECK(change(RTM_NEWNEIGH, fresh, "10.6.0.78", made_up, NUD_PERMANENT) == 0);
    CHECK(listed("10.6.0.78", hardware) == NUD_PERMANENT && !memcmp(hardware, made_up, 6));
    CHECK(change(RTM_NEWNEIGH, fresh, "10.6.0.78", made_up, NUD_PERMANENT) == EEXIST);
    CHECK(change(RTM_NEWNEIGH, NLM_F_REPLACE, "10.6.0.78", NULL, NUD_STALE) == 0);
    CHECK(listed("10.6.0.78", hardware) == NUD_STALE && !memcmp(hardware, made_up, 6));
    CHECK(change(RTM_DELNEIGH, 0, "10.6.0.78", NULL, 0) == 0);
    CHECK(change(RTM_DELNEIGH, 0, "10.6.0.78", NULL, 0) == ENOENT);
    CHECK(listed("10.6.0.78", NULL) == -1);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(change(RTM_NEWNEIGH, make, "10.6.0.78", made_up, NUD_PERMANENT) == EPERM);
    });
    index_of_a = 9999;
    CHECK(change(RTM_NEWNEIGH, make, "10.6.0.78", made_up, NUD_PERMANENT) == ENODEV);
    index_of_a = 0;
    CHECK(change(RTM_DELNEIGH, 0, "10.6.0.78", NULL, 0) == EINVAL);
    index_of_a = if_nametoindex("a");
}

static void by_ioctl(void)
{
    struct arpreq asked = about("10.6.0.79", "a");
    int sock = control();
    CHECK_ERR(ioctl(sock, SIOCGARP, &asked), ENXIO);
    CHECK_ERR(ioctl(sock, SIOCDARP, &asked), ENXIO);
    asked.arp_flags = ATF_PERM | ATF_COM;
    asked.arp_ha.sa_family = ARPHRD_ETHER;
    memcpy(asked.arp_ha.sa_data, made_up, 6);
    CHECK(ioctl(sock, SIOCSARP, &asked) == 0 && listed("10.6.0.79", NULL) == NUD_PERMANENT);
    asked = about("10.6.0.79", "a");
    CHECK(ioctl(sock, SIOCGARP, &asked) == 0 && asked.arp_flags == (ATF_PERM | ATF_COM));
    CHECK(asked.arp_ha.sa_family == ARPHRD_ETHER && !memcmp(asked.arp_ha.sa_data, made_up, 6));
    CHECK(has_line("10.6.0.79        0x1         0x6         02:00:00:00:00:55     *        a\n", "a"));
    asked = about("10.6.0.79", "");
    CHECK_ERR(ioctl(sock, SIOCGARP, &asked), ENODEV);
    CHECK(ioctl(sock, SIOCDARP, &asked) == 0);
    CHECK_ERR(ioctl(sock, SIOCDARP, &asked), ENXIO);
    asked.arp_pa.sa_family = AF_INET6;
    CHECK_ERR(ioctl(sock, SIOCGARP, &asked), EPFNOSUPPORT);
    asked = about("10.6.0.79", "nothing");
    CHECK_ERR(ioctl(sock, SIOCGARP, &asked), ENODEV);
    close(sock);
}

int main(void)
{
    unsigned char hardware[6];
    struct ifreq own;
    own_tun_network();
    int there = other_network(), here = open("/proc/self/ns/net", O_RDONLY);
    CHECK(make_pair("a", "b", there) == 0);
    address("a", "10.6.0.1");
    index_of_a = if_nametoindex("a");
    pid_t child = echo_in(there, "b", "10.6.0.2");
    CHECK(listed("10.6.0.2", NULL) == -1);
    talk("10.6.0.2");
    CHECK(status_of(child) == 0);
    int state = listed("10.6.0.2", hardware);
    CHECK(state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE));
    CHECK(has_line("10.6.0.2         0x1         0x2         ", "*        a\n"));
    CHECK(setns(there, CLONE_NEWNET) == 0 && get("b", SIOCGIFHWADDR, &own) == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0 && !memcmp(hardware, own.ifr_hwaddr.sa_data, 6));
    by_netlink();
    by_ioctl();
    /* who is set by hand to a wrong address is not reached */
    CHECK(change(RTM_NEWNEIGH, NLM_F_REPLACE, "10.6.0.2", made_up, NUD_PERMANENT) == 0);
    struct sockaddr_in to = place("10.6.0.2", 9);
    int sock = control();
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && send(sock, "x", 1, 0) == 1);
    CHECK(listed("10.6.0.2", hardware) == NUD_PERMANENT && !memcmp(hardware, made_up, 6));
    CHECK(change(RTM_DELNEIGH, 0, "10.6.0.2", NULL, 0) == 0);
    CHECK(send(sock, "x", 1, 0) == 1);
    CHECK_ERR(recv(sock, hardware, 6, 0), ECONNREFUSED); /* it was asked for anew */
    return 0;
}
