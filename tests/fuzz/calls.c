/* System calls with arguments that nobody means: from the declarations (calls.h, made by
 * call_table.py), with descriptors of every kind, paths, addresses at the edges of pages, and
 * structs full of small numbers and pointers. Several processes do so at a time, in one folder, some
 * of them on the same memory, and some with a thread that changes it behind their backs.
 *
 *     calls SEED SECONDS [ROUND]
 *
 * Each process makes some hundred calls and is ended; whatever becomes of it is right. What is wrong
 * is an exception in the Sentry's log, or that this program does not come to its end. ROUND: only
 * this one, and its processes say what they call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <linux/netlink.h>
#include <time.h>
#include <unistd.h>

struct values { const uint64_t *at; unsigned n; };
struct call { int number; const char *name, *kinds; struct values known[6]; };
#include "calls.h"
#include "chance.h"
#define CALLS (sizeof calls / sizeof *calls)
#define PER_CHILD 300
#define TOGETHER 3
#define PAGE 4096

static char *arena;   /* 16 pages: writable, then one that is not mapped */
static char *locked;  /* a page that can only be read, then one without rights */
static int fds[64], n_fds;
static volatile pid_t *others; /* the processes of a round */

static const char *const paths[] = {
    "", "/", ".", "..", "file", "dir", "dir/x", "dir/", "loop", "link", "fifo", "sock", "none",
    "none/none", "file/x", "/proc/self/exe", "/proc/self/maps", "/proc/self/mem", "/proc/self/fd",
    "/proc/self/fd/3", "/proc/self/root/tmp", "/proc/sys/kernel/hostname", "/proc/1/status",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/ptmx", "/dev/tty", "/dev/pts/0", "/dev/shm",
    "/tmp", "/sys", "/sys/fs/cgroup", "/etc/passwd", "/bin/busybox", "//", "/../..", "dir/../file",
    "\xff\xfe", "a\nb", "/proc/self/ns/mnt", "/proc/self/task", "/proc/self/attr", "/proc/net/tcp",
    "tmpfs", "proc", "overlay", "user.name", "trusted.x", "system.posix_acl_access", "security.capability",
};

static void add(int fd)
{
    if (fd >= 0 && n_fds < 64)
        fds[n_fds++] = fd;
}

static void add_pair(int *pair) { add(pair[0]); add(pair[1]); }

