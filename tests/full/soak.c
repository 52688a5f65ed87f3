/* Work of every kind, mixed by a seed, in a tree of processes: for leaks and races of the Sentry.
 *
 *     soak SECONDS SEED WORKERS
 *
 * It waits for a line of its standard input before it works and before it ends, so that whoever
 * watches can count what there is. What it does must succeed or fail as on Linux; it ends with 1
 * and a message where it does not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;
static char folder[64];

static unsigned chance(unsigned n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 11) % n;
}

static void fail(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    _exit(1);
}

#define MUST(what) do { if (!(what)) fail("%s:%d %s", __FILE__, __LINE__, #what); } while (0)

static void join(pid_t pid, int expected)
{
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    if (status != expected)
        fail("child ended with %#x, not %#x", status, expected);
}

static void forks(void)
{
    pid_t pids[8];
    unsigned n = 1 + chance(8);
    for (unsigned i = 0; i < n; i++) {
        pids[i] = fork();
        MUST(pids[i] >= 0);
        if (!pids[i]) {
            char *memory = malloc(1 << 16);
            memset(memory, (int)i, 1 << 16);
            _exit(memory[77] == (char)i ? (int)i : 99);
        }
    }
    for (unsigned i = 0; i < n; i++)
        join(pids[i], (int)i << 8);
}

static void executes(void)
{
    pid_t pid = chance(2) ? vfork() : fork();
    MUST(pid >= 0);
    if (!pid) {
        execl("/proc/self/exe", "soak", "leaf", NULL);
        _exit(98);
    }
    join(pid, 7 << 8);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int shared_count;

static void *thread(void *argument)
{
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&lock);
        shared_count++;
        if (i % 16 == 0)
            sched_yield();
        pthread_mutex_unlock(&lock);
    }
    return argument;
}

static void threads(void)
{
    pthread_t made[6];
    unsigned n = 1 + chance(6);
    shared_count = 0;
    for (unsigned i = 0; i < n; i++)
        MUST(!pthread_create(&made[i], NULL, thread, NULL));
    for (unsigned i = 0; i < n; i++)
        MUST(!pthread_join(made[i], NULL));
    MUST(shared_count == (int)n * 50);
}

static void *spin(void *argument)
{
    for (;;)
        ((volatile char *)argument)[0]++;
    return NULL;
}

static void exit_with_threads(void)
{
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        static char word[8];
        pthread_t t;
        for (int i = 0; i < 3; i++)
            pthread_create(&t, NULL, spin, word);
        if (chance(2))
            execl("/proc/self/exe", "soak", "leaf", NULL);
        _exit(7);
    }
    join(pid, 7 << 8);
}

static volatile sig_atomic_t caught;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    caught++;
}

static void signals(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    caught = 0;
    for (int i = 0; i < 5; i++)
        MUST(!kill(getpid(), SIGUSR1));
    MUST(caught == 5);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        if (chance(2))
            for (;;)
                pause();
        for (;;)
            getppid();
    }
    for (unsigned i = chance(5); i; i--)
        kill(pid, SIGUSR1);
    if (chance(3) == 0) {
        int status;
        MUST(!kill(pid, SIGSTOP));
        MUST(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
        kill(pid, SIGCONT);
    }
    int last = chance(2) ? SIGKILL : SIGTERM;
    MUST(!kill(pid, last));
    join(pid, last);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec when = {.it_value = {0, 1000 + chance(100000)}};
    MUST(!timer_create(CLOCK_MONOTONIC, &event, &timer));
    timer_settime(timer, 0, &when, NULL);
    if (chance(2))
        poll(NULL, 0, (int)chance(3));
    timer_delete(timer);
}

static void memory(void)
{
    size_t size = (1 + chance(64)) << 14;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(at != MAP_FAILED);
    memset(at, 1, size);
    MUST(!mprotect(at + 4096, 4096, PROT_READ));
    MUST(!madvise(at, 4096, MADV_DONTNEED) && at[0] == 0);
    if (chance(2)) {
        char *moved = mremap(at, size, size * 2, MREMAP_MAYMOVE);
        /* not one mapping any more: EFAULT, as on Linux */
        MUST(moved == MAP_FAILED && errno == EFAULT);
    }
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        memset(at + 8192, 2, size - 8192);
        if (chance(2))
            at[4097] = 1; /* SIGSEGV */
        _exit(0);
    }
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    MUST(at[8192] == 1 && !munmap(at, size));
}

