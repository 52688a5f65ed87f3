/* Whose sockets /proc/net and socket diagnostics say they are: as the user namespace of who opened
 * the file, or asks, has it. Needs root. */
#define _GNU_SOURCE
#include "net_own.h"
#include "ns.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>

static int udp_port, tcp_port;
static unsigned unix_inode;

/* The eighth word of the line with this port. */
static int shown(int file, int wanted)
{
    static char text[40000];
    char mark[10], *line;
    int uid = -1, got = pread(file, text, sizeof text - 1, 0);
    CHECK(got > 0);
    text[got] = 0;
    sprintf(mark, ":%04X ", wanted);
    CHECK((line = strstr(text, mark)) != NULL);
    CHECK(sscanf(line, "%*s %*s %*s %*s %*s %*s %d", &uid) == 1);
    return uid;
}

static int of_file(const char *name, int wanted)
{
    int file = open(name, O_RDONLY), uid = shown(file, wanted);
    close(file);
    return uid;
}

/* What NETLINK_SOCK_DIAG says of the listener, and of the Unix socket. */
static unsigned asked(int family)
{
    static char answer[40000];
    struct {
        struct nlmsghdr head;
        union {
            struct inet_diag_req_v2 inet;
            struct unix_diag_req local;
        };
    } request = {{sizeof request, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST}};
    if (family == AF_INET) {
        request.inet = (struct inet_diag_req_v2){AF_INET, IPPROTO_TCP, .idiag_states = -1};
        request.head.nlmsg_flags |= NLM_F_DUMP;
    } else {
        request.local = (struct unix_diag_req){AF_UNIX, .udiag_states = -1, .udiag_ino = unix_inode,
                                               .udiag_show = 64, .udiag_cookie = {-1, -1}};
        request.head.nlmsg_len = NLMSG_LENGTH(sizeof request.local);
    }
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) == (int)request.head.nlmsg_len);
    int got = recv(sock, answer, sizeof answer, 0);
    close(sock);
    struct nlmsghdr *each = (void *)answer;
    for (; NLMSG_OK(each, (unsigned)got); each = NLMSG_NEXT(each, got)) {
        CHECK(each->nlmsg_type == SOCK_DIAG_BY_FAMILY);
        struct inet_diag_msg *inet = NLMSG_DATA(each);
        if (family == AF_INET && ntohs(inet->id.idiag_sport) == tcp_port) return inet->idiag_uid;
        if (family == AF_UNIX) {
            struct nlattr *found = (void *)((char *)NLMSG_DATA(each) + sizeof(struct unix_diag_msg));
            while (found->nla_type != UNIX_DIAG_UID)
                found = (void *)((char *)found + NLA_ALIGN(found->nla_len));
            return *(unsigned *)(found + 1);
        }
    }
    CHECK(0);
    return 0;
}

static void check(int uid)
{
    CHECK(of_file("proc/self/net/udp", udp_port) == uid);
    CHECK(of_file("proc/self/net/tcp", tcp_port) == uid);
    CHECK(asked(AF_INET) == (unsigned)uid);
    CHECK(asked(AF_UNIX) == (unsigned)uid);
}

/* In a user namespace with one user, or with none. */
static void inside(const char *map, int file, int uid)
{
    int ready[2], go[2];
    char byte, path[64];
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUSER) == 0 && write(ready[1], "x", 1) == 1);
        CHECK(read(go[0], &byte, 1) == 1);
        check(uid);
        CHECK(shown(file, udp_port) == 1000);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "proc/%d/uid_map", child);
    CHECK(!*map || write_text(path, map) > 0);
    CHECK(write(go[1], "x", 1) == 1 && status_of(child) == 0);
    close(ready[0]), close(ready[1]), close(go[0]), close(go[1]);
}

int main(void)
{
    struct stat about;
    own_network();
    CHECK(seteuid(1000) == 0);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = listener(1);
    CHECK(bind_to(udp, 0) == 0);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(seteuid(0) == 0);
    udp_port = port(udp), tcp_port = port(tcp);
    CHECK(fstat(local, &about) == 0);
    unix_inode = about.st_ino;
    int file = open("proc/self/net/udp", O_RDONLY);
    CHECK(shown(file, udp_port) == 1000);
    check(1000);
    inside("7 1000 1", file, 7);
    inside("0 0 1", file, 65534);
    inside("", file, 65534);
    return 0;
}