static void make_files(void)
{
    mkdir("dir", 0777);
    symlink("loop", "loop");
    symlink("file", "link");
    mkfifo("fifo", 0666);
    int fd = open("file", O_RDWR | O_CREAT, 0666), pair[2];
    (void)!write(fd, arena, 5000);
    add(fd);
    add(open("file", O_RDONLY));
    add(open("file", O_WRONLY | O_APPEND));
    add(open("dir", O_RDONLY | O_DIRECTORY));
    add(open("/", O_RDONLY | O_DIRECTORY));
    add(open("file", O_PATH));
    add(open("/bin/busybox", O_RDONLY));
    add(open("/proc/self/mem", O_RDWR));
    add(open("/proc/self", O_RDONLY));
    add(open("/proc/self/status", O_RDONLY));
    add(open("/dev/null", O_RDWR));
    add(open("/dev/zero", O_RDWR));
    add(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    add(open("fifo", O_RDWR | O_NONBLOCK));
    if (!pipe2(pair, O_NONBLOCK)) add_pair(pair);
    if (!pipe(pair)) add_pair(pair);
    if (!socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) add_pair(pair);
    if (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair)) add_pair(pair);
    if (!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) add_pair(pair);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bind(listener, (struct sockaddr *)&here, size);
    listen(listener, 3);
    getsockname(listener, (struct sockaddr *)&here, &size);
    add(listener);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fd, (struct sockaddr *)&here, size);
    add(fd);
    add(accept(listener, NULL, NULL));
    add(socket(AF_INET, SOCK_DGRAM, 0));
    add(socket(AF_INET6, SOCK_STREAM, 0));
    add(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    add(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    add(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    add(epoll_create1(0));
    add(eventfd(1, EFD_NONBLOCK));
    add(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    add(signalfd(-1, &set, SFD_NONBLOCK));
    fd = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(fd, "dir", IN_ALL_EVENTS);
    add(fd);
    add(memfd_create("fuzz", MFD_ALLOW_SEALING));
    add((int)syscall(SYS_pidfd_open, getpid(), 0));
    add((int)syscall(SYS_pidfd_open, getppid(), 0));
    add((int)syscall(SYS_mq_open, "fuzz", O_RDWR | O_CREAT | O_NONBLOCK, 0600, NULL));
    add((int)syscall(SYS_fsopen, "tmpfs", 0));
    add((int)syscall(SYS_open_tree, AT_FDCWD, "dir", 1));
}

static uint64_t odd_number(void)
{
    static const uint64_t odd[] = {
        0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 64, 100, 127, 128, 255, 256, 511, 512, 1000, 1024, 4095, 4096,
        4097, 8192, 65535, 65536, 1 << 20, 0x7ffff000, 0x7fffffff, 0x80000000, 0xffffffff,
        0x100000000, 1ull << 40, 1ull << 62, 0x7fffffffffffffff, 0x8000000000000000, -1ull, -2ull,
        -100ull, -4096ull,
    };
    switch (chance(4)) {
    case 0: return odd[chance(sizeof odd / sizeof *odd)];
    case 1: return chance(10);
    case 2: return 1ull << chance(64);
    default: return chance(3) ? chance(70) : any();
    }
}

static uint64_t descriptor(void)
{
    switch (chance(12)) {
    case 0: return odd_number();
    case 1: return (uint64_t)AT_FDCWD;
    case 2: return chance(80);
    default: return (uint64_t)fds[chance((unsigned)n_fds)];
    }
}

static uint64_t address(void)
{
    static const uint64_t odd[] = {
        0, 1, 8, 4095, 4096, 65535, 65536, 0x7fffffdff000, 0x7fffffdfefff, 0x7fffffe00000, 0x7fffffe01000,
        0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0xffffffffff600000, -1ull, -8ull, -4096ull,
        0x400000,
    };
    switch (chance(10)) {
    case 0: return odd[chance(sizeof odd / sizeof *odd)];
    case 1: return (uint64_t)arena + 16 * PAGE - (1 + chance(64)); /* ends within the struct */
    case 2: return (uint64_t)locked + chance(2 * PAGE);
    case 3: return (uint64_t)arena + chance(16 * PAGE);
    case 4: return (uint64_t)arena + chance(16) * PAGE;
    case 5: return 0;
    default: return (uint64_t)arena + chance(1024) * 64;
    }
}

static uint64_t process(void)
{
    switch (chance(6)) {
    case 0: return odd_number();
    case 1: return (uint64_t)-(int64_t)others[chance(TOGETHER)];
    case 2: return (uint64_t)getpid();
    default: return (uint64_t)others[chance(TOGETHER)];
    }
}

static uint64_t path(void)
{
    if (chance(8) == 0)
        return address();
    return (uint64_t)paths[chance(sizeof paths / sizeof *paths)];
}

/* Structs: small numbers, descriptors, pointers, in words of all widths. */
static void fill(void)
{
    for (unsigned i = 0; i < 40; i++) {
        uint64_t *at = (uint64_t *)(arena + chance(1024) * 64);
        for (unsigned k = 0; k < 8; k++)
            switch (chance(8)) {
            case 0: at[k] = address(); break;
            case 1: at[k] = odd_number(); break;
            case 2: at[k] = descriptor() | (uint64_t)chance(100) << 32; break;
            case 3: at[k] = chance(40) | (uint64_t)chance(40) << 32; break;
            case 4: at[k] = path(); break;
            case 5: at[k] = any(); break;
            case 6: at[k] = chance(300) | (uint64_t)chance(300) << 16 | any() << 32; break;
            default: at[k] = 0;
            }
    }
    if (chance(4) == 0)
        strcpy(arena + chance(1024) * 64, paths[chance(sizeof paths / sizeof *paths)]);
    if (chance(8) == 0)
        memset(arena + 15 * PAGE, 'x', PAGE); /* a string without an end */
}

static uint64_t argument(char kind, struct values known)
{
    unsigned other = chance(24);
    if (other == 0) return odd_number();
    if (other == 1) return address();
    if (known.n && chance(8)) {
        uint64_t value = known.at[chance(known.n)];
        for (unsigned more = chance(3); more; more--)
            value |= known.at[chance(known.n)];
        return value;
    }
    switch (kind) {
    case 'f': return descriptor();
    case 'p': return path();
    case 'i': return process();
    case 'a': return chance(6) ? address() : odd_number();
    default: return odd_number();
    }
}

static void nothing(int signal) { (void)signal; }

/* A thread for as long as the process lives: what a call has looked at is something else then. */
static void *change(void *seed)
{
    uint64_t x = (uint64_t)seed | 1;
    for (;;) {
        step(&x);
        uint64_t *at = (uint64_t *)(arena + (x >> 20 & 1023) * 64 + (x >> 32 & 7) * 8);
        char *where = (char *)((uintptr_t)at & ~(PAGE - 1ul));
        if ((x >> 40 & 0xffff) == 0) { /* one that goes, and comes back */
            munmap(where, PAGE);
            mmap(where, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        } else if ((x >> 40 & 0x3fff) == 1) {
            mprotect(where, PAGE, PROT_READ);
            mprotect(where, PAGE, PROT_READ | PROT_WRITE);
        }
        *at = x >> 60 & 1 ? x : (x >> 61 & 1 ? *at ^ 1 : at[(x >> 5 & 7) - 3]);
    }
    return NULL;
}

static void child(uint64_t seed, int tell)
{
    begin(seed);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    unsigned flavour = chance(4);
    if (flavour & 1)
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC);
    make_files();
    struct rlimit small = {64 << 20, 64 << 20};
    setrlimit(RLIMIT_FSIZE, &small);
    if (flavour & 2)
        (void)!setresuid(1000, 1000, 1000);
    for (int i = 1; i < 32; i++)
        if (i != SIGCHLD)
            signal(i, chance(2) ? SIG_IGN : SIG_DFL);
    /* Few calls sleep for long. */
    struct sigaction wake = {.sa_handler = nothing};
    struct itimerval often = {{0, 5000}, {0, 5000}};
    sigaction(SIGALRM, &wake, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    if (chance(2))
        mmap(arena, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (chance(3) == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, change, (void *)any());
    }
    unsigned favourite = chance(CALLS);
    for (int i = 0; i < PER_CHILD; i++) {
        const struct call *c = &calls[chance(3) ? chance(CALLS) : (favourite + chance(6)) % CALLS];
        uint64_t a[6];
        fill();
        for (unsigned k = 0; k < 6; k++)
            a[k] = argument(k < strlen(c->kinds) ? c->kinds[k] : 'n', c->known[k]);
        if (tell) {
            char line[300];
            int n = snprintf(line, sizeof line, "%d: %d %s(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)\n", (int)getpid(), i, c->name,
                             a[0], a[1], a[2], a[3], a[4], a[5]);
            (void)!write(2, line, (size_t)n);
        }
        pid_t before = (pid_t)syscall(SYS_gettid);
        long result = syscall(c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (result == 0 && (pid_t)syscall(SYS_gettid) != before)
            syscall(SYS_exit, 0);
        if (result >= 0 && result < 1000 && chance(4) == 0 && n_fds < 64)
            fds[n_fds++] = (int)result;
        if (chance(100) == 0)
            for (char *at = arena; at < arena + 16 * PAGE; at += PAGE)
                if (mprotect(at, PAGE, PROT_READ | PROT_WRITE))
                    _exit(0);
    }
    _exit(0);
}

/* However much they forked and whatever they blocked: all are gone afterwards. */
static void end_children(int left)
{
    sigset_t chld;
    struct timespec patience = {0, 150000000};
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    while (left > 0) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid > 0)
            left -= pid == others[0] || pid == others[1] || pid == others[2];
        else if (sigtimedwait(&chld, NULL, &patience) < 0)
            break;
    }
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0)
        kill(-1, SIGKILL);
    while (sigtimedwait(&chld, NULL, &(struct timespec){0, 0}) >= 0)
        ;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0);
    double seconds = atof(argv[2]);
    arena = mmap(NULL, 17 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    others = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    locked = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(arena + 16 * PAGE, PAGE);
    mprotect(locked + PAGE, PAGE, PROT_NONE);
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned long n = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;; n++) {
        char folder[40];
        snprintf(folder, sizeof folder, "/tmp/%lu.%lu", (unsigned long)seed, n);
        mkdir(folder, 0777);
        int made = 0;
        for (int k = 0; k < TOGETHER; k++) {
            pid_t pid = fork();
            if (pid == 0) {
                if (chdir(folder))
                    _exit(1);
                child((seed * 1000003 + n) * TOGETHER + (uint64_t)k, argc > 3);
            }
            others[k] = pid;
            made += pid > 0;
        }
        end_children(made);
        umount2(folder, MNT_DETACH);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)(now.tv_sec - start.tv_sec) >= seconds || argc > 3) {
            printf("%lu rounds\n", n + 1);
            return 0;
        }
    }
}
