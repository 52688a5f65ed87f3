/* capabilities(7): capget(2), capset(2), what changes of ids and execve do to the sets. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)
#define BIT(cap) (1ull << (cap))

static unsigned long long effective, permitted, inheritable;

static void get(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, data) == 0);
    effective = data[0].effective | (unsigned long long)data[1].effective << 32;
    permitted = data[0].permitted | (unsigned long long)data[1].permitted << 32;
    inheritable = data[0].inheritable | (unsigned long long)data[1].inheritable << 32;
}

static int set(unsigned long long e, unsigned long long p, unsigned long long i)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{e, p, i}, {e >> 32, p >> 32, i >> 32}};
    return syscall(SYS_capset, &head, data);
}

static void in_child(void (*what)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        what();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void versions(void)
{
    struct __user_cap_header_struct head = {0x12345678, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, NULL) == 0);
    CHECK(head.version == _LINUX_CAPABILITY_VERSION_3);
    head.version = 0;
    CHECK_ERR(syscall(SYS_capget, &head, data), EINVAL);
    CHECK(head.version == _LINUX_CAPABILITY_VERSION_3);
    head.version = 0;
    CHECK_ERR(syscall(SYS_capset, &head, data), EINVAL);
    head.version = _LINUX_CAPABILITY_VERSION_1;
    memset(data, 0xff, sizeof data);
    CHECK(syscall(SYS_capget, &head, data) == 0);
    CHECK(data[0].inheritable == 0 && data[1].inheritable == 0xffffffff);
    CHECK_ERR(syscall(SYS_capget, BAD, data), EFAULT);
    CHECK_ERR(syscall(SYS_capget, &head, BAD), EFAULT);
    head.pid = -1;
    CHECK_ERR(syscall(SYS_capget, &head, data), EINVAL);
    head.pid = 999999;
    CHECK_ERR(syscall(SYS_capget, &head, data), ESRCH);
    head.pid = getppid();
    head.version = _LINUX_CAPABILITY_VERSION_3;
    CHECK_ERR(syscall(SYS_capset, &head, data), EPERM);
    head.pid = getpid();
    CHECK(syscall(SYS_capget, &head, data) == 0);
    CHECK(syscall(SYS_capset, &head, data) == 0);
}

static void sets_only_shrink(void)
{
    get();
    unsigned long long all = permitted;
    CHECK(all & BIT(CAP_CHOWN) && all & BIT(CAP_SETPCAP));
    CHECK(set(0, all, 0) == 0);
    get();
    CHECK(effective == 0 && permitted == all);
    CHECK_ERR(chown(".", 5, 5), EPERM);
    CHECK(set(all, all, 0) == 0);
    CHECK(set(BIT(CAP_CHOWN), BIT(CAP_CHOWN) | BIT(CAP_KILL), 0) == 0);
    CHECK_ERR(set(0, all, 0), EPERM);
    CHECK_ERR(set(BIT(CAP_SETUID), BIT(CAP_CHOWN), 0), EPERM);
    CHECK_ERR(set(0, 0, BIT(CAP_SETUID)), EPERM);
    CHECK(set(0, BIT(CAP_CHOWN), BIT(CAP_CHOWN)) == 0);
    get();
    CHECK(inheritable == BIT(CAP_CHOWN));
}

static void leaving_root_drops(void)
{
    CHECK(setresuid(-1, 1000, -1) == 0);
    get();
    CHECK(effective == 0 && permitted != 0);
    CHECK(setresuid(-1, 0, -1) == 0);
    get();
    CHECK(effective == permitted);
    CHECK(setresuid(1000, 1000, 1000) == 0);
    get();
    CHECK(effective == 0 && permitted == 0);
}

static void keepcaps_keeps(void)
{
    get();
    unsigned long long all = permitted;
    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && prctl(PR_GET_KEEPCAPS) == 1);
    CHECK(prctl(PR_GET_SECUREBITS) == SECBIT_KEEP_CAPS);
    CHECK_ERR(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
    CHECK(setresuid(1000, 1000, 1000) == 0);
    get();
    CHECK(effective == 0 && permitted == all);
    CHECK(set(BIT(CAP_KILL), all, 0) == 0);
}

static void securebits(void)
{
    CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED) == 0);
    get();
    unsigned long long all = permitted;
    CHECK(setresuid(1000, 1000, 1000) == 0);
    get();
    CHECK(effective == all && permitted == all);
    CHECK_ERR(prctl(PR_SET_SECUREBITS, 0), EPERM);
    CHECK_ERR(prctl(PR_SET_SECUREBITS, 0x100), EPERM);
}

static void bounding_set(void)
{
    CHECK(prctl(PR_CAPBSET_READ, CAP_CHOWN) == 1);
    CHECK(prctl(PR_CAPBSET_DROP, CAP_CHOWN) == 0);
    CHECK(prctl(PR_CAPBSET_READ, CAP_CHOWN) == 0);
    CHECK_ERR(prctl(PR_CAPBSET_READ, CAP_LAST_CAP + 1), EINVAL);
    CHECK_ERR(prctl(PR_CAPBSET_DROP, CAP_LAST_CAP + 1), EINVAL);
    get();
    CHECK(permitted & BIT(CAP_CHOWN));
    CHECK(set(0, permitted, 0) == 0);
    CHECK_ERR(prctl(PR_CAPBSET_DROP, CAP_KILL), EPERM);
}

static void ambient_set(void)
{
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 0);
    CHECK_ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM);
    get();
    CHECK(set(effective, permitted, BIT(CAP_KILL)) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 1);
    CHECK_ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 1, 0), EINVAL);
    CHECK_ERR(prctl(PR_CAP_AMBIENT, 9, CAP_KILL, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_LAST_CAP + 1, 0, 0), EINVAL);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_KILL, 0, 0) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
    CHECK_ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0), EINVAL);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 0);
}

static void ambient_survives_execve(void)
{
    get();
    CHECK(set(effective, permitted, BIT(CAP_KILL)) == 0);
    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && setresuid(1000, 1000, 1000) == 0);
    CHECK(set(BIT(CAP_KILL), BIT(CAP_KILL), BIT(CAP_KILL)) == 0);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
    execl("/proc/self/exe", "caps", "kill", NULL);
    CHECK(0);
}

static void lost_at_execve(void)
{
    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && setresuid(1000, 1000, 1000) == 0);
    execl("/proc/self/exe", "caps", "none", NULL);
    CHECK(0);
}

static void root_gets_all_at_execve(void)
{
    get();
    CHECK(set(0, permitted, 0) == 0);
    execl("/proc/self/exe", "caps", "all", NULL);
    CHECK(0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        get();
        unsigned long long want = argv[1][0] == 'k' ? BIT(CAP_KILL) : 0;
        if (argv[1][0] == 'a')
            CHECK(effective == permitted && permitted & BIT(CAP_CHOWN));
        else
            CHECK(effective == want && permitted == want);
        CHECK(prctl(PR_GET_KEEPCAPS) == 0);
        return 0;
    }
    in_child(versions);
    in_child(sets_only_shrink);
    in_child(leaving_root_drops);
    in_child(keepcaps_keeps);
    in_child(securebits);
    in_child(bounding_set);
    in_child(ambient_set);
    in_child(ambient_survives_execve);
    in_child(lost_at_execve);
    in_child(root_gets_all_at_execve);
    return 0;
}
