/* process_vm_readv(2), kcmp(2), get_mempolicy(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char shared[10000] = "nothing yet";

static void copies_between_processes(void)
{
    int go[2], back[2];
    char byte;
    CHECK(pipe(go) == 0 && pipe(back) == 0);
    pid_t child = fork();
    if (child == 0) {
        memset(shared, 'c', sizeof shared);
        write(back[1], "x", 1);
        read(go[0], &byte, 1);
        _exit(memcmp(shared + 4090, "from the parent", 15) == 0 ? 0 : 1);
    }
    CHECK(read(back[0], &byte, 1) == 1);
    char a[3], b[9000];
    struct iovec local[] = {{a, 3}, {b, 9000}}, remote[] = {{shared, 5000}, {shared + 5000, 100}};
    CHECK(process_vm_readv(child, local, 2, remote, 2, 0) == 5100);
    CHECK(a[0] == 'c' && b[0] == 'c' && b[5096] == 'c' && shared[0] == 'n');
    strcpy(b, "from the parent");
    struct iovec out = {b, 15}, in = {shared + 4090, 15};
    CHECK(process_vm_writev(child, &out, 1, &in, 1, 0) == 15);

    struct iovec bad = {(void *)8, 5};
    CHECK_ERR(process_vm_readv(child, local, 1, &bad, 1, 0), EFAULT);
    CHECK_ERR(process_vm_readv(child, local, 2, remote, 2, 1), EINVAL);
    CHECK_ERR(process_vm_readv(child, local, 1025, remote, 2, 0), EINVAL);
    CHECK_ERR(process_vm_readv(999999, local, 2, remote, 2, 0), ESRCH);
    CHECK(process_vm_readv(child, local, 0, remote, 2, 0) == 0);
    int status;
    pid_t stranger = fork();
    if (stranger == 0) {
        CHECK(setgid(1234) == 0 && setuid(1234) == 0);
        CHECK_ERR(process_vm_readv(child, local, 2, remote, 2, 0), EPERM);
        _exit(0);
    }
    CHECK(waitpid(stranger, &status, 0) == stranger && status == 0);
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void comparing(void)
{
    int fd = dup(0), other = open("/dev/null", O_RDONLY), me = getpid();
    CHECK(fd >= 0 && other >= 0);
    if (syscall(SYS_kcmp, me, me, 0, 0, fd) < 0 && errno == ENOSYS) /* CONFIG_KCMP is off */
        return;
    CHECK(syscall(SYS_kcmp, me, me, 0, 0, fd) == 0);
    long order = syscall(SYS_kcmp, me, me, 0, 0, other);
    CHECK(order == 1 || order == 2);
    CHECK(syscall(SYS_kcmp, me, me, 0, other, 0) == 3 - order);
    CHECK(syscall(SYS_kcmp, me, me, 1, 0, 0) == 0);
    for (int kind = 2; kind <= 6; kind++)
        CHECK(syscall(SYS_kcmp, me, me, kind, 0, 0) == 0);
    int epoll = epoll_create1(0), ends[2];
    struct epoll_event event = {.events = EPOLLIN};
    unsigned slot[3] = {epoll, 0, 0};
    CHECK(pipe(ends) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    slot[1] = ends[0];
    CHECK(syscall(SYS_kcmp, me, me, 7, ends[0], slot) == 0);
    CHECK(syscall(SYS_kcmp, me, me, 7, ends[1], slot) > 0);
    CHECK_ERR(syscall(SYS_kcmp, me, me, 7, 999, slot), EBADF);
    CHECK_ERR(syscall(SYS_kcmp, me, me, 7, ends[0], 8), EFAULT);
    slot[2] = 1;
    CHECK_ERR(syscall(SYS_kcmp, me, me, 7, ends[0], slot), ENOENT);
    slot[0] = ends[0];
    CHECK_ERR(syscall(SYS_kcmp, me, me, 7, ends[0], slot), EINVAL);
    CHECK_ERR(syscall(SYS_kcmp, me, me, 0, 0, 999), EBADF);
    CHECK_ERR(syscall(SYS_kcmp, me, me, 99, 0, 0), EINVAL);
    CHECK_ERR(syscall(SYS_kcmp, me, 999999, 1, 0, 0), ESRCH);
    close(fd);
    close(other);
}

static void policies(void)
{
    int mode = 9;
    unsigned long mask[16] = {0}, one = 1;
    if (syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) < 0 && errno == ENOSYS)
        return; /* CONFIG_NUMA is off */
    CHECK(mode == 0);
    CHECK(syscall(SYS_get_mempolicy, NULL, mask, 1024, NULL, 4) == 0 && mask[0] & 1);
    CHECK_ERR(syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 8), EINVAL);
    CHECK_ERR(syscall(SYS_get_mempolicy, &mode, NULL, 0, 8, 2), EFAULT);
    CHECK(syscall(SYS_set_mempolicy, 0, NULL, 0) == 0);
    CHECK(syscall(SYS_set_mempolicy, 2, &one, 64) == 0);
    CHECK(syscall(SYS_set_mempolicy, 0, NULL, 0) == 0);
    CHECK_ERR(syscall(SYS_set_mempolicy, 99, &one, 64), EINVAL);
    CHECK_ERR(syscall(SYS_set_mempolicy, 2, NULL, 0), EINVAL);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(syscall(SYS_mbind, page, 4096, 2, &one, 64, 0) == 0);
    CHECK_ERR(syscall(SYS_mbind, (char *)page + 1, 4096, 2, &one, 64, 0), EINVAL);
    CHECK(munmap(page, 4096) == 0);
    CHECK_ERR(syscall(SYS_mbind, page, 4096, 2, &one, 64, 0), EFAULT);
    char *pages = mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 1; i >= 0; i--)
        CHECK(syscall(SYS_mbind, pages + i * 4096, 4096, 2, &one, 64, 0) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(syscall(SYS_get_mempolicy, &mode, NULL, 0, pages + i * 4096, 2) == 0 &&
              mode == (i < 2 ? 2 : 0));
}

int main(void)
{
    copies_between_processes();
    comparing();
    policies();
    return 0;
}
