/* What an operation costs with n things beside it, or of n things, by the program that does it.
 *
 *   growth names            lists the operations: "name<TAB>unit of n<TAB>largest n"
 *   growth NAME N MS        prints the median of what it takes in ns; over about MS ms, three at
 *                           least, but one where that takes longer than LONG_NS
 *   growth nothing          ends at once (what execve executes)
 *
 * /tmp is a tmpfs, / the container's root.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TIMES = 2000, PAGE = 4096, MIB = 1 << 20, STACK = 64 << 10 };
#define LONG_NS 5e8

static char *self;

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void must(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    exit(1);
}

#define TIMED(...)                                                                                \
    double began = now_ns();                                                                      \
    __VA_ARGS__;                                                                                  \
    return now_ns() - began

static void *room(size_t size, int protection)
{
    void *at = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(at != MAP_FAILED, "mmap");
    return at;
}

static void touch(char *at, long mib)
{
    for (long i = 0; i < mib * MIB; i += PAGE)
        at[i] = 1;
}

static void nothing_beside(long n)
{
    (void)n;
}

/* ---- tasks ---- */

static double fork_and_wait(long n)
{
    (void)n;
    TIMED({
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        must(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
    });
}

static void children(long n)
{
    while (n--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid)
            for (;;)
                pause();
    }
}

static void *sleeper(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void *ends(void *unused)
{
    return unused;
}

static void begin_thread(pthread_t *made, void *(*body)(void *))
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    must(!(errno = pthread_create(made, &small, body, NULL)), "pthread_create");
    pthread_attr_destroy(&small);
}

static void threads(long n)
{
    pthread_t made;
    while (n--)
        begin_thread(&made, sleeper);
}

static double thread_and_join(long n)
{
    pthread_t made;
    (void)n;
    TIMED({
        begin_thread(&made, ends);
        pthread_join(made, NULL);
    });
}

static double exec_with_arguments(long n)
{
    static char **arguments;
    if (!arguments) {
        arguments = calloc(n + 3, sizeof *arguments);
        arguments[0] = self, arguments[1] = "nothing";
        for (long i = 0; i < n; i++)
            arguments[i + 2] = "argument";
    }
    TIMED({
        pid_t pid = vfork();
        if (!pid) {
            execv("/proc/self/exe", arguments);
            _exit(1);
        }
        int status = 1;
        must(pid > 0 && waitpid(pid, &status, 0) == pid && !status, "execve");
    });
}

/* ---- descriptors ---- */

static struct pollfd *polled;

static void descriptors(long n)
{
    polled = calloc(n + 1, sizeof *polled);
    for (long i = 0; i < n; i++) {
        polled[i].fd = eventfd(0, EFD_NONBLOCK);
        polled[i].events = POLLIN;
        must(polled[i].fd >= 0, "eventfd");
    }
}

static double open_and_close(long n)
{
    (void)n;
    TIMED(must(!close(open("/tmp", O_RDONLY)), "open"));
}

static double poll_none_ready(long n)
{
    TIMED(must(!poll(polled, n, 0), "poll"));
}

static int epoll_fd;

