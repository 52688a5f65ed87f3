/* mprotect, mremap, madvise, msync, mincore, mlock; faults and their codes; stacks; fork. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

#define PAGE 4096
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf jump;
static siginfo_t info;

static void caught(int signo, siginfo_t *details, void *context)
{
    (void)signo, (void)context;
    info = *details;
    siglongjmp(jump, 1);
}

#define TRAP(statement)          \
    do {                         \
        info.si_signo = 0;       \
        if (!sigsetjmp(jump, 1)) \
            statement;           \
    } while (0)

#define READ(p) ((void)*(volatile char *)(p))
#define WRITE(p) (*(volatile char *)(p) = 1)

static char *map(size_t pages, int prot)
{
    char *at = mmap(0, pages * PAGE, prot, ANON, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void protect(void)
{
    char *a = map(6, RW);
    memset(a, 'a', 6 * PAGE);
    CHECK(munmap(a + 4 * PAGE, PAGE) == 0);
    CHECK_ERR(mprotect(a + 1, PAGE, PROT_READ), EINVAL);
    CHECK_ERR(mprotect(a, PAGE, 0x100), EINVAL);
    CHECK_ERR(mprotect(a, PAGE, PROT_READ | PROT_GROWSDOWN), EINVAL);
    CHECK_ERR(mprotect(a, -1ul, PROT_READ), ENOMEM);
    CHECK(mprotect(a, 0, PROT_READ) == 0);
    CHECK_ERR(mprotect(a + 3 * PAGE, 3 * PAGE, PROT_READ), ENOMEM);
    TRAP(WRITE(a + 3 * PAGE)); /* what lay before the hole was changed */
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_ACCERR);
    CHECK(info.si_addr == a + 3 * PAGE);
    WRITE(a + 5 * PAGE);
    TRAP(READ(a + 4 * PAGE + 7));
    CHECK(info.si_code == SEGV_MAPERR && info.si_addr == a + 4 * PAGE + 7);
    CHECK(mprotect(a, PAGE, PROT_NONE) == 0);
    TRAP(READ(a));
    CHECK(info.si_code == SEGV_ACCERR);
    CHECK(mprotect(a, PAGE, PROT_READ) == 0 && a[0] == 'a');
    unsigned char *code = (unsigned char *)map(1, RW);
    code[0] = 0xc3;
    TRAP(((void (*)(void))code)());
    CHECK(info.si_code == SEGV_ACCERR && info.si_addr == code);
    CHECK(mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0);
    info.si_signo = 0;
    TRAP(((void (*)(void))code)());
    CHECK(info.si_signo == 0);
}

