/* What single operations cost, measured by the program that does them.
 *
 *   cases all|NAME,… MS     prints "name<TAB>median<TAB>best" in ns, each case over about MS ms
 *   cases time N COMMAND …  runs a command N times, prints "median best" of the elapsed ns
 *   cases names             lists the cases
 *   cases nothing           ends at once (what vfork+exec executes)
 *
 * A case is run in batches of about 100 µs or more; the median and the best are over the batches.
 * /tmp is a tmpfs, / the container's root, /srv a bind mount that can be written.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BATCHES = 4000, ENTRIES = 10000, MANY = 64 << 20 };

static char buffer[65536];
static char *area; /* for memory bandwidth */
static char *self;
static int null_fd, zero_fd, epoll_fd;
static int pages; /* of the first-touch case */

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- files: one set of cases for each of three file systems ---- */

static struct {
    const char *file, *fresh;
    int fd;
} places[3] = {
    {"/tmp/bench.data", "/tmp/bench.new", -1},
    {"/bench.data", "/bench.new", -1},
    {"/srv/bench.data", "/srv/bench.new", -1},
};

static void open_place(int i)
{
    if (places[i].fd >= 0)
        return;
    places[i].fd = open(places[i].file, O_RDWR | O_CREAT, 0600);
    if (places[i].fd < 0 || pwrite(places[i].fd, buffer, sizeof buffer, 0) != sizeof buffer)
        die(places[i].file);
}

#define FOR for (long i = 0; i < n; i++)
#define FILE_CASES(at, k)                                                                         \
    static void pread_4k_##at(long n) { open_place(k); FOR (void)!pread(places[k].fd, buffer, 4096, 0); } \
    static void pwrite_4k_##at(long n) { open_place(k); FOR (void)!pwrite(places[k].fd, buffer, 4096, 0); } \
    static void pread_64k_##at(long n) { open_place(k); FOR (void)!pread(places[k].fd, buffer, 65536, 0); } \
    static void pwrite_64k_##at(long n) { open_place(k); FOR (void)!pwrite(places[k].fd, buffer, 65536, 0); } \
    static void fstat_##at(long n) { struct stat s; open_place(k); FOR fstat(places[k].fd, &s); }  \
    static void stat_##at(long n) { struct stat s; open_place(k); FOR stat(places[k].file, &s); }  \
    static void open_##at(long n) { open_place(k); FOR close(open(places[k].file, O_RDONLY)); }    \
    static void create_##at(long n)                                                               \
    {                                                                                             \
        FOR {                                                                                     \
            close(open(places[k].fresh, O_RDWR | O_CREAT | O_EXCL, 0600));                        \
            unlink(places[k].fresh);                                                              \
        }                                                                                         \
    }
FILE_CASES(tmpfs, 0)
FILE_CASES(root, 1)
FILE_CASES(bind, 2)

static void getdents(long n)
{
    static int made;
    char name[64];
    if (!made) {
        made = 1;
        mkdir("/tmp/many", 0700);
        for (int i = 0; i < ENTRIES; i++) {
            snprintf(name, sizeof name, "/tmp/many/entry%d", i);
            close(open(name, O_CREAT | O_WRONLY, 0600));
        }
    }
    FOR {
        int fd = open("/tmp/many", O_RDONLY | O_DIRECTORY);
        while (syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 0)
            ;
        close(fd);
    }
}

/* ---- plain calls ---- */

static void getpid_(long n) { FOR syscall(SYS_getpid); }
static void getppid_(long n) { FOR syscall(SYS_getppid); }
static void yield_(long n) { FOR syscall(SYS_sched_yield); }
static void clock_vdso(long n) { struct timespec t; FOR clock_gettime(CLOCK_MONOTONIC, &t); }
static void clock_call(long n)
{
    struct timespec t;
    FOR syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
}
static void write_null(long n) { FOR (void)!write(null_fd, buffer, 1); }
static void read_zero(long n) { FOR (void)!read(zero_fd, buffer, 4096); }
static void epoll_now(long n) { struct epoll_event e; FOR epoll_wait(epoll_fd, &e, 1, 0); }

static void nothing(int signo) { (void)signo; }
static void signal_self(long n)
{
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGUSR1, &action, NULL);
    pid_t pid = getpid(), tid = (pid_t)syscall(SYS_gettid);
    FOR syscall(SYS_tgkill, pid, tid, SIGUSR1);
}