static void epoll_set(long n)
{
    descriptors(n);
    epoll_fd = epoll_create1(0);
    for (long i = 0; i <= n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
        int fd = i < n ? polled[i].fd : eventfd(1, 0);
        must(!epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    }
}

static double epoll_one_ready(long n)
{
    struct epoll_event event;
    (void)n;
    TIMED(must(epoll_wait(epoll_fd, &event, 1, -1) == 1, "epoll_wait"));
}

/* ---- memory ---- */

static void mappings(long n)
{
    char *at = room(2 * n * PAGE, PROT_NONE);
    for (long i = 0; i < n; i++)
        must(!mprotect(at + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE), "mprotect");
}

static double map_and_unmap(long n)
{
    (void)n;
    TIMED({
        void *at = room(PAGE, PROT_READ);
        munmap(at, PAGE);
    });
}

static char *area;

static void memory(long mib)
{
    area = room(mib * MIB, PROT_READ | PROT_WRITE);
    touch(area, mib);
}

static double first_touch(long mib)
{
    char *at = room(mib * MIB, PROT_READ | PROT_WRITE);
    double before = now_ns();
    touch(at, mib);
    double took = now_ns() - before;
    munmap(at, mib * MIB);
    return took;
}

static double unmap(long mib)
{
    char *at = room(mib * MIB, PROT_READ | PROT_WRITE);
    touch(at, mib);
    TIMED(munmap(at, mib * MIB));
}

static double copy_on_write(long mib)
{
    int ways[2];
    must(!pipe(ways), "pipe");
    pid_t pid = fork();
    if (!pid) {
        double before = now_ns();
        touch(area, mib);
        double took = now_ns() - before;
        _exit(write(ways[1], &took, sizeof took) != sizeof took);
    }
    double told = 0;
    must(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
    must(read(ways[0], &told, sizeof told) == sizeof told, "read");
    close(ways[0]), close(ways[1]);
    return told;
}

/* ---- names ---- */

static char name[64];

static const char *entry(const char *folder, long i)
{
    snprintf(name, sizeof name, "%s/entry%ld", folder, i);
    return name;
}

static void entries_in(const char *folder, long n)
{
    must(!mkdir(folder, 0700) || errno == EEXIST, "mkdir");
    for (long i = 0; i < n; i++)
        must(!mknod(entry(folder, i), S_IFREG | 0600, 0), "mknod");
}

static double remove_from(const char *folder, long n)
{
    TIMED(for (long i = 0; i < n; i++) unlink(entry(folder, i)));
}

static double list(const char *folder)
{
    static char buffer[32768];
    TIMED({
        int fd = open(folder, O_RDONLY | O_DIRECTORY);
        while (syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 0)
            ;
        close(fd);
    });
}

static double stat_in(const char *folder, long n)
{
    struct stat found;
    TIMED(for (long i = 0; i < n; i++) must(!stat(entry(folder, i), &found), "stat"));
}

#define NAMES(where, folder)                                                                      \
    static void entries_##where(long n) { entries_in(folder, n); }                                \
    static double stat_##where(long n) { return stat_in(folder, n); }                             \
    static double create_##where(long n)                                                          \
    {                                                                                             \
        double before = now_ns();                                                                 \
        entries_in(folder, n);                                                                    \
        double took = now_ns() - before;                                                          \
        remove_from(folder, n);                                                                   \
        return took;                                                                              \
    }                                                                                             \
    static double unlink_##where(long n)                                                          \
    {                                                                                             \
        entries_in(folder, n);                                                                    \
        return remove_from(folder, n);                                                            \
    }                                                                                             \
    static double list_##where(long n)                                                            \
    {                                                                                             \
        entries_in(folder, n);                                                                    \
        double took = list(folder);                                                               \
        remove_from(folder, n);                                                                   \
        return took;                                                                              \
    }                                                                                             \
    static double create_beside_##where(long n)                                                   \
    {                                                                                             \
        (void)n;                                                                                  \
        TIMED({                                                                                   \
            must(!mknod(folder "/one", S_IFREG | 0600, 0), "mknod");                              \
            unlink(folder "/one");                                                                \
        });                                                                                       \
    }
NAMES(tmpfs, "/tmp/growth")
NAMES(root, "/growth")

static char *deep;

static void depth(long n)
{
    deep = malloc(2 * n + 1);
    must(!chdir("/tmp"), "chdir");
    for (long i = 0; i < n; i++) {
        must(!mkdir("d", 0700) && !chdir("d"), "mkdir");
        memcpy(deep + 2 * i, "d/", 3);
    }
    must(!chdir("/tmp"), "chdir");
}

static double stat_deep(long n)
{
    struct stat found;
    (void)n;
    TIMED(must(!stat(deep, &found), "stat"));
}

static void mounts(long n)
{
    must(!mkdir("/tmp/mounts", 0700), "mkdir");
    for (long i = 0; i < n; i++) {
        const char *at = entry("/tmp/mounts", i);
        must(!mkdir(at, 0700) && !mount("none", at, "tmpfs", 0, ""), "mount");
    }
}

static double mount_and_unmount(long n)
{
    static int made;
    (void)n;
    if (!made)
        must(!(made = mkdir("/tmp/one", 0700)), "mkdir"), made = 1;
    TIMED(must(!mount("none", "/tmp/one", "tmpfs", 0, "") && !umount("/tmp/one"), "mount"));
}

/* ---- timers, sockets, pipes ---- */

static void timers(long n)
{
    struct itimerspec later = {.it_value.tv_sec = 10000};
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    for (timer_t made; n--; later.it_value.tv_nsec++)
        must(!timer_create(CLOCK_MONOTONIC, &silent, &made) && !timer_settime(made, 0, &later, NULL),
             "timer_create");
}

static double timer_and_delete(long n)
{
    struct itimerspec later = {.it_value.tv_sec = 5000};
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    timer_t made;
    (void)n;
    TIMED(must(!timer_create(CLOCK_MONOTONIC, &silent, &made) &&
                   !timer_settime(made, 0, &later, NULL) && !timer_delete(made),
               "timer_create"));
}

static void sockets(long n)
{
    int pair[2];
    for (long i = 0; i < n; i += 2)
        must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
}

static double socketpair_and_close(long n)
{
    int pair[2];
    (void)n;
    TIMED({
        must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
        close(pair[0]), close(pair[1]);
    });
}

static int listener;
static struct sockaddr_in where = {.sin_family = AF_INET};

static void connect_once(int pair[2])
{
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(!connect(pair[0], (struct sockaddr *)&where, sizeof where), "connect");
    must((pair[1] = accept(listener, NULL, NULL)) >= 0, "accept");
}

static void connections(long n)
{
    socklen_t size = sizeof where;
    int pair[2];
    listener = socket(AF_INET, SOCK_STREAM, 0);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(!bind(listener, (struct sockaddr *)&where, sizeof where) && !listen(listener, 8), "listen");
    must(!getsockname(listener, (struct sockaddr *)&where, &size), "getsockname");
    while (n--)
        connect_once(pair);
}

static double connect_and_close(long n)
{
    int pair[2];
    (void)n;
    TIMED({
        connect_once(pair);
        close(pair[0]), close(pair[1]);
    });
}

static double through_a_pipe(long kib)
{
    static int ways[2];
    static char *data;
    if (!data) {
        must(!pipe(ways) && (data = malloc(kib << 10)), "pipe");
        memset(data, 1, kib << 10);
        must(fcntl(ways[0], F_SETPIPE_SZ, kib << 10) >= kib << 10, "F_SETPIPE_SZ");
    }
    TIMED(must(write(ways[1], data, kib << 10) == kib << 10 && read(ways[0], data, kib << 10) == kib << 10,
               "pipe"));
}

/* ---- the table ---- */

static const struct {
    const char *name, *unit;
    long largest;
    void (*beside)(long);
    double (*once)(long);
} OPERATIONS[] = {
    {"fork+wait beside children asleep", "children", 1000, children, fork_and_wait},
    {"fork+wait with descriptors", "descriptors", 10000, descriptors, fork_and_wait},
    {"fork+wait with mappings", "mappings", 10000, mappings, fork_and_wait},
    {"fork+wait with memory", "MiB", 1000, memory, fork_and_wait},
    {"thread create+join beside threads asleep", "threads", 1000, threads, thread_and_join},
    {"vfork+exec with arguments", "arguments", 10000, nothing_beside, exec_with_arguments},
    {"open+close beside descriptors", "descriptors", 10000, descriptors, open_and_close},
    {"poll, none ready", "descriptors", 10000, descriptors, poll_none_ready},
    {"epoll_wait, one ready", "descriptors", 10000, epoll_set, epoll_one_ready},
    {"mmap+munmap beside mappings", "mappings", 10000, mappings, map_and_unmap},
    {"first touch", "MiB", 1000, nothing_beside, first_touch},
    {"copy on write", "MiB", 1000, memory, copy_on_write},
    {"munmap", "MiB", 1000, nothing_beside, unmap},
    {"create+unlink beside names, tmpfs", "names", 10000, entries_tmpfs, create_beside_tmpfs},
    {"create+unlink beside names, root", "names", 10000, entries_root, create_beside_root},
    {"create each, tmpfs", "names", 10000, nothing_beside, create_tmpfs},
    {"create each, root", "names", 10000, nothing_beside, create_root},
    {"stat each, tmpfs", "names", 10000, entries_tmpfs, stat_tmpfs},
    {"stat each, root", "names", 10000, entries_root, stat_root},
    {"first listing, tmpfs", "names", 10000, nothing_beside, list_tmpfs},
    {"first listing, root", "names", 10000, nothing_beside, list_root},
    {"unlink each, tmpfs", "names", 10000, nothing_beside, unlink_tmpfs},
    {"unlink each, root", "names", 10000, nothing_beside, unlink_root},
    {"stat of a deep path", "directories", 1000, depth, stat_deep},
    {"mount+umount beside mounts", "mounts", 1000, mounts, mount_and_unmount},
    {"timer beside timers", "timers", 10000, timers, timer_and_delete},
    {"socketpair+close beside sockets", "sockets", 10000, sockets, socketpair_and_close},
    {"TCP connect+close beside connections", "connections", 1000, connections, connect_and_close},
    {"write+read of a pipe", "KiB", 1000, nothing_beside, through_a_pipe},
};
enum { COUNT = sizeof OPERATIONS / sizeof *OPERATIONS };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(int which, long n, double ms)
{
    static double took[MAX_TIMES];
    int times = 0;
    OPERATIONS[which].beside(n);
    double begun = now_ns();
    took[0] = OPERATIONS[which].once(n);
    double warm = now_ns();
    if (warm - begun > LONG_NS)
        return took[0];
    while (times < MAX_TIMES && (now_ns() < warm + ms * 1e6 || (times < 3 && now_ns() < warm + LONG_NS)))
        took[times++] = OPERATIONS[which].once(n);
    qsort(took, times, sizeof *took, compare);
    return took[times / 2];
}

int main(int argc, char **argv)
{
    struct rlimit files;
    self = argv[0];
    setpgid(0, 0); /* who is killed in the end is only of this program */
    if (argc > 1 && !strcmp(argv[1], "nothing"))
        return 0;
    if (argc == 2)
        for (int i = 0; i < COUNT; i++)
            printf("%s\t%s\t%ld\n", OPERATIONS[i].name, OPERATIONS[i].unit, OPERATIONS[i].largest);
    if (argc != 4)
        return argc != 2;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 0; i < COUNT; i++)
        if (!strcmp(OPERATIONS[i].name, argv[1])) {
            printf("%.0f\n", median(i, atol(argv[2]), atof(argv[3])));
            fflush(stdout);
            remove_from("/growth", atol(argv[2]));
            rmdir("/growth");
            signal(SIGTERM, SIG_IGN);
            kill(0, SIGTERM); /* the children asleep */
            _exit(0);
        }
    return 1;
}
