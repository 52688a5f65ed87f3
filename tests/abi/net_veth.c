/* Interfaces that netlink makes: veth between two networks, dummy. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

static void errors(void)
{
    CHECK(make_link("x", "nothing") == EOPNOTSUPP);
    CHECK(make_link("lo", "veth") == EEXIST);
    CHECK(make_link("a/b", "veth") == EINVAL);
    CHECK(make_pair("one", "lo", -1) == EEXIST);
    CHECK(make_pair("lo", "two", -1) == EEXIST && if_nametoindex("two") == 0);
    CHECK(make_pair("same", "same", -1) == EEXIST && if_nametoindex("same") == 0);
    CHECK(make_pair("one", "two", 99) == EBADF);
    CHECK(make_pair("one", "two", 2) == EINVAL);
    CHECK(delete_link("lo") == EOPNOTSUPP);
    CHECK(make_link("gone", "tun") == EOPNOTSUPP);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(make_link("x", "veth") == EPERM);
    });
}

static void dummies(void)
{
    struct sockaddr_in to = place("10.5.0.9", 9), own;
    socklen_t size = sizeof own;
    struct ifreq shown;
    int sock = control();
    int made = make_link(NULL, "dummy");
    if (made == EOPNOTSUPP) { /* a module that not every Linux has */
        close(sock);
        return;
    }
    CHECK(made == 0 && if_nametoindex("dummy0") > 1);
    CHECK(make_link(NULL, "dummy") == 0 && if_nametoindex("dummy1") > 2);
    CHECK(flags_of("dummy0") == (IFF_BROADCAST | IFF_NOARP));
    address("dummy0", "10.5.0.1");
    CHECK(flags_of("dummy0") == (IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_NOARP));
    CHECK(get("dummy0", SIOCGIFBRDADDR, &shown) == 0);
    CHECK(((struct sockaddr_in *)&shown.ifr_broadaddr)->sin_addr.s_addr == inet_addr("10.5.0.255"));
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && send(sock, "x", 1, 0) == 1);
    CHECK(getsockname(sock, (void *)&own, &size) == 0);
    CHECK(own.sin_addr.s_addr == inet_addr("10.5.0.1"));
    CHECK(delete_link("dummy0") == 0 && delete_link("dummy1") == 0);
    CHECK(if_nametoindex("dummy0") == 0);
    CHECK_ERR(send(sock, "x", 1, 0), ENETUNREACH);
    close(sock);
}

static void pairs(void)
{
    int here = open("/proc/self/ns/net", O_RDONLY), there = other_network();
    CHECK(here >= 0 && make_pair("a", "b", there) == 0);
    CHECK(if_nametoindex("a") > 1 && if_nametoindex("b") == 0);
    address("a", "10.6.0.1");
    CHECK(!carrier_of("a")); /* the other one is down */
    pid_t child = echo_in(there, "b", "10.6.0.2");
    CHECK(carrier_of("a"));
    talk("10.6.0.2");
    CHECK(status_of(child) == 0);
    CHECK(delete_link("a") == 0);
    CHECK(setns(there, CLONE_NEWNET) == 0 && if_nametoindex("b") == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0);
    /* made here, moved then: under its name, which is changed behind that */
    CHECK(make_pair(NULL, NULL, -1) == 0);
    CHECK(if_nametoindex("veth0") > 1 && if_nametoindex("veth1") > 1);
    CHECK(move_link("veth0", there, "lo") == EEXIST && if_nametoindex("veth0") == 0);
    CHECK(setns(there, CLONE_NEWNET) == 0 && move_link("veth0", here, NULL) == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0);
    CHECK(move_link("lo", there, "low") == EINVAL);
    address("veth1", "10.6.1.1");
    address("veth0", "10.6.1.2");
    CHECK(carrier_of("veth1"));
    CHECK(move_link("veth0", there, "moved") == 0 && if_nametoindex("veth0") == 0);
    CHECK(!carrier_of("veth1"));
    child = echo_in(there, "moved", "10.6.1.2");
    talk("10.6.1.2");
    CHECK(status_of(child) == 0);
    CHECK(setns(there, CLONE_NEWNET) == 0 && delete_link("moved") == 0);
    CHECK(setns(here, CLONE_NEWNET) == 0 && if_nametoindex("veth1") == 0);
    close(here);
    close(there);
}

/* A namespace that ends takes its end along, and the other one; both a little later. */
static void ending(void)
{
    int ready[2], done[2];
    char byte;
    CHECK(pipe(ready) == 0 && pipe(done) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWNET) == 0 && write(ready[1], "", 1) == 1);
        CHECK(read(done[0], &byte, 1) == 1);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    char path[64];
    sprintf(path, "/proc/%d/ns/net", child);
    int there = open(path, O_RDONLY);
    CHECK(there >= 0 && make_pair("stays", "ends", there) == 0);
    address("stays", "10.6.2.1");
    close(there);
    CHECK(write(done[1], "", 1) == 1 && status_of(child) == 0);
    while (if_nametoindex("stays")) poll(NULL, 0, 1);
}

int main(void)
{
    own_tun_network();
    errors();
    dummies();
    pairs();
    ending();
    return 0;
}
