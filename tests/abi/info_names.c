/* uname(2), sethostname(2), sysinfo(2), getrandom(2), syslog(2), personality(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <sys/klog.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void names(void)
{
    struct utsname name;
    CHECK(uname(&name) == 0);
    CHECK(strcmp(name.sysname, "Linux") == 0 && strcmp(name.machine, "x86_64") == 0);
    CHECK(name.release[0] >= '3' && strchr(name.release, '.') != NULL);
    CHECK_ERR(syscall(SYS_uname, BAD), EFAULT);
}

static void host_name_can_be_set(void)
{
    struct utsname name, old;
    char longest[65];
    /* a UTS namespace of our own, so that nothing outside changes; a sandbox is one */
    CHECK(uname(&old) == 0);
    CHECK(unshare(CLONE_NEWUTS) == 0 || getpid() == 1);
    CHECK(old.nodename[0] != 0 && old.domainname[0] != 0); /* (none) where nobody has set one */
    CHECK(setdomainname("", 0) == 0 && uname(&name) == 0 && name.domainname[0] == 0);
    CHECK(sethostname("abi-test", 8) == 0);
    CHECK(uname(&name) == 0 && strcmp(name.nodename, "abi-test") == 0);
    CHECK(setdomainname("abi.example", 3) == 0);
    CHECK(uname(&name) == 0 && strcmp(name.domainname, "abi") == 0);
    memset(longest, 'x', sizeof longest);
    CHECK(sethostname(longest, 64) == 0);
    CHECK(uname(&name) == 0 && strlen(name.nodename) == 64);
    CHECK_ERR(sethostname(longest, 65), EINVAL);
    CHECK_ERR(syscall(SYS_sethostname, "x", -1), EINVAL);
    CHECK_ERR(syscall(SYS_sethostname, BAD, 65), EINVAL);
    CHECK_ERR(syscall(SYS_sethostname, BAD, 5), EFAULT);
    CHECK(sethostname("", 0) == 0);
    CHECK(uname(&name) == 0 && name.nodename[0] == 0);
}

static void memory_and_uptime(void)
{
    struct sysinfo info;
    CHECK(sysinfo(&info) == 0);
    CHECK(info.totalram > 0 && info.freeram <= info.totalram && info.mem_unit > 0);
    CHECK(info.uptime > 0 && info.procs > 0);
    CHECK_ERR(syscall(SYS_sysinfo, BAD), EFAULT);
    CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
    CHECK(sysconf(_SC_PHYS_PAGES) > 0);
}

static void random_bytes(void)
{
    static unsigned char a[300000], b[sizeof a];
    CHECK(getrandom(a, 16, 0) == 16 && getrandom(b, 16, GRND_NONBLOCK) == 16);
    CHECK(memcmp(a, b, 16) != 0);
    CHECK(getrandom(a, 16, GRND_RANDOM) == 16 && getrandom(a, 16, GRND_INSECURE) == 16);
    CHECK(getrandom(a, 0, 0) == 0);
    CHECK(getrandom(a, sizeof a, 0) == sizeof a);
    CHECK(a[sizeof a - 1] | a[sizeof a - 2] | a[sizeof a - 3] | a[sizeof a - 4]);
    CHECK_ERR(getrandom(a, 1, 8), EINVAL);
    CHECK_ERR(getrandom(a, 1, GRND_RANDOM | GRND_INSECURE), EINVAL);
    CHECK_ERR(getrandom(BAD, 1, 0), EFAULT);
    CHECK_ERR(getrandom(BAD, 1, 8), EINVAL);
}

static void kernel_log(void)
{
    char text[64];
    CHECK(klogctl(10, NULL, 0) > 0);
    CHECK(klogctl(3, text, sizeof text) >= 0);
    CHECK(klogctl(3, text, 0) == 0);
    CHECK_ERR(klogctl(3, NULL, 1), EINVAL);
    CHECK_ERR(klogctl(3, text, -1), EINVAL);
    CHECK_ERR(klogctl(11, NULL, 0), EINVAL);
    CHECK_ERR(klogctl(8, NULL, 9), EINVAL);
}

static void personalities(void)
{
    struct utsname name;
    int old = personality(0xffffffff);
    CHECK(old == 0);
    CHECK(personality(PER_LINUX32) == old);
    CHECK(personality(0xffffffff) == PER_LINUX32);
    CHECK(uname(&name) == 0 && strcmp(name.machine, "i686") == 0);
    CHECK(personality(UNAME26) == PER_LINUX32);
    CHECK(uname(&name) == 0 && strncmp(name.release, "2.6.", 4) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(personality(0xffffffff) == UNAME26 ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(personality(STICKY_TIMEOUTS) == UNAME26);
    struct timeval timeout = {0, 1000};
    CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, &timeout) == 0 && timeout.tv_usec == 1000);
    CHECK(personality(0) == STICKY_TIMEOUTS);
    CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, &timeout) == 0 && timeout.tv_usec == 0);
}

static void without_rights(void)
{
    if (fork() == 0) {
        char text[8];
        CHECK(setuid(1234) == 0);
        CHECK_ERR(sethostname("x", 1), EPERM);
        CHECK_ERR(syscall(SYS_sethostname, BAD, -1), EPERM);
        CHECK_ERR(setdomainname("x", 1), EPERM);
        CHECK_ERR(klogctl(2, text, 1), EPERM);
        CHECK_ERR(klogctl(5, NULL, 0), EPERM);
        _exit(0);
    }
    int status;
    CHECK(wait(&status) > 0 && status == 0);
}

int main(void)
{
    names();
    memory_and_uptime();
    random_bytes();
    kernel_log();
    personalities();
    host_name_can_be_set();
    without_rights();
    return 0;
}
