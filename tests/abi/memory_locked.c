/* RLIMIT_MEMLOCK: who would lock more than it says, and how each call says so. */
#define _GNU_SOURCE
#include "abi.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

/* Locked pages, as /proc tells them. */
static unsigned long locked(void)
{
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    int length = read(fd, text, sizeof text - 1);
    CHECK(length > 0 && close(fd) == 0);
    text[length] = 0;
    return strtoul(strstr(text, "VmLck:") + 6, NULL, 10) / 4;
}

static char *map(unsigned long pages, int flags)
{
    return mmap(NULL, pages * PAGE, RW, ANONYMOUS | flags, -1, 0);
}

static void limit_to(unsigned long pages)
{
    struct rlimit limit = {pages * PAGE, 16 * PAGE};
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

static void resizing(void)
{
    char *area = mmap(NULL, 200 * PAGE, PROT_NONE, ANONYMOUS, -1, 0);
    char *a = mmap(area, 8 * PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(mlock(a, 8 * PAGE) == 0 && locked() == 8);
    CHECK(munmap(area + 8 * PAGE, 60 * PAGE) == 0);
    CHECK(mremap(a, 8 * PAGE, 16 * PAGE, 0) == a && locked() == 16);
    CHECK_ERR(mremap(a, 16 * PAGE, 17 * PAGE, 0), EAGAIN);
    CHECK_ERR(mremap(a, 16 * PAGE, 17 * PAGE, MREMAP_MAYMOVE), EAGAIN);
    CHECK(mremap(a, 16 * PAGE, 9 * PAGE, 0) == a && locked() == 9);
    char *to = area + 100 * PAGE;
    CHECK(mremap(a, 9 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    CHECK(locked() == 16);
    CHECK_ERR(mremap(to, 16 * PAGE, 17 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area), EAGAIN);
    CHECK(mremap(to, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area) == area);
    CHECK(locked() == 16);
    CHECK(munmap(area, 200 * PAGE) == 0 && locked() == 0);
}

static void mapping(void)
{
    CHECK_ERR(map(17, MAP_LOCKED), EAGAIN);
    char *a = map(16, MAP_LOCKED);
    CHECK(a != MAP_FAILED && locked() == 16);
    CHECK_ERR(map(1, MAP_LOCKED), EAGAIN);
    /* what would be replaced counts all the same */
    CHECK_ERR(mmap(a, PAGE, RW, ANONYMOUS | MAP_FIXED | MAP_LOCKED, -1, 0), EAGAIN);
    CHECK(mmap(a, 8 * PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0) == a && locked() == 8);
    CHECK(munmap(a, 16 * PAGE) == 0 && locked() == 0);
}

static void locking(void)
{
    char *a = map(32, 0);
    CHECK_ERR(mlock(a, 17 * PAGE), ENOMEM);
    CHECK_ERR(mlock2(a, 17 * PAGE, MLOCK_ONFAULT), ENOMEM);
    CHECK(mlock2(a, 16 * PAGE, MLOCK_ONFAULT) == 0 && locked() == 16);
    CHECK(mlock(a, 16 * PAGE) == 0 && locked() == 16);
    CHECK(mlock(a + 4 * PAGE, 12 * PAGE) == 0 && locked() == 16);
    CHECK_ERR(mlock(a + 8 * PAGE, 16 * PAGE), ENOMEM);
    CHECK(munlockall() == 0 && locked() == 0);
    CHECK_ERR(mlockall(MCL_CURRENT), ENOMEM);
    CHECK_ERR(mlockall(MCL_CURRENT | MCL_ONFAULT), ENOMEM);
    CHECK(munmap(a, 32 * PAGE) == 0);
}

static void future(void)
{
    char *end = sbrk(0);
    CHECK(mlockall(MCL_FUTURE) == 0 && locked() == 0);
    CHECK((char *)syscall(SYS_brk, end + 8 * PAGE) == end + 8 * PAGE && locked() == 8);
    CHECK((char *)syscall(SYS_brk, end + 32 * PAGE) == end + 8 * PAGE && locked() == 8);
    CHECK_ERR(map(9, 0), EAGAIN);
    CHECK((char *)syscall(SYS_brk, end) == end && locked() == 0);
    char *a = map(8, 0);
    CHECK(a != MAP_FAILED && locked() == 8);
    CHECK_ERR(mremap(a, 8 * PAGE, 17 * PAGE, MREMAP_MAYMOVE), EAGAIN);
    a = mremap(a, 8 * PAGE, 9 * PAGE, MREMAP_MAYMOVE);
    CHECK(a != MAP_FAILED && locked() == 9);
    int segment = shmget(IPC_PRIVATE, 8 * PAGE, 0600 | IPC_CREAT);
    CHECK_ERR((long)shmat(segment, NULL, 0), EAGAIN);
    CHECK(shmctl(segment, IPC_RMID, NULL) == 0);
    CHECK(munmap(a, 9 * PAGE) == 0);
    CHECK(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
    CHECK_ERR(map(17, 0), EAGAIN);
    CHECK((a = map(16, 0)) != MAP_FAILED && munmap(a, 16 * PAGE) == 0);
    CHECK(munlockall() == 0);
}

/* A stack that is locked grows as far as the limit allows, and not a page beyond. */
static void growing(void)
{
    int status;
    char *area = mmap(NULL, 400 * PAGE, PROT_NONE, ANONYMOUS, -1, 0), *a = area + 350 * PAGE;
    CHECK(mmap(a, 4 * PAGE, RW, ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0) == a);
    CHECK(munmap(area, 350 * PAGE) == 0);
    for (int pages = 11; pages <= 13; pages++) {
        int pid = fork();
        if (pid == 0) {
            CHECK(mlock(a, 4 * PAGE) == 0 && locked() == 4);
            *(volatile char *)(a - pages * PAGE) = 1;
            CHECK(locked() == pages + 4);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(pages <= 12 ? status == 0 : WIFSIGNALED(status) && WTERMSIG(status) == 11);
    }
    CHECK(munmap(a, 50 * PAGE) == 0);
}

static void nothing(void)
{
    char *a = map(2, 0);
    limit_to(0);
    CHECK_ERR(mlock(a, PAGE), EPERM);
    CHECK_ERR(mlock(a, 0), EPERM);
    CHECK_ERR(mlock2(a, PAGE, 0), EPERM);
    CHECK_ERR(mlockall(MCL_CURRENT), EPERM);
    CHECK_ERR(map(1, MAP_LOCKED), EPERM);
    CHECK(mremap(a, PAGE, 2 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
    int segment = shmget(IPC_PRIVATE, PAGE, 0600 | IPC_CREAT);
    CHECK_ERR(shmctl(segment, SHM_LOCK, NULL), EPERM);
    CHECK(shmctl(segment, IPC_RMID, NULL) == 0);
}

int main(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    locked(); /* what stdio and the reading need is there before anything is locked */
    CHECK(syscall(SYS_capget, &head, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    data[0].permitted &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &head, data) == 0);
    limit_to(16);
    resizing();
    mapping();
    locking();
    future();
    growing();
    nothing();
    return 0;
}