/* ---- memory ---- */

static char *map(size_t size)
{
    char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static void map_touch_unmap(long n)
{
    FOR {
        char *p = map(1 << 20);
        for (int k = 0; k < 1 << 20; k += 4096)
            p[k] = 1;
        munmap(p, 1 << 20);
    }
}

/* Cost of a page: n pages of one mapping of 64 MiB, taken anew where it is used up. */
static void first_touch(long n)
{
    static char *p;
    FOR {
        if (!p || pages == MANY / 4096) {
            if (!p) /* memory that the machine itself never touched costs more, once, anywhere */
                memset(p = map(MANY), 1, MANY);
            munmap(p, MANY);
            p = map(MANY);
            pages = 0;
        }
        p[(size_t)pages++ * 4096] = 1;
    }
}

static void bandwidth(long n)
{
    if (!area) {
        area = map(MANY);
        memset(area, 1, MANY);
    }
    FOR memcpy(area, area + MANY / 2, MANY / 2);
}

static void cpu_loop(long n)
{
    FOR {
        uint64_t x = 88172645463325252ull;
        for (int k = 0; k < 100000; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            __asm__ volatile("" : "+r"(x));
        }
    }
}

/* ---- processes and threads ---- */

static void fork_wait(long n)
{
    FOR {
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        waitpid(pid, NULL, 0);
    }
}

static pid_t spawn(char **command)
{
    pid_t pid = vfork();
    if (!pid) {
        execvp(command[0], command);
        _exit(127);
    }
    return pid;
}

static void vfork_exec(long n)
{
    char *command[] = {self, "nothing", NULL};
    FOR waitpid(spawn(command), NULL, 0);
}

static void *thread_body(void *arg) { return arg; }
static void thread_join(long n)
{
    FOR {
        pthread_t t;
        pthread_create(&t, NULL, thread_body, NULL);
        pthread_join(t, NULL);
    }
}

/* ---- ping-pong: a round trip between two threads or two processes ---- */

enum transport { PIPE, UNIX, TCP, FUTEX };

static void tcp_pair(int pair[2])
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (void *)&at, size) || listen(listener, 1) ||
        getsockname(listener, (void *)&at, &size))
        die("listen");
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(pair[0], (void *)&at, size) || (pair[1] = accept(listener, NULL, NULL)) < 0)
        die("connect");
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
}

struct partner {
    int in, out; /* of the side that answers */
    uint32_t *word;
    long rounds;
};

static void futex_turn(uint32_t *word, uint32_t mine, uint32_t theirs)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != mine)
        syscall(SYS_futex, word, FUTEX_WAIT, theirs, NULL);
    __atomic_store_n(word, theirs, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1);
}

static void *answer(void *arg)
{
    struct partner *p = arg;
    char byte;
    for (long i = 0; i < p->rounds; i++) {
        if (p->word)
            futex_turn(p->word, 1, 0);
        else if (read(p->in, &byte, 1) != 1 || write(p->out, &byte, 1) != 1)
            die("answer");
    }
    return NULL;
}

static void ping_pong(enum transport how, int processes, long n)
{
    int there[2] = {-1, -1}, back[2] = {-1, -1};
    int in = -1, out = -1;
    struct partner p = {.in = -1, .out = -1, .rounds = n};
    pthread_t thread;
    pid_t pid = 0;
    char byte = 0;
    if (how == PIPE) {
        if (pipe(there) || pipe(back))
            die("pipe");
        p.in = there[0], out = there[1], in = back[0], p.out = back[1];
    } else if (how == FUTEX) {
        p.word = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    } else {
        if (how == TCP)
            tcp_pair(there);
        else if (socketpair(AF_UNIX, SOCK_STREAM, 0, there))
            die("socketpair");
        in = out = there[0], p.in = p.out = there[1];
    }
    if (processes) {
        if (!(pid = fork())) {
            answer(&p);
            _exit(0);
        }
    } else {
        pthread_create(&thread, NULL, answer, &p);
    }
    FOR {
        if (p.word) {
            __atomic_store_n(p.word, 1, __ATOMIC_RELEASE);
            syscall(SYS_futex, p.word, FUTEX_WAKE, 1);
            while (__atomic_load_n(p.word, __ATOMIC_ACQUIRE) != 0)
                syscall(SYS_futex, p.word, FUTEX_WAIT, 1, NULL);
        } else if (write(out, &byte, 1) != 1 || read(in, &byte, 1) != 1) {
            die("ping");
        }
    }
    if (processes)
        waitpid(pid, NULL, 0);
    else
        pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    if (p.word)
        munmap(p.word, 4096);
}

