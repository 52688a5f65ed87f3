/* mmap, munmap, brk: errors in Linux's order, placement, anonymous and file mappings. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

static void *map(void *at, size_t length, int prot, int flags)
{
    return mmap(at, length, prot, flags, -1, 0);
}

static void errors(void)
{
    int file = open("f", O_RDWR | O_CREAT | O_TRUNC, 0600);
    int write_only = open("f", O_WRONLY), read_only = open("f", O_RDONLY);
    int dir = open(".", O_RDONLY);
    CHECK_ERR(mmap(0, 0, RW, ANON, -1, 0), EINVAL);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_PRIVATE, -1, 0), EBADF);
    CHECK_ERR(mmap(0, 0, RW, MAP_PRIVATE, -1, 0), EBADF);
    CHECK_ERR(mmap((void *)1, PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
    CHECK_ERR(mmap((void *)0x7ffffffff000, PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
    CHECK_ERR(mmap(0, 1ul << 48, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK_ERR(mmap(0, -1ul, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK_ERR(mmap(0, -4096ul, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK_ERR(syscall(SYS_mmap, 0, PAGE, RW, ANON, -1, 1), EINVAL);
    CHECK_ERR(syscall(SYS_mmap, 0, 4 * PAGE, RW, MAP_PRIVATE, file, -(long)PAGE), EOVERFLOW);
    CHECK_ERR(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, write_only, 0), EACCES);
    CHECK_ERR(mmap(0, PAGE, PROT_WRITE, MAP_SHARED, write_only, 0), EACCES);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_SHARED, read_only, 0), EACCES);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_SHARED_VALIDATE | 1 << 21, file, 0), EOPNOTSUPP);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_PRIVATE | MAP_GROWSDOWN, file, 0), EINVAL);
    CHECK_ERR(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, dir, 0), ENODEV);
    CHECK_ERR(munmap((void *)1, PAGE), EINVAL);
    CHECK_ERR(munmap((void *)PAGE, 0), EINVAL);
    CHECK_ERR(munmap((void *)PAGE, -1ul), EINVAL);
    CHECK(munmap((void *)0x7fffffffe000, PAGE) == 0); /* the last page of user space */
    CHECK_ERR(munmap((void *)0x7fffffffe000, 2 * PAGE), EINVAL);
    CHECK(munmap((void *)0x10000, PAGE) == 0);
    close(file), close(write_only), close(read_only), close(dir);
}

static void placement(void)
{
    char *a = map(0, 4 * PAGE, RW, ANON);
    CHECK(a != MAP_FAILED);
    CHECK(munmap(a + PAGE, PAGE) == 0);
    CHECK_ERR(map(a, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE), EEXIST);
    CHECK(map(a + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE) == a + PAGE);
    CHECK(map(a + PAGE, PAGE, RW, ANON) != a + PAGE);
    CHECK(munmap(a + PAGE, PAGE) == 0);
    CHECK(map(a + PAGE + 1, PAGE, RW, ANON) != MAP_FAILED);
    CHECK(munmap(a + PAGE, PAGE) == 0);
    CHECK(map(a + PAGE - 1, PAGE, RW, ANON) == a + PAGE);
    uintptr_t low = (uintptr_t)map(0, PAGE, RW, ANON | MAP_32BIT);
    CHECK(low < 0x80000000);
    a[0] = 1;
    CHECK(map(a, PAGE, RW, ANON | MAP_FIXED) == a && a[0] == 0);
    char *big = map(0, 64 << 20, RW, ANON | MAP_NORESERVE);
    CHECK(big != MAP_FAILED);
    for (int i = 0; i < 64; i++)
        big[i << 20] = (char)i;
    for (int i = 0; i < 64; i++)
        CHECK(big[i << 20] == (char)i);
    CHECK(munmap(big, 64 << 20) == 0);
}

/* What is no multiple of 2 MiB is not rounded to one: the stacks of threads lie side by side. */
static void stacks(void)
{
    size_t size = (8 << 20) + PAGE;
    char *last = map(0, size, PROT_NONE, ANON | MAP_NORESERVE | MAP_STACK);
    for (int i = 0; i < 40; i++) {
        char *next = map(0, size, PROT_NONE, ANON | MAP_NORESERVE | MAP_STACK);
        CHECK(next == last - size);
        last = next;
    }
    CHECK(munmap(last, 41 * size) == 0);
}

static void heap(void)
{
    char *start = sbrk(0);
    CHECK(sbrk(3 * PAGE) == start);
    memset(start, 7, 3 * PAGE);
    CHECK(brk(start + PAGE) == 0);
    CHECK(brk(start + 3 * PAGE) == 0);
    CHECK(start[0] == 7);
    char *next = (char *)(((uintptr_t)start + 2 * PAGE) & -(uintptr_t)PAGE);
    CHECK(next[0] == 0);
    CHECK((char *)syscall(SYS_brk, 0) == start + 3 * PAGE);
    CHECK((char *)syscall(SYS_brk, 1ul << 62) == start + 3 * PAGE);
    struct rlimit old, none = {.rlim_cur = PAGE};
    CHECK(getrlimit(RLIMIT_DATA, &old) == 0);
    none.rlim_max = old.rlim_max;
    CHECK(setrlimit(RLIMIT_DATA, &none) == 0);
    CHECK((char *)syscall(SYS_brk, start + 64 * PAGE) == start + 3 * PAGE);
    CHECK_ERR(map(0, PAGE, RW, ANON), ENOMEM);
    CHECK(map(0, PAGE, PROT_READ, ANON) != MAP_FAILED);
    CHECK(setrlimit(RLIMIT_DATA, &old) == 0);
}

