/* Takes as much of one thing as it can get.
 *
 * The first process reads a word a line, the name of an attack, and lets a child carry it out. The
 * child says how many it got and the errno that ended it, and keeps them. At the next line it is
 * killed with all that it made, and the first process says "over". */
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
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <netinet/in.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <time.h>
#include <unistd.h>

static char page[1 << 16];
static long count;

/* Descriptors of one process are not enough: when they are used up, a child goes on. */
static int fd_limit(int result)
{
    if (result < 0 && errno == EMFILE) {
        pid_t pid = fork();
        if (pid < 0)
            return -1;
        if (pid)
            for (;;)
                pause();
        syscall(SYS_close_range, 3, ~0u, 0);
        return 0;
    }
    return result;
}

static int forks(void)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    return pid < 0 ? -1 : 1;
}

static int zombies(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid < 0 ? -1 : 1;
}

static int sessions(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        for (;;)
            pause();
    }
    return pid < 0 ? -1 : 1;
}

static int sleeper(void *unused)
{
    (void)unused;
    for (;;)
        pause();
}

static int threads(void)
{
    static char *stacks;
    if (!stacks)
        stacks = mmap(NULL, 1ul << 30, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return clone(sleeper, stacks + 4096 * (count % 200000 + 1), CLONE_VM | CLONE_FS | CLONE_FILES |
                 CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL) < 0 ? -1 : 1;
}

static int files(void) { return fd_limit(open("/dev/null", O_RDONLY)) < 0 ? -1 : 1; }
static int pipes(void) { int p[2]; return fd_limit(pipe(p)) < 0 ? -1 : 1; }
static int eventfds(void) { return fd_limit(eventfd(0, 0)) < 0 ? -1 : 1; }
static int timerfds(void) { return fd_limit(timerfd_create(CLOCK_MONOTONIC, 0)) < 0 ? -1 : 1; }
static int memfds(void) { return fd_limit(memfd_create("x", 0)) < 0 ? -1 : 1; }
static int sockets(void) { return fd_limit(socket(AF_INET, SOCK_STREAM, 0)) < 0 ? -1 : 1; }
static int netlinks(void) { return fd_limit(socket(AF_NETLINK, SOCK_RAW, 0)) < 0 ? -1 : 1; }
static int inotifies(void) { return fd_limit(inotify_init()) < 0 ? -1 : 1; }

static int pipe_bytes(void)
{
    int p[2];
    if (fd_limit(pipe2(p, O_NONBLOCK)) < 0)
        return -1;
    fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
    while (write(p[1], page, sizeof page) > 0)
        ;
    return errno == EAGAIN ? 1 : -1;
}

static int unix_bytes(void)
{
    int p[2];
    if (fd_limit(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p)) < 0)
        return -1;
    int size = 4 << 20;
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    while (write(p[0], page, sizeof page) > 0)
        ;
    return errno == EAGAIN ? 1 : -1;
}

static int datagrams(void)
{
    int p[2];
    if (fd_limit(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p)) < 0)
        return -1;
    int size = 4 << 20;
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    while (write(p[0], page, 1) > 0)
        ;
    return errno == EAGAIN ? 1 : -1;
}

static int in_flight(void)
{
    static int p[2] = {-1, -1};
    if (p[0] < 0 || send(p[0], "", 0, MSG_DONTWAIT) < 0)
        if (fd_limit(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, p)) < 0)
            return -1;
    char control[CMSG_SPACE(sizeof(int) * 100)] = {0};
    struct iovec iov = {page, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * 100);
    for (int i = 0; i < 100; i++)
        ((int *)CMSG_DATA(part))[i] = p[1];
    if (sendmsg(p[0], &message, 0) > 0)
        return 100;
    if (errno != EAGAIN)
        return -1;
    p[0] = -1;
    return 0;
}

