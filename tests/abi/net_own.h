/* A network of our own, so that nobody else's packets, ports and values are seen. */
#ifndef NET_OWN_H
#define NET_OWN_H

#include "abi.h"
#include "net.h"

#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* With its values below ./proc, and the loopback up. */
static inline void own_network(void)
{
    struct ifreq lo = {"lo"};
    if (parted())
        return; /* it is there */
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mkdir("proc", 0755) == 0 && mount("proc", "proc", "proc", 0, NULL) == 0);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    lo.ifr_flags = IFF_UP;
    CHECK(ioctl(s, SIOCSIFFLAGS, &lo) == 0);
    close(s);
}

#endif