static void pipe_threads(long n) { ping_pong(PIPE, 0, n); }
static void unix_threads(long n) { ping_pong(UNIX, 0, n); }
static void tcp_threads(long n) { ping_pong(TCP, 0, n); }
static void futex_threads(long n) { ping_pong(FUTEX, 0, n); }
static void pipe_processes(long n) { ping_pong(PIPE, 1, n); }
static void unix_processes(long n) { ping_pong(UNIX, 1, n); }
static void tcp_processes(long n) { ping_pong(TCP, 1, n); }
static void futex_processes(long n) { ping_pong(FUTEX, 1, n); }

/* ---- streams: n MiB in writes and reads of 64 KiB, from one process to another ---- */

static void stream(enum transport how, long n)
{
    int pair[2];
    if (how == PIPE) {
        if (pipe(pair))
            die("pipe");
    } else if (how == TCP) {
        tcp_pair(pair);
    } else if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) {
        die("socketpair");
    }
    pid_t pid = fork();
    if (!pid) {
        close(pair[1]);
        while (read(pair[0], buffer, sizeof buffer) > 0)
            ;
        _exit(0);
    }
    close(pair[0]);
    for (long left = n << 20; left > 0; left -= sizeof buffer)
        for (size_t at = 0; at < sizeof buffer;) {
            ssize_t sent = write(pair[1], buffer + at, sizeof buffer - at);
            if (sent < 0)
                die("write");
            at += (size_t)sent;
        }
    close(pair[1]);
    waitpid(pid, NULL, 0);
}

static void pipe_stream(long n) { stream(PIPE, n); }
static void unix_stream(long n) { stream(UNIX, n); }
static void tcp_stream(long n) { stream(TCP, n); }

static void connect_close(long n)
{
    FOR {
        int pair[2];
        tcp_pair(pair);
        close(pair[0]), close(pair[1]);
    }
}

/* A MiB from one file to another, on the tmpfs. */
static int megabyte(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < 16; i++)
        if (write(fd, buffer, sizeof buffer) != sizeof buffer)
            die("write");
    return fd;
}

static void send_file(long n)
{
    int from = megabyte("/tmp/from"), to = megabyte("/tmp/to");
    FOR {
        off_t at = 0;
        lseek(to, 0, SEEK_SET);
        if (sendfile(to, from, &at, 1 << 20) != 1 << 20)
            die("sendfile");
    }
    close(from), close(to);
}

static void copy_range(long n)
{
    int from = megabyte("/tmp/from"), to = megabyte("/tmp/to");
    FOR {
        off_t in = 0, out = 0;
        if (copy_file_range(from, &in, to, &out, 1 << 20, 0) != 1 << 20)
            die("copy_file_range");
    }
    close(from), close(to);
}

/* gVisor has none. */
static int has_copy_range(void)
{
    return copy_file_range(-1, NULL, -1, NULL, 0, 0) == 0 || errno != ENOSYS;
}

static void splice_through(long n)
{
    int from = megabyte("/tmp/from"), to = megabyte("/tmp/to"), way[2];
    if (pipe(way))
        die("pipe");
    FOR {
        off_t in = 0, out = 0;
        while (in < 1 << 20) {
            ssize_t got = splice(from, &in, way[1], NULL, 65536, 0);
            for (ssize_t put; got > 0; got -= put)
                if ((put = splice(way[0], NULL, to, &out, (size_t)got, 0)) <= 0)
                    die("splice");
        }
    }
    close(from), close(to), close(way[0]), close(way[1]);
}

/* ---- the table ---- */