static int epoll_items(void)
{
    static int poller = -1, target = -1;
    struct epoll_event event = {.events = EPOLLIN};
    if (poller < 0)
        poller = epoll_create1(0);
    if (fd_limit(target = eventfd(0, 0)) < 0)
        return -1;
    if (target == 0) {
        poller = epoll_create1(0);
        return 0;
    }
    if (count % 50 == 0)
        poller = epoll_create1(0);
    for (int fd = target; fd > 2; fd--)
        if (!epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
            return 1;
        else if (errno != EEXIST && errno != EPERM && errno != EINVAL && errno != ELOOP)
            return -1;
    return 0;
}

static int watches(void)
{
    static int fd = -1;
    char name[40];
    snprintf(name, sizeof name, "/tmp/%ld", count);
    if (fd < 0)
        fd = inotify_init();
    int made = open(name, O_CREAT | O_WRONLY, 0600);
    if (made < 0)
        return -1;
    close(made);
    return inotify_add_watch(fd, name, IN_ALL_EVENTS) < 0 ? -1 : 1;
}

static int timers(void)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    return timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 ? -1 : 1;
}

static int queued_signals(void)
{
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    union sigval value = {.sival_int = 1};
    return sigqueue(getpid(), SIGRTMIN, value) < 0 ? -1 : 1;
}

static int inodes(void)
{
    char name[40];
    snprintf(name, sizeof name, "/tmp/%ld", count);
    return mknod(name, S_IFREG | 0600, 0) < 0 ? -1 : 1;
}

static int deep_folders(void)
{
    if (count == 0)
        (void)!chdir("/tmp");
    if (mkdir("d", 0700) < 0)
        return -1;
    return chdir("d") < 0 ? -1 : 1;
}

static int root_files(void)
{
    char name[40];
    snprintf(name, sizeof name, "/root/%ld", count);
    return mknod(name, S_IFREG | 0600, 0) < 0 ? -1 : 1;
}

static int xattrs(void)
{
    char name[40];
    snprintf(name, sizeof name, "/tmp/%ld", count);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    if (fd < 0)
        return -1;
    close(fd);
    return setxattr(name, "trusted.x", page, 60000, 0) < 0 ? -1 : 1;
}

static int locks(void)
{
    static int fd = -1;
    if (fd < 0)
        fd = open("/tmp/locks", O_CREAT | O_RDWR, 0600);
    struct flock range = {.l_type = F_WRLCK, .l_start = count * 2, .l_len = 1};
    return fcntl(fd, F_SETLK, &range) < 0 ? -1 : 1;
}

static int mounts(void) { return mount("tmpfs", "/mnt", "tmpfs", 0, NULL) < 0 ? -1 : 1; }

static int mappings(void)
{
    static char *at;
    if (!at)
        at = mmap(NULL, 1ul << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!mprotect(at + 8192 * (count % 32700 + 1), 4096, PROT_READ))
        return 1;
    if (errno != ENOMEM || count % 32700 < 30000)
        return -1;
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid)
        for (;;)
            pause();
    at = NULL;
    return 32700 - (int)(count % 32700);
}

static int messages(void)
{
    struct { long type; char text[8000]; } message = {1, ""};
    static int queue = -1;
    if (queue < 0 && (queue = msgget(IPC_PRIVATE, 0600)) < 0)
        return -1;
    if (!msgsnd(queue, &message, 8000, IPC_NOWAIT))
        return 1;
    if (errno != EAGAIN)
        return -1;
    queue = -1;
    return 0;
}

static int semaphores(void) { return semget(IPC_PRIVATE, 250, 0600) < 0 ? -1 : 1; }
static int segments(void) { return shmget(IPC_PRIVATE, 4096, 0600) < 0 ? -1 : 1; }

static int keys(void)
{
    char name[40];
    snprintf(name, sizeof name, "key%ld", count);
    return syscall(SYS_add_key, "user", name, page, 100, -1) < 0 ? -1 : 1;
}

static int aio(void)
{
    aio_context_t context = 0;
    return syscall(SYS_io_setup, 100, &context) < 0 ? -1 : 1;
}

static int filters(void)
{
    static struct sock_filter program[4000];
    struct sock_fprog filter = {4000, program};
    for (int i = 0; i < 4000; i++)
        program[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, 0);
    program[3999] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0 ? -1 : 1;
}

static int namespaces(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET))
            _exit(0);
        for (;;)
            pause();
    }
    return pid < 0 ? -1 : 1;
}

static int big_descriptors(void)
{
    struct rlimit limit = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &limit);
    if (count == 0 && dup2(0, (1 << 20) - 1) < 0)
        return -1;
    return forks();
}

static int terminals(void) { return fd_limit(open("/dev/ptmx", O_RDWR | O_NOCTTY)) < 0 ? -1 : 1; }

