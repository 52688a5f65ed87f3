// Goes on with what a snapshot has to keep, in rounds, until /dev/shm/stop is there: says "kept" if
// all was as it should be, and else which line it was not.
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
#include <time.h>

#define CHECK(what) do { if (!(what)) { printf("line %d\n", __LINE__); fflush(stdout); _exit(1); } } while (0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static volatile int ticks;

static void *thread(void *unused) {
    for (;;) {
        pthread_mutex_lock(&lock);
        while (turn % 2 == 0)
            pthread_cond_wait(&changed, &lock);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void tick(int number) { (void)number; ticks++; }

static void post(int set, int number, int by) {
    struct sembuf op = {number, by, 0};
    while (semop(set, &op, 1) < 0)
        ;
}

static int connection(int domain, struct sockaddr *name, socklen_t size, int *listener) {
    *listener = socket(domain, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(*listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(!bind(*listener, name, size) && !listen(*listener, 5));
    int client = socket(domain, SOCK_STREAM, 0);
    CHECK(!connect(client, name, size));
    return client;
}

int main(void) {
    int segment = shmget(77, 8192, IPC_CREAT | 0600), set = semget(78, 2, IPC_CREAT | 0600);
    volatile int *shared = shmat(segment, NULL, 0);
    CHECK(segment >= 0 && set >= 0 && shared != (void *)-1);
    int down[2], up[2], pair[2];
    CHECK(!pipe(down) && !pipe(up) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    int *anonymous = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons(4321),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "\0kept"};
    int tcp_listener, unix_listener;
    int tcp = connection(AF_INET, (void *)&inet, sizeof inet, &tcp_listener);
    int unix_client = connection(AF_UNIX, (void *)&local, sizeof local, &unix_listener);
    int server = accept(tcp_listener, NULL, NULL);
    CHECK(write(unix_client, "waits", 5) == 5);
    int locked = open("/dev/shm/locked", O_CREAT | O_RDWR, 0600);
    CHECK(!flock(locked, LOCK_EX) && !lockf(locked, F_TLOCK, 10));
    int gone = open("/dev/shm/gone", O_CREAT | O_RDWR, 0600);
    CHECK(write(gone, "nameless", 8) == 8 && !unlink("/dev/shm/gone"));
    pid_t child = fork();
    if (!child) {
        for (int n;;) {
            post(set, 0, -1);
            CHECK(read(down[0], &n, sizeof n) == sizeof n);
            CHECK(getppid() == 1 && shared[0] == n && anonymous[0] == n);
            shared[1] = n;
            n++;
            CHECK(write(up[1], &n, sizeof n) == sizeof n);
            post(set, 1, 1);
        }
    }
    pid_t sleeper = fork();
    if (!sleeper) {
        setsid();
        pause();
        _exit(3);
    }
    pthread_t made;
    CHECK(!pthread_create(&made, NULL, thread, NULL));
    signal(SIGALRM, tick);
    struct timespec every = {0, 5000000};
    struct itimerspec spec = {every, every};
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_settime(timer, 0, &spec, NULL));
    int clock = timerfd_create(CLOCK_MONOTONIC, 0), poll = epoll_create1(0), count = eventfd(0, 0);
    CHECK(!timerfd_settime(clock, 0, &spec, NULL));
    struct epoll_event on = {.events = EPOLLIN, .data.fd = clock};
    CHECK(!epoll_ctl(poll, EPOLL_CTL_ADD, clock, &on));
    for (int round = 1;; round++) {
        shared[0] = anonymous[0] = round;
        int n = round;
        CHECK(write(down[1], &n, sizeof n) == sizeof n);
        post(set, 0, 1);
        post(set, 1, -1);
        ssize_t got;
        while ((got = read(up[0], &n, sizeof n)) < 0)
            ;
        CHECK(got == sizeof n && n == round + 1 && shared[1] == round);
        char text[8];
        CHECK(write(pair[0], "x", 1) == 1 && read(pair[1], text, 8) == 1);
        CHECK(write(tcp, "hello", 5) == 5 && recv(server, text, 5, MSG_WAITALL) == 5);
        pthread_mutex_lock(&lock);
        turn++;
        pthread_cond_broadcast(&changed);
        while (turn % 2)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        struct epoll_event found;
        while (epoll_wait(poll, &found, 1, -1) < 0)
            ;
        unsigned long long times, one = 1;
        while (read(clock, &times, 8) < 0)
            ;
        CHECK(found.data.fd == clock && times > 0 && write(count, &one, 8) == 8);
        if (round % 10 == 0) {
            printf("%d\n", round);
            fflush(stdout);
        }
        if (access("/dev/shm/stop", F_OK))
            continue;
        unsigned long long rounds;
        CHECK(read(count, &rounds, 8) == 8 && (int)rounds == round && ticks > 0);
        int late = accept(unix_listener, NULL, NULL);
        CHECK(late >= 0 && read(late, text, 8) == 5 && !memcmp(text, "waits", 5));
        CHECK(pread(gone, text, 8, 0) == 8 && !memcmp(text, "nameless", 8));
        CHECK(getpid() == 1 && child == 2 && sleeper == 3 && getsid(sleeper) == sleeper);
        int other = open("/dev/shm/locked", O_RDWR), status;
        CHECK(flock(other, LOCK_EX | LOCK_NB) < 0);
        CHECK(!kill(sleeper, SIGKILL) && waitpid(sleeper, &status, 0) == sleeper);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct shmid_ds about;
        CHECK(!shmctl(segment, IPC_STAT, &about) && about.shm_cpid == 1 && about.shm_nattch == 2);
        puts("kept");
        return 0;
    }
}