#define FILES(at)                                                                                 \
    {"pread 4K " #at, pread_4k_##at, 1}, {"pwrite 4K " #at, pwrite_4k_##at, 1},                    \
        {"pread 64K " #at, pread_64k_##at, 1}, {"pwrite 64K " #at, pwrite_64k_##at, 1},            \
        {"fstat " #at, fstat_##at, 1}, {"stat " #at, stat_##at, 1},                                \
        {"open+close " #at, open_##at, 1}, {"create+unlink " #at, create_##at, 1}

static const struct {
    const char *name;
    void (*run)(long n);
    long least; /* of a batch: what a set-up in it has to be spread over */
} cases[] = {
    {"getpid", getpid_, 1},
    {"getppid", getppid_, 1},
    {"sched_yield", yield_, 1},
    {"clock_gettime vDSO", clock_vdso, 1},
    {"clock_gettime call", clock_call, 1},
    {"write /dev/null", write_null, 1},
    {"read /dev/zero 4K", read_zero, 1},
    {"epoll_wait(0)", epoll_now, 1},
    {"signal", signal_self, 1},
    FILES(tmpfs),
    FILES(root),
    FILES(bind),
    {"getdents 10000", getdents, 1},
    {"fork+wait", fork_wait, 1},
    {"vfork+exec", vfork_exec, 1},
    {"thread create+join", thread_join, 1},
    {"futex threads", futex_threads, 500},
    {"pipe threads", pipe_threads, 500},
    {"unix threads", unix_threads, 500},
    {"tcp threads", tcp_threads, 500},
    {"futex processes", futex_processes, 500},
    {"pipe processes", pipe_processes, 500},
    {"unix processes", unix_processes, 500},
    {"tcp processes", tcp_processes, 500},
    /* The last ones keep much memory, which a fork would have to copy. */
    {"pipe stream MiB", pipe_stream, 16},
    {"unix stream MiB", unix_stream, 16},
    {"tcp stream MiB", tcp_stream, 16},
    {"tcp connect+close", connect_close, 1},
    {"sendfile MiB", send_file, 1},
    {"splice MiB", splice_through, 1},
    {"copy_file_range MiB", copy_range, 1},
    {"mmap+touch+munmap 1M", map_touch_unmap, 1},
    {"first touch", first_touch, 512},
    {"CPU loop", cpu_loop, 1},
    {"memory bandwidth 32M", bandwidth, 1},
};

static void measure(const char *name, void (*run)(long), long least, double budget_ns)
{
    static double cost[MAX_BATCHES];
    long n = least;
    run(n); /* warm */
    double start, once = 1e18;
    for (int i = 0; i < 5; i++) { /* the first ones may still be slow */
        start = now_ns();
        run(n);
        double took = (now_ns() - start) / (double)n;
        once = took < once ? took : once;
    }
    if (once * (double)n < 100e3)
        n = (long)(100e3 / (once > 1 ? once : 1)) + 1;
    int batches = 0;
    for (start = now_ns(); batches < MAX_BATCHES;) {
        double began = now_ns();
        run(n);
        double ended = now_ns();
        cost[batches++] = (ended - began) / (double)n;
        if (ended - start > budget_ns && batches >= 3)
            break;
    }
    qsort(cost, (size_t)batches, sizeof cost[0], compare);
    printf("%s\t%.1f\t%.1f\n", name, cost[batches / 2], cost[0]);
    fflush(stdout);
}

static int chosen(const char *name, const char *list)
{
    size_t length = strlen(name);
    if (!strcmp(list, "all"))
        return 1;
    for (const char *at = list; (at = strstr(at, name)); at += length)
        if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ','))
            return 1;
    return 0;
}

static int time_command(int times, char **command)
{
    double *cost = calloc((size_t)times, sizeof *cost);
    for (int i = 0; i < times; i++) {
        int status;
        double start = now_ns();
        pid_t pid = spawn(command);
        if (waitpid(pid, &status, 0) != pid || status) {
            fprintf(stderr, "%s: status %#x\n", command[0], status);
            return 1;
        }
        cost[i] = now_ns() - start;
    }
    qsort(cost, (size_t)times, sizeof *cost, compare);
    printf("%.0f %.0f\n", cost[times / 2], cost[0]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && !strcmp(argv[1], "time"))
        return time_command(atoi(argv[2]), argv + 3);
    if (argc == 2 && !strcmp(argv[1], "names"))
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            puts(cases[i].name);
    if (argc < 3)
        return 0;
    self = argv[0];
    null_fd = open("/dev/null", O_WRONLY);
    zero_fd = open("/dev/zero", O_RDONLY);
    epoll_fd = epoll_create1(0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (chosen(cases[i].name, argv[1]) && (cases[i].run != copy_range || has_copy_range()))
            measure(cases[i].name, cases[i].run, cases[i].least, atof(argv[2]) * 1e6);
    return 0;
}