static void remap(void)
{
    char *a = map(4, RW), *b = map(8, RW);
    a[0] = 'm';
    CHECK_ERR(mremap(a + 1, PAGE, PAGE, 0), EINVAL);
    CHECK_ERR(mremap(a, PAGE, 0, 0), EINVAL);
    CHECK_ERR(mremap(a, PAGE, PAGE, 64), EINVAL);
    CHECK_ERR(mremap(a, PAGE, PAGE, MREMAP_FIXED, b), EINVAL);
    CHECK_ERR(mremap(a, 2 * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, a + PAGE), EINVAL);
    CHECK_ERR(mremap(a, PAGE, 1ul << 47, MREMAP_MAYMOVE), EINVAL);
    CHECK(mremap(a, PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, b + 2 * PAGE) == b + 2 * PAGE);
    CHECK(b[2 * PAGE] == 'm' && b[3 * PAGE] == 0);
    TRAP(READ(a));
    CHECK(info.si_code == SEGV_MAPERR);
    CHECK(munmap(b + 4 * PAGE, PAGE) == 0);
    CHECK(mremap(b + 2 * PAGE, 2 * PAGE, 3 * PAGE, 0) == b + 2 * PAGE);
    CHECK_ERR(mremap(b + 2 * PAGE, 3 * PAGE, 6 * PAGE, 0), ENOMEM);
    char *c = mremap(b + 2 * PAGE, 3 * PAGE, 600 * PAGE, MREMAP_MAYMOVE);
    CHECK(c != MAP_FAILED && c[0] == 'm' && c[599 * PAGE] == 0);
    CHECK(mremap(c, 600 * PAGE, PAGE, 0) == c);
    TRAP(READ(c + PAGE));
    CHECK(info.si_code == SEGV_MAPERR);
    CHECK_ERR(mremap((void *)0x10000, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    char *kept = mremap(c, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    CHECK(kept != MAP_FAILED && kept != c && kept[0] == 'm' && c[0] == 0);
    CHECK_ERR(mremap(c, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 1), EINVAL);
    CHECK_ERR(mremap(c, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, c), EINVAL);
    char *s = mmap(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s[0] = 's';
    char *twin = mremap(s, 0, PAGE, MREMAP_MAYMOVE);
    CHECK(twin != MAP_FAILED && twin[0] == 's');
    twin[0] = 't';
    CHECK(s[0] == 't');
    CHECK_ERR(mremap(kept, 0, PAGE, MREMAP_MAYMOVE), EINVAL);
    char *two = map(4, RW);
    CHECK(mprotect(two, PAGE, PROT_READ) == 0);
    CHECK_ERR(mremap(two, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, b), EFAULT);
    char *sealed = map(3, RW), *room = map(3, RW);
    if (syscall(SYS_mseal, sealed + PAGE, PAGE, 0) == 0) {
        CHECK_ERR(mremap(sealed, 3 * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room), EPERM);
        CHECK_ERR(mremap(sealed, 3 * PAGE, PAGE, 0), EPERM);
        CHECK_ERR(mremap(sealed + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EPERM);
        CHECK_ERR(mremap(sealed, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, sealed + PAGE), EPERM);
    }
}

static void advise(void)
{
    char *a = map(4, RW);
    memset(a, 'a', 4 * PAGE);
    CHECK_ERR(madvise(a + 1, PAGE, MADV_NORMAL), EINVAL);
    CHECK_ERR(madvise(a, PAGE, 12345), EINVAL);
    CHECK_ERR(madvise(a, -1ul, MADV_NORMAL), EINVAL);
    CHECK(madvise(a, 0, MADV_NORMAL) == 0);
    CHECK(madvise(a, PAGE, MADV_DONTNEED) == 0 && a[0] == 0 && a[PAGE] == 'a');
    CHECK(madvise(a, 4 * PAGE, MADV_WILLNEED) == 0);
    CHECK_ERR(madvise(a, 4 * PAGE, MADV_REMOVE), EINVAL);
    CHECK(munmap(a + 2 * PAGE, PAGE) == 0);
    CHECK_ERR(madvise(a, 4 * PAGE, MADV_DONTNEED), ENOMEM);
    CHECK(a[PAGE] == 0 && a[3 * PAGE] == 0); /* done on both sides of the hole */
    CHECK_ERR(madvise(a, 4 * PAGE, MADV_POPULATE_WRITE), ENOMEM);
    CHECK(mprotect(a, PAGE, PROT_READ) == 0);
    CHECK_ERR(madvise(a, PAGE, MADV_POPULATE_WRITE), EINVAL);
    char *s = mmap(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s[0] = 's';
    CHECK(madvise(s, 2 * PAGE, MADV_DONTNEED) == 0 && s[0] == 's');
    CHECK_ERR(madvise(s, PAGE, MADV_FREE), EINVAL);
    CHECK_ERR(madvise(s, PAGE, MADV_WIPEONFORK), EINVAL);
    CHECK(madvise(s, PAGE, MADV_REMOVE) == 0 && s[0] == 0);

    char *wipe = map(1, RW), *skip = map(1, PROT_READ);
    wipe[0] = 'w';
    CHECK(madvise(wipe, PAGE, MADV_WIPEONFORK) == 0);
    CHECK(madvise(skip, PAGE, MADV_DONTFORK) == 0);
    pid_t child = fork();
    if (!child) {
        if (wipe[0])
            _exit(1);
        TRAP(READ(skip));
        _exit(info.si_code == SEGV_MAPERR ? 0 : 2);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(wipe[0] == 'w');
}

static void others(void)
{
    unsigned char vector[8];
    char *a = map(4, RW);
    CHECK_ERR(msync(a + 1, PAGE, MS_SYNC), EINVAL);
    CHECK_ERR(msync(a, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_ERR(msync(a, PAGE, 64), EINVAL);
    CHECK(msync(a, PAGE, MS_ASYNC) == 0);
    memset(a, 1, 4 * PAGE);
    CHECK_ERR(mincore(a + 1, PAGE, vector), EINVAL);
    CHECK_ERR(mincore(a, PAGE, (void *)8), EFAULT);
    CHECK_ERR(mincore(a, -1ul, vector), ENOMEM);
    CHECK(mincore(a, 4 * PAGE, vector) == 0);
    CHECK(vector[0] & vector[1] & vector[2] & vector[3] & 1);
    CHECK(munmap(a + 3 * PAGE, PAGE) == 0);
    CHECK_ERR(mincore(a, 4 * PAGE, vector), ENOMEM);
    CHECK_ERR(msync(a, 4 * PAGE, MS_ASYNC), ENOMEM);

    CHECK(mlock(a + 5, 10) == 0);
    CHECK_ERR(madvise(a, PAGE, MADV_DONTNEED), EINVAL);
    CHECK_ERR(msync(a, PAGE, MS_INVALIDATE), EBUSY);
    CHECK(munlock(a, PAGE) == 0);
    CHECK_ERR(mlock2(a, PAGE, 2), EINVAL);
    CHECK_ERR(mlock(a + 3 * PAGE, PAGE), ENOMEM);
    CHECK_ERR(munlock(a + 3 * PAGE, PAGE), ENOMEM);
    CHECK_ERR(mlockall(0), EINVAL);
    CHECK_ERR(mlockall(MCL_ONFAULT), EINVAL);
    CHECK(munlockall() == 0);

    int fd = memfd_create("cached", 0), me = syscall(SYS_pidfd_open, getpid(), 0);
    CHECK(fd >= 0 && ftruncate(fd, 3 * PAGE) == 0 && pwrite(fd, "x", 1, PAGE) == 1);
    a = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(mincore(a, 3 * PAGE, vector) == 0);
    CHECK(!(vector[0] & 1) && vector[1] & 1 && !(vector[2] & 1));
    struct iovec parts[2] = {{a, PAGE}, {(void *)0x10000, PAGE}};
    CHECK(syscall(SYS_process_madvise, me, parts, 2, MADV_WILLNEED, 0) == PAGE);
    CHECK_ERR(syscall(SYS_process_madvise, me, parts + 1, 1, MADV_WILLNEED, 0), ENOMEM);
    close(fd);
    close(me);
}

/* Whether VmFlags of the mapping that begins at `a` have this one. */
static int flagged(void *a, const char *flag)
{
    char line[400], head[32];
    int found = 0;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    snprintf(head, sizeof head, "%lx-", (long)a);
    while (fgets(line, sizeof line, smaps) && strncmp(line, head, strlen(head)))
        ;
    while (fgets(line, sizeof line, smaps))
        if (strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, flag) != NULL;
            break;
        }
    fclose(smaps);
    return found;
}

/* Other pages of the file in a place: a mapping with the same rights, but without advice. */
static void other_pages(void)
{
    char name[32];
    int fd = memfd_create("pages", 0);
    CHECK(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pwrite(fd, &(char){'0' + i}, 1, i * PAGE) == 1);
    char *a = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    CHECK(madvise(a, 2 * PAGE, MADV_DONTFORK) == 0);
    CHECK(remap_file_pages(a, 2 * PAGE, 0, 2, 0) == 0 && a[0] == '2' && a[PAGE] == '3');
    CHECK(!flagged(a, " dc "));
    CHECK(mprotect(a, PAGE, PROT_READ) == 0);
    CHECK_ERR(remap_file_pages(a, 2 * PAGE, 0, 0, 0), EINVAL);
    CHECK_ERR(remap_file_pages(a, PAGE, PROT_READ, 0, 0), EINVAL);
    munmap(a, 2 * PAGE);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int reader = open(name, O_RDONLY);
    a = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    CHECK_ERR(remap_file_pages(a, PAGE, 0, 1, 0), EINVAL);
    CHECK_ERR(mprotect(a, PAGE, RW), EACCES);
    if (syscall(SYS_mseal, a, PAGE, 0) == 0) {
        CHECK_ERR(mprotect(a, PAGE, RW), EACCES);
        CHECK_ERR(mprotect(a, PAGE, PROT_NONE), EPERM);
    }
    close(fd);
    close(reader);
    unsigned long huge = 0x300000000000ul + PAGE;
    CHECK_ERR(mmap((void *)huge, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB,
                   -1, 0), EINVAL);
}

/* mlock locks first and fills then: what cannot be filled is an error, but locked. */
static void locks(void)
{
    char *a = map(3, RW);
    CHECK(mprotect(a + PAGE, PAGE, PROT_NONE) == 0);
    CHECK_ERR(mlock(a, 3 * PAGE), ENOMEM);
    CHECK(mlock(a + PAGE, 0) == 0);
    CHECK_ERR(madvise(a + 2 * PAGE, PAGE, MADV_DONTNEED), EINVAL);
    CHECK(mlock(a, PAGE) == 0 && munlock(a, 3 * PAGE) == 0);
    CHECK(mlock2(a, 3 * PAGE, MLOCK_ONFAULT) == 0 && munlock(a, 3 * PAGE) == 0);
    CHECK(mlockall(MCL_CURRENT) == 0 && munlockall() == 0);
    munmap(a, 3 * PAGE);
    CHECK(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
    a = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(flagged(a, " lo ") && flagged(a, " lf "));
    CHECK(munlockall() == 0 && munmap(a, PAGE) == 0);
    a = mmap(NULL, PAGE, RW, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (a != MAP_FAILED) {
        CHECK(mlock(a, PAGE) == 0 && !flagged(a, " lo "));
        CHECK_ERR(madvise(a, PAGE, MADV_KEEPONFORK), EINVAL);
        CHECK_ERR(madvise(a, PAGE, MADV_DODUMP), EINVAL);
        munmap(a, PAGE);
    }
    a = map(3, RW);
    CHECK(mlock(a, 3 * PAGE) == 0);
    char *moved = mremap(a, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    CHECK(moved != MAP_FAILED && flagged(moved, " lo ") && !flagged(a, " lo "));
    munmap(a, 3 * PAGE);
    munmap(moved, PAGE);

    int fd = memfd_create("locked", 0);
    CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
    a = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    CHECK_ERR(mlock(a, 2 * PAGE), ENOMEM);
    CHECK(munlock(a, 2 * PAGE) == 0);
    munmap(a, 2 * PAGE);
    a = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_LOCKED, fd, 0);
    CHECK(a != MAP_FAILED && munmap(a, 2 * PAGE) == 0);
    /* locked private pages are copied when they become writable */
    a = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(mlock(a, PAGE) == 0 && mprotect(a, PAGE, RW) == 0 && pwrite(fd, "x", 1, 0) == 1);
    CHECK(a[0] == 0 && munmap(a, PAGE) == 0);
    close(fd);
}

static int deep(int levels)
{
    volatile char frame[PAGE];
    frame[0] = (char)levels;
    return levels ? deep(levels - 1) + frame[0] - (char)levels : 0;
}

static void stacks(void)
{
    CHECK(deep(1000) == 0); /* 4 MiB, by faults */
    char *area = map(600, RW);
    CHECK(munmap(area, 600 * PAGE) == 0);
    char *top = area + 600 * PAGE;
    char *stack = mmap(top - PAGE, PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    CHECK(stack == top - PAGE);
    for (int i = 2; i < 100; i++)
        WRITE(top - i * PAGE);
    CHECK(mmap(area, PAGE, RW, ANON | MAP_FIXED, -1, 0) == area);
    TRAP(WRITE(area + 20 * PAGE)); /* nearer than the guard gap of 256 pages */
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_MAPERR);
}

static void fork_many(void)
{
    enum { PAGES = 1200 };
    unsigned *a = (unsigned *)map(PAGES, RW);
    for (int i = 0; i < PAGES; i++)
        a[i * 1024] = (unsigned)i;
    for (int round = 0; round < 4; round++) {
        pid_t child = fork();
        if (!child) {
            for (int i = round; i < PAGES; i += 7)
                a[i * 1024] += 1000000;
            for (int i = 0; i < PAGES; i++)
                if (a[i * 1024] % 1000000 != (unsigned)i)
                    _exit(1);
            if (!fork()) {
                for (int i = 0; i < PAGES; i++)
                    a[i * 1024] = 5;
                _exit(0);
            }
            int status;
            wait(&status);
            for (int i = 0; i < PAGES; i++)
                if (a[i * 1024] % 1000000 != (unsigned)i)
                    _exit(2);
            _exit(0);
        }
        for (int i = 0; i < PAGES; i += 3)
            a[i * 1024] = (unsigned)i;
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        for (int i = 0; i < PAGES; i++)
            CHECK(a[i * 1024] == (unsigned)i);
    }
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    protect();
    remap();
    advise();
    others();
    locks();
    other_pages();
    stacks();
    fork_many();
    return 0;
}