static void shares(void)
{
    int fd = memfd_create("soak", MFD_CLOEXEC);
    MUST(fd >= 0 && !ftruncate(fd, 1 << 16));
    char *at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(at != MAP_FAILED);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        at[12345] = 42;
        _exit(0);
    }
    join(pid, 0);
    MUST(at[12345] == 42);
    munmap(at, 1 << 16);
    close(fd);
    int id = shmget(IPC_PRIVATE, 1 << 15, 0600);
    MUST(id >= 0);
    at = shmat(id, NULL, 0);
    MUST(at != (void *)-1 && !shmctl(id, IPC_RMID, NULL));
    at[100] = 1;
    MUST(!shmdt(at));
}

static void files(void)
{
    char name[100], other[128], buffer[5000];
    snprintf(name, sizeof name, "%s/%d.%u", folder, getpid(), chance(10));
    snprintf(other, sizeof other, "%s.other", name);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    MUST(fd >= 0);
    memset(buffer, 'x', sizeof buffer);
    MUST(write(fd, buffer, sizeof buffer) == sizeof buffer);
    MUST(pread(fd, buffer, 100, 4950) == 50);
    struct stat status;
    MUST(!fstat(fd, &status) && status.st_size == 5000);
    MUST(!rename(name, other));
    if (chance(2)) {
        char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        MUST(at != MAP_FAILED && at[10] == 'x');
        at[4999] = 'y';
        munmap(at, 8192);
        MUST(pread(fd, buffer, 1, 4999) == 1 && buffer[0] == 'y');
    }
    struct flock range = {.l_type = F_WRLCK, .l_len = 10};
    MUST(!fcntl(fd, F_SETLK, &range) && !flock(fd, LOCK_EX));
    if (chance(2))
        MUST(!unlink(other));
    close(fd);
    unlink(other);
    snprintf(name, sizeof name, "%s/d%d", folder, getpid());
    MUST(!mkdir(name, 0755));
    snprintf(other, sizeof other, "%s/link", name);
    MUST(!symlink("nowhere", other) && readlink(other, buffer, 10) == 7);
    int watch = inotify_init1(IN_CLOEXEC);
    MUST(watch >= 0 && inotify_add_watch(watch, name, IN_ALL_EVENTS) > 0);
    MUST(!unlink(other) && !rmdir(name) && read(watch, buffer, sizeof buffer) > 0);
    close(watch);
    fd = open("/usr/bin/env", O_RDONLY);
    if (fd < 0)
        fd = open("/bin/busybox", O_RDONLY);
    MUST(fd >= 0 && read(fd, buffer, 4096) == 4096 && !memcmp(buffer, "\177ELF", 4));
    close(fd);
    fd = open("/proc/self/stat", O_RDONLY);
    MUST(fd >= 0 && read(fd, buffer, 4096) > 10);
    close(fd);
}

static void pipes(void)
{
    int ends[2];
    char buffer[70000];
    MUST(!pipe2(ends, O_CLOEXEC));
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        close(ends[0]);
        memset(buffer, 'p', sizeof buffer);
        _exit(write(ends[1], buffer, sizeof buffer) == sizeof buffer ? 0 : 1);
    }
    close(ends[1]);
    ssize_t total = 0, got;
    while ((got = read(ends[0], buffer, 1 + chance(sizeof buffer))) > 0)
        total += got;
    MUST(total == sizeof buffer);
    close(ends[0]);
    join(pid, 0);
}

static void unix_sockets(void)
{
    int pair[2], passed[2];
    char byte = 'b', control[CMSG_SPACE(sizeof passed)] = {0};
    MUST(!socketpair(AF_UNIX, chance(2) ? SOCK_STREAM : SOCK_SEQPACKET, 0, pair));
    MUST(!pipe(passed));
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(part), passed, sizeof passed);
    MUST(sendmsg(pair[0], &message, 0) == 1);
    if (chance(2)) {
        MUST(recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) == 1);
        memcpy(passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
        close(passed[0]);
        close(passed[1]);
        memcpy(passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
    }
    close(pair[0]);
    close(pair[1]);
    for (int fd = 4; fd < 24; fd++)
        close(fd);
}

static void tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char buffer[40000];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(listener >= 0 && !bind(listener, (struct sockaddr *)&address, sizeof address));
    MUST(!listen(listener, 5) && !getsockname(listener, (struct sockaddr *)&address, &length));
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
            _exit(1);
        memset(buffer, 't', sizeof buffer);
        if (write(fd, buffer, sizeof buffer) != sizeof buffer)
            _exit(2);
        if (chance(2))
            shutdown(fd, SHUT_WR);
        _exit(0);
    }
    int fd = accept(listener, NULL, NULL);
    MUST(fd >= 0);
    close(listener);
    ssize_t total = 0, got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        total += got;
    MUST(got == 0 && total == sizeof buffer);
    close(fd);
    join(pid, 0);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    MUST(fd >= 0);
    address.sin_port = 0;
    MUST(!bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(!getsockname(fd, (struct sockaddr *)&address, &length));
    MUST(sendto(fd, "u", 1, 0, (struct sockaddr *)&address, sizeof address) == 1);
    MUST(recv(fd, buffer, 10, 0) == 1);
    close(fd);
}

