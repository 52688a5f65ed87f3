/* process_vm_readv(2), process_vm_writev(2): much at once, and where they stop. */
#define _GNU_SOURCE
#include "abi.h"

#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define MUCH (40ul << 20)
#define RW (PROT_READ | PROT_WRITE)

static char *map(unsigned long size)
{
    char *result = mmap(NULL, size, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(result != MAP_FAILED);
    return result;
}

/* A page that cannot be accessed behind `pages` that can. */
static char *ends_after(unsigned long pages)
{
    char *a = map((pages + 1) * PAGE);
    CHECK(mprotect(a + pages * PAGE, PAGE, PROT_NONE) == 0);
    return a;
}

static ssize_t from(int pid, void *mine, size_t size, void *theirs, size_t their_size)
{
    struct iovec local = {mine, size}, remote = {theirs, their_size};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static ssize_t to(int pid, void *mine, size_t size, void *theirs, size_t their_size)
{
    struct iovec local = {mine, size}, remote = {theirs, their_size};
    return process_vm_writev(pid, &local, 1, &remote, 1, 0);
}

/* More than anybody copies in one go, whole, in one piece and in many. */
static void whole(int pid, char *theirs, char *mine)
{
    static struct iovec local[512], remote[512];
    CHECK(from(pid, mine, MUCH, theirs, MUCH) == MUCH);
    for (unsigned long at = 0; at < MUCH; at += PAGE)
        CHECK(*(unsigned long *)(mine + at) == at + 1);
    for (unsigned long at = 0; at < MUCH; at += PAGE)
        *(unsigned long *)(mine + at) = ~at;
    CHECK(to(pid, mine, MUCH, theirs, MUCH + PAGE) == MUCH);
    memset(mine, 0, MUCH);
    for (int i = 0; i < 512; i++) { /* not at the same bounds */
        local[i].iov_base = mine + i * (MUCH / 512);
        local[i].iov_len = MUCH / 512;
        remote[i].iov_base = theirs + i * (MUCH / 512) + (i ? 100 : 0);
        remote[i].iov_len = MUCH / 512 + (i == 0 ? 100 : i == 511 ? -100 : 0);
    }
    CHECK(process_vm_readv(pid, local, 512, remote, 512, 0) == MUCH);
    for (unsigned long at = 0; at < MUCH; at += PAGE)
        CHECK(*(unsigned long *)(mine + at) == ~at);
}

/* What is beyond the first byte that cannot be accessed is not touched; what is before, is. */
static void faults(int pid, char *edge, char *mine)
{
    char *short_of = ends_after(3);
    CHECK(from(pid, mine, 8 * PAGE, edge, 8 * PAGE) == 5 * PAGE);
    CHECK(from(pid, mine + 7, 8 * PAGE, edge + 100, 8 * PAGE) == 5 * PAGE - 100);
    CHECK_ERR(from(pid, mine, PAGE, edge + 5 * PAGE, PAGE), EFAULT);
    CHECK(to(pid, mine, 8 * PAGE, edge + 1, 8 * PAGE) == 5 * PAGE - 1);
    CHECK_ERR(to(pid, mine, PAGE, edge + 5 * PAGE, PAGE), EFAULT);
    CHECK(from(pid, short_of + 5, 8 * PAGE, edge, 8 * PAGE) == 3 * PAGE - 5);
    CHECK(to(pid, short_of + 5, 8 * PAGE, edge + 77, 8 * PAGE) == 3 * PAGE - 5);
    CHECK_ERR(from(pid, short_of + 3 * PAGE, 8, edge, 8), EFAULT);
    CHECK_ERR(to(pid, short_of + 3 * PAGE, 8, edge, 8), EFAULT);
    CHECK_ERR(from(pid, mine, 8, (void *)-16, 8), EFAULT);
    CHECK_ERR(to(pid, mine, 8, (void *)-16, 8), EFAULT);
    CHECK_ERR(from(pid, (void *)-16, 8, edge, 8), EFAULT);
    struct iovec local[3] = {{mine, 10}, {short_of + 3 * PAGE, 5}, {mine, 5}};
    struct iovec remote[3] = {{edge, 12}, {edge + 5 * PAGE - 1, 2}, {edge, 5}};
    CHECK(process_vm_readv(pid, local, 3, remote, 3, 0) == 10);
    local[1].iov_base = mine + 10;
    CHECK(process_vm_readv(pid, local, 3, remote, 3, 0) == 13);
    CHECK(process_vm_readv(pid, local, 0, remote, 3, 0) == 0);
    CHECK(process_vm_readv(pid, local, 3, remote, 0, 0) == 0);
    local[0].iov_len = local[1].iov_len = local[2].iov_len = 0;
    CHECK(process_vm_readv(pid, local, 3, remote, 3, 0) == 0);
    CHECK_ERR(process_vm_readv(pid, local, IOV_MAX + 1, remote, 3, 0), EINVAL);
    remote[1].iov_len = -1;
    local[0].iov_len = 10;
    CHECK_ERR(process_vm_readv(pid, local, 3, remote, 3, 0), EINVAL);
    CHECK_ERR(process_vm_readv(pid, local, 3, remote, 3, 1), EINVAL);
    munmap(short_of, 4 * PAGE);
}

/* A copy of its own memory over itself, as far as there is some. */
static void oneself(char *mine)
{
    unsigned long size = 24ul << 20;
    memset(mine, 'm', size);
    CHECK(from(getpid(), mine + PAGE, size, mine, size) == size);
    CHECK(mine[size] == 'm');
}

int main(void)
{
    char *theirs = map(MUCH + PAGE), *mine = map(MUCH), *edge = ends_after(5), byte;
    int ready[2];
    CHECK(pipe(ready) == 0);
    int pid = fork();
    if (pid == 0) {
        for (unsigned long at = 0; at < MUCH; at += PAGE)
            *(unsigned long *)(theirs + at) = at + 1;
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    whole(pid, theirs, mine);
    faults(pid, edge, mine);
    oneself(mine);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    CHECK_ERR(from(pid, mine, 8, edge, 8), ESRCH);
    return 0;
}