static void files(void)
{
    int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char bytes[2 * PAGE + 100];
    memset(bytes, 'x', sizeof bytes);
    CHECK(write(fd, bytes, sizeof bytes) == sizeof bytes);

    char *shared = mmap(0, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    char *private = mmap(0, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
    CHECK(shared != MAP_FAILED && private != MAP_FAILED);
    CHECK(shared[2 * PAGE + 99] == 'x' && shared[2 * PAGE + 100] == 0);
    shared[PAGE] = 's';
    char seen;
    CHECK(pread(fd, &seen, 1, PAGE) == 1 && seen == 's');
    CHECK(private[PAGE] == 's');
    CHECK(pwrite(fd, "w", 1, 5) == 1 && shared[5] == 'w');
    private[0] = 'p';
    CHECK(shared[0] == 'x' && private[0] == 'p');
    CHECK(pread(fd, &seen, 1, 0) == 1 && seen == 'x');
    CHECK(msync(shared, 3 * PAGE, MS_SYNC) == 0);

    TRAP(shared[3 * PAGE] = 1);
    CHECK(info.si_signo == SIGBUS && info.si_code == BUS_ADRERR);
    CHECK(info.si_addr == shared + 3 * PAGE);
    CHECK(ftruncate(fd, PAGE) == 0);
    TRAP((void)*(volatile char *)(shared + PAGE));
    CHECK(info.si_signo == SIGBUS && info.si_addr == shared + PAGE);
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK_ERR(write(ends[1], shared + 2 * PAGE, 1), EFAULT);
    close(ends[0]), close(ends[1]);
    CHECK(ftruncate(fd, 3 * PAGE) == 0);
    CHECK(shared[PAGE] == 0 && shared[2 * PAGE + 50] == 0);

    CHECK(close(fd) == 0 && shared[5] == 'w');
    fd = open("data", O_RDONLY);
    char *offset = mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 2 * PAGE);
    CHECK(offset != MAP_FAILED && offset[0] == 0);
    shared[2 * PAGE] = 'o';
    CHECK(offset[0] == 'o');
    CHECK_ERR(mprotect(offset, PAGE, RW), EACCES);
    CHECK(unlink("data") == 0 && shared[5] == 'w');
    munmap(shared, 4 * PAGE), munmap(private, 4 * PAGE), munmap(offset, PAGE);
    close(fd);
}

static void memory_files(void)
{
    int fd = memfd_create("m", 0);
    CHECK(ftruncate(fd, 3 * PAGE) == 0);
    char *one = mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0);
    char *two = mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0);
    one[2 * PAGE] = 'a';
    CHECK(two[2 * PAGE] == 'a');
    CHECK(pwrite(fd, "b", 1, PAGE) == 1 && one[PAGE] == 'b');
    CHECK(madvise(one, PAGE * 3, MADV_REMOVE) == 0 && two[PAGE] == 0);
    CHECK(ftruncate(fd, PAGE) == 0);
    TRAP(two[PAGE] = 1);
    CHECK(info.si_signo == SIGBUS && info.si_code == BUS_ADRERR);
    munmap(one, 3 * PAGE), munmap(two, 3 * PAGE);
    close(fd);
}

static void shared_anonymous(void)
{
    char *a = map(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
    char *b = map(0, 2 * PAGE, RW, ANON);
    a[0] = b[0] = 1;
    pid_t child = fork();
    if (!child) {
        a[0] = b[0] = 2;
        a[PAGE] = 3;
        _exit(b[0] == 2 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(a[0] == 2 && a[PAGE] == 3 && b[0] == 1);

    /* No file: the offset says nothing. */
    a = mmap(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 1 << 20);
    CHECK(a != MAP_FAILED);
    a[PAGE] = 1;
    CHECK(a[0] == 0 && a[PAGE] == 1 && munmap(a, 2 * PAGE) == 0);
}

static void devices(void)
{
    int zero = open("/dev/zero", O_RDWR), full = open("/dev/full", O_RDWR);
    int null = open("/dev/null", O_RDWR), status;
    CHECK(zero >= 0 && full >= 0 && null >= 0);
    CHECK_ERR(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, full, 0), ENODEV);
    CHECK_ERR(mmap(0, PAGE, RW, MAP_SHARED, full, 0), ENODEV);
    CHECK_ERR(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, null, 0), ENODEV);
    char *a = mmap(0, 2 * PAGE, RW, MAP_SHARED, zero, 0);
    char *b = mmap(0, 2 * PAGE, RW, MAP_PRIVATE, zero, 0);
    char *c = mmap(0, 2 * PAGE, RW, MAP_PRIVATE, zero, 4 * PAGE);
    char *d = mmap(0, 2 * PAGE, RW, MAP_SHARED, zero, 0);
    CHECK(a != MAP_FAILED && b != MAP_FAILED && c != MAP_FAILED && d != MAP_FAILED);
    pid_t child = fork();
    if (!child) {
        a[PAGE] = b[PAGE] = c[PAGE] = 1;
        _exit(a[PAGE] == 1 && b[PAGE] == 1 && c[PAGE] == 1 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(a[PAGE] == 1 && b[PAGE] == 0 && c[PAGE] == 0 && d[PAGE] == 0);
    munmap(a, 2 * PAGE), munmap(b, 2 * PAGE), munmap(c, 2 * PAGE), munmap(d, 2 * PAGE);
    close(zero), close(full), close(null);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    errors();
    placement();
    stacks();
    heap();
    files();
    memory_files();
    shared_anonymous();
    devices();
    return 0;
}
