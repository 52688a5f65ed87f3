/* net.ipv4.conf, net.ipv6.conf: what each interface has, whose network namespace it is. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_links.h"
#include "ns.h"
#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static char text[4096];

static int set(const char *name, const char *value)
{
    char path[200];
    snprintf(path, sizeof path, "proc/sys/net/%s", name);
    return write_text(path, value);
}

static const char *value(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "proc/sys/net/%s", name);
    read_text(path, text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    return text;
}

static int has_address(const char *interface)
{
    read_text("proc/net/if_inet6", text, sizeof text);
    return strstr(text, interface) != NULL;
}

/* Each interface has a directory, which is as `default` is; it is there for who is in its network
   namespace, and goes with it. */
int main(void)
{
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mkdir("proc", 0755) == 0 && mount("proc", "proc", "proc", 0, NULL) == 0);
    struct stat at;
    DIR *listing;
    int seen = 0;
    CHECK(set("ipv4/conf/default/rp_filter", "1") == 1);
    CHECK(make_pair("v0", "v1", -1) == 0 && !strcmp(value("ipv4/conf/v0/rp_filter"), "1"));
    CHECK(set("ipv4/conf/v0/rp_filter", "2") == 1 && !strcmp(value("ipv4/conf/v0/rp_filter"), "2"));
    CHECK(set("ipv4/conf/v0/rp_filter", "x") == -EINVAL);
    CHECK(!strcmp(value("ipv4/conf/v1/rp_filter"), "1") && !strcmp(value("ipv6/conf/v0/mtu"), "1500"));
    CHECK(set("ipv6/conf/v0/mtu", "1501") == -EINVAL && set("ipv6/conf/v0/mtu", "1400") == 4);
    CHECK(!strcmp(value("ipv6/conf/v0/mtu"), "1400"));
    CHECK((listing = opendir("proc/sys/net/ipv6/conf")) != NULL);
    for (struct dirent *each; (each = readdir(listing)) != NULL;)
        seen += !strcmp(each->d_name, "v0") || !strcmp(each->d_name, "lo");
    CHECK(seen == 2 && closedir(listing) == 0);
    CHECK_ERR(stat("proc/sys/net/ipv4/conf/v2", &at), ENOENT);
    CHECK_ERR(mkdir("proc/sys/net/ipv4/conf/v2", 0755), ENOENT);
    address("v0", "10.4.0.1");
    address("v1", "10.4.0.2");
    while (!has_address("v0") || !has_address("v1"))
        sched_yield();  /* Linux says a while later that the other end is up */
    CHECK(set("ipv6/conf/v0/disable_ipv6", "1") == 1 && !has_address("v0") && has_address("v1"));
    CHECK(set("ipv6/conf/v0/disable_ipv6", "0") == 1 && has_address("v0"));
    CHECK(set("ipv6/conf/all/disable_ipv6", "1") == 1 && !has_address("v0"));
    CHECK(!strcmp(value("ipv6/conf/v1/disable_ipv6"), "1"));
    CHECK(set("ipv6/conf/all/disable_ipv6", "0") == 1 && has_address("v1"));
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(unshare(CLONE_NEWNET) == 0);
        CHECK_ERR(stat("proc/sys/net/ipv4/conf/v0", &at), ENOENT);
        CHECK(stat("proc/sys/net/ipv4/conf/lo", &at) == 0);
        _exit(0);
    }
    CHECK(status_of(pid) == 0);
    CHECK(delete_link("v0") == 0);
    CHECK_ERR(stat("proc/sys/net/ipv4/conf/v0", &at), ENOENT);
    CHECK(make_pair("v0", "v1", -1) == 0 && !strcmp(value("ipv4/conf/v0/rp_filter"), "1"));
    CHECK(delete_link("v0") == 0 && set("ipv4/conf/default/rp_filter", "0") == 1);
    return 0;
}