static int touched(char *at, size_t size, size_t step)
{
    if (at == MAP_FAILED)
        return -1;
    for (size_t i = 0; i < size; i += step)
        at[i] = 1;
    return 1;
}

static int anonymous(void)
{
    return touched(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                   1 << 20, 4096);
}

/* It is the kernel that touches them first. */
static int filled_buffers(void)
{
    static int fd;
    if (fd <= 0)
        fd = open("/dev/zero", O_RDONLY);
    char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED || read(fd, at, 1 << 20) < 0 ? -1 : 1;
}

/* One page of each 2 MiB: as much page table as memory. */
static int page_tables(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return touched(mmap(NULL, 1 << 30, PROT_READ | PROT_WRITE, flags, -1, 0), 1 << 30, 2 << 20);
}

static int shared(void)
{
    return touched(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
                   1 << 20, 4096);
}

static int append(int *fd, const char *path)
{
    if (*fd <= 0)
        *fd = path ? open(path, O_CREAT | O_WRONLY, 0600) : memfd_create("bytes", 0);
    return *fd < 0 || write(*fd, page, sizeof page) < 0 ? -1 : 1;
}

static int tmpfs_bytes(void)
{
    static int fd;
    return append(&fd, "/tmp/bytes");
}

static int root_bytes(void)
{
    static int fd;
    return append(&fd, "/bytes");
}

static int memfd_bytes(void)
{
    static int fd;
    return append(&fd, NULL);
}

/* Nobody maps or attaches what is in them any more. */
static int segment_bytes(void)
{
    int id = shmget(IPC_PRIVATE, 1 << 20, 0600);
    char *at = id < 0 ? MAP_FAILED : shmat(id, NULL, 0);
    int result = touched(at, 1 << 20, 4096);
    if (result > 0)
        shmdt(at);
    return result;
}

static const struct { const char *name; int (*one)(void); } attacks[] = {
#define A(name) {#name, name}
    A(forks), A(zombies), A(sessions), A(threads), A(files), A(pipes), A(eventfds), A(timerfds),
    A(memfds), A(sockets), A(netlinks), A(inotifies), A(pipe_bytes), A(unix_bytes), A(datagrams),
    A(in_flight), A(epoll_items), A(watches), A(timers), A(queued_signals), A(inodes),
    A(deep_folders), A(root_files), A(xattrs), A(locks), A(mounts), A(mappings), A(messages),
    A(semaphores), A(segments), A(keys), A(aio), A(filters), A(namespaces), A(big_descriptors),
    A(terminals), A(anonymous), A(page_tables), A(shared), A(tmpfs_bytes), A(root_bytes),
    A(memfd_bytes), A(segment_bytes), A(filled_buffers),
};

static void attack(const char *name)
{
    struct rlimit many = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &many);
    setpgid(0, 0);
    for (unsigned i = 0; i < sizeof attacks / sizeof *attacks; i++)
        if (!strcmp(attacks[i].name, name))
            for (;;) {
                int got = attacks[i].one();
                if (got < 0 || count > 2000000) {
                    printf("%s %ld %s\n", name, count, got < 0 ? strerrorname_np(errno) : "0");
                    fflush(stdout);
                    for (;;)
                        pause();
                }
                count += got;
            }
    printf("%s?\n", name);
    fflush(stdout);
}

/* What the child says, or that it was killed. */
static void relay(pid_t pid, int report)
{
    char said[128];
    struct pollfd p = {report, POLLIN, 0};
    while (poll(&p, 1, 20) <= 0)
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            printf("killed\n");
            fflush(stdout);
            return;
        }
    ssize_t n = read(report, said, sizeof said);
    (void)!write(1, said, n > 0 ? (size_t)n : 0);
}

int main(void)
{
    char line[64], end[64];
    int report[2];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (pipe(report))
            return 1;
        pid_t pid = fork();
        if (pid == 0) {
            dup2(report[1], 1);
            attack(line);
            _exit(0);
        }
        relay(pid, report[0]);
        close(report[0]);
        close(report[1]);
        if (!fgets(end, sizeof end, stdin))
            break;
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, __WALL) > 0)
            kill(-1, SIGKILL);
        printf("over\n");
        fflush(stdout);
    }
    return 0;
}