static void events(void)
{
    int poller = epoll_create1(EPOLL_CLOEXEC), counter = eventfd(0, EFD_CLOEXEC);
    int clock = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | (chance(2) ? EPOLLET : 0)};
    struct itimerspec when = {.it_value = {0, 100000}};
    uint64_t one = 1;
    MUST(poller >= 0 && counter >= 0 && clock >= 0);
    MUST(!epoll_ctl(poller, EPOLL_CTL_ADD, counter, &event));
    MUST(!epoll_ctl(poller, EPOLL_CTL_ADD, clock, &event));
    MUST(!timerfd_settime(clock, 0, &when, NULL));
    MUST(epoll_wait(poller, &event, 1, 10000) == 1);
    MUST(write(counter, &one, 8) == 8 && epoll_wait(poller, &event, 1, 0) == 1);
    if (chance(2))
        close(poller);
    close(clock);
    close(counter);
    close(poller);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    struct signalfd_siginfo info;
    MUST(fd >= 0 && !kill(getpid(), SIGUSR2) && read(fd, &info, sizeof info) == sizeof info);
    close(fd);
}

static void system_v(void)
{
    struct { long type; char text[100]; } message = {1, "hello"};
    int queue = msgget(IPC_PRIVATE, 0600), set = semget(IPC_PRIVATE, 2, 0600);
    struct sembuf up = {0, 1, SEM_UNDO}, down = {0, -1, SEM_UNDO};
    MUST(queue >= 0 && set >= 0);
    MUST(!msgsnd(queue, &message, 100, 0) && msgrcv(queue, &message, 100, 1, 0) == 100);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        semop(set, &down, 1);
        for (;;)
            pause();
    }
    MUST(!semop(set, &up, 1));
    kill(pid, SIGKILL);
    join(pid, SIGKILL);
    MUST(!msgctl(queue, IPC_RMID, NULL) && !semctl(set, 0, IPC_RMID));
}

static void orphans(void)
{
    pid_t pid = fork();
    MUST(pid >= 0);
    if (!pid) {
        setsid();
        if (!fork()) {
            usleep(chance(3000));
            _exit(0);
        }
        _exit(0);
    }
    join(pid, 0);
}

static void (*const work[])(void) = {
    forks, executes, threads, exit_with_threads, signals, memory, shares, files, pipes,
    unix_sockets, tcp, events, system_v, orphans,
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void worker(unsigned number, uint64_t seed, double end)
{
    state = seed * 0x9e3779b97f4a7c15u + number * 0xbf58476d1ce4e5b9u + 1;
    unsigned long rounds = 0;
    while (now() < end) {
        unsigned which = chance(sizeof work / sizeof *work);
        pid_t pid = fork(); /* so that nothing of it stays */
        MUST(pid >= 0);
        if (!pid) {
            alarm(60);
            work[which]();
            _exit(0);
        }
        int status;
        MUST(waitpid(pid, &status, 0) == pid);
        if (status) {
            fprintf(stderr, "work %u ended with %#x\n", which, status);
            _exit(1);
        }
        chance(2);
        rounds++;
    }
    printf("%lu rounds\n", rounds);
    exit(0);
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc == 2 && !strcmp(argv[1], "leaf"))
        return 7;
    if (argc != 4)
        return 2;
    double seconds = atof(argv[1]);
    uint64_t seed = strtoull(argv[2], NULL, 0);
    unsigned workers = (unsigned)atoi(argv[3]);
    int good = 1;
    snprintf(folder, sizeof folder, "/tmp/soak.%d", getpid());
    MUST(!mkdir(folder, 0755));
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        for (unsigned i = 0; i < workers; i++) {
            pid_t pid = fork();
            MUST(pid >= 0);
            if (!pid)
                worker(i, seed++, now() + seconds);
            seed += workers;
        }
        int status;
        while (wait(&status) > 0) /* also those that lost their parents, as the first process */
            good &= !status || WIFSIGNALED(status);
        printf(good ? "done\n" : "failed\n");
        fflush(stdout);
    }
    rmdir(folder);
    return !good;
}
