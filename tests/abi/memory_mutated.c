/* What a call points to, changed by another thread all the time: each call sees one value or the
 * other, whole, and what it does fits what it says. The memory is shared, so that what children
 * exec and send changes as well. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS 1000

/* CHECK with the errno of the call before it, as `error`. */
#define SEEN(cond)                                                                              \
    do {                                                                                        \
        int error = errno;                                                                      \
        (void)error;                                                                            \
        CHECK(cond);                                                                            \
    } while (0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { volatile uint64_t *word; uint64_t a, b; } turning;
static char *shared;

/* Two values in turns, in whatever word is named. */
static void *turn(void *unused)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        for (int i = 0; turning.word && i < 2000; i++) {
            *turning.word = turning.a;
            *turning.word = turning.b;
        }
        pthread_mutex_unlock(&lock);
        sched_yield();
    }
    return NULL;
}

static void begin(volatile void *word, uint64_t a, uint64_t b)
{
    pthread_mutex_lock(&lock);
    *(volatile uint64_t *)word = turning.a = a;
    turning.b = b;
    turning.word = word;
    pthread_mutex_unlock(&lock);
}

static void end(void)
{
    pthread_mutex_lock(&lock);
    turning.word = NULL;
    pthread_mutex_unlock(&lock);
}

static void bytes(void)
{
    int pair[2];
    char got[4096];
    struct iovec *iov = (void *)shared;
    CHECK(pipe2(pair, O_NONBLOCK) == 0);
    iov[0] = (struct iovec){shared + 4096, 8};
    begin(&iov[0].iov_len, 8, 64);
    for (int i = 0; i < TURNS; i++) {
        ssize_t n = writev(pair[1], iov, 1);
        CHECK(n == 8 || n == 64);
        CHECK(read(pair[0], got, sizeof got) == n);
    }
    begin(&iov[0].iov_base, (uint64_t)shared + 4096, 1ull << 63);
    iov[0].iov_len = 8;
    for (int i = 0; i < TURNS; i++) {
        ssize_t n = writev(pair[1], iov, 1);
        SEEN(n == 8 || (n == -1 && error == EFAULT));
        CHECK(read(pair[0], got, sizeof got) == n);
    }
    /* The length is taken before the check of its end: an iovec cannot grow past it. */
    end();
    iov[0].iov_base = shared + 4096;
    begin(&iov[0].iov_len, 16, -1ull);
    for (int i = 0; i < TURNS; i++) {
        ssize_t n = writev(pair[1], iov, 1);
        SEEN(n == 16 || (n == -1 && error == EINVAL));
        CHECK(read(pair[0], got, sizeof got) == n);
    }
    end();
    close(pair[0]);
    close(pair[1]);
}

static uint64_t word_of(const char *text)
{
    uint64_t word = 0;
    memcpy(&word, text, strlen(text));
    return word;
}

static void paths(void)
{
    int one = open("one", O_CREAT | O_RDWR, 0600), two = open("two", O_CREAT | O_RDWR, 0600);
    struct stat a, b, found;
    char text[64], name[256];
    CHECK(fstat(one, &a) == 0 && fstat(two, &b) == 0);
    begin(shared, word_of("one"), word_of("two"));
    for (int i = 0; i < TURNS; i++) {
        int fd = open(shared, O_RDONLY);
        CHECK(fd >= 0 && fstat(fd, &found) == 0);
        CHECK(found.st_ino == a.st_ino || found.st_ino == b.st_ino);
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(text, name, sizeof name);
        CHECK(n > 4 && !memcmp(name + n - 4, found.st_ino == a.st_ino ? "/one" : "/two", 4));
        close(fd);
    }
    /* The walk is held by the bits of the one moment in which they were read. */
    struct open_how *how = (void *)shared;
    end();
    memset(how, 0, sizeof *how);
    how->flags = O_PATH;
    begin(&how->resolve, RESOLVE_BENEATH, 0);
    for (int i = 0; i < TURNS; i++) {
        int fd = syscall(SYS_openat2, AT_FDCWD, "..", how, sizeof *how);
        SEEN(fd >= 0 || error == EXDEV);
        close(fd);
    }
    end();
    close(one);
    close(two);
}

static void messages(void)
{
    int pair[2], given = open("/dev/null", O_RDONLY);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0);
    struct msghdr *out = (void *)shared;
    struct cmsghdr *control = (void *)(shared + 512);
    struct iovec *iov = (void *)(shared + 1024);
    static const uint64_t lengths[] = {0, 15, 24, 4096, 0xffffffff, -1ull};
    for (unsigned k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        *iov = (struct iovec){shared + 2048, 4};
        *out = (struct msghdr){.msg_iov = iov, .msg_iovlen = 1, .msg_control = control,
                               .msg_controllen = CMSG_SPACE(4)};
        *control = (struct cmsghdr){CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(control), &given, 4);
        begin(&control->cmsg_len, CMSG_LEN(4), lengths[k]);
        for (int i = 0; i < TURNS / 4; i++) {
            ssize_t n = sendmsg(pair[0], out, 0);
            SEEN(n == 4 || (n == -1 && (error == EINVAL || error == EBADF)));
            char data[8], room[64];
            struct iovec to = {data, 8};
            struct msghdr in = {.msg_iov = &to, .msg_iovlen = 1, .msg_control = room,
                                .msg_controllen = sizeof room};
            CHECK(recvmsg(pair[1], &in, 0) == n);
            struct cmsghdr *first = n == 4 ? CMSG_FIRSTHDR(&in) : NULL;
            for (unsigned at = 0; first && CMSG_LEN(at + 4) <= first->cmsg_len; at += 4) {
                int fd;
                memcpy(&fd, CMSG_DATA(first) + at, 4);
                CHECK(close(fd) == 0);
            }
        }
        end();
    }
    close(pair[0]);
    close(pair[1]);

    int queue = msgget(IPC_PRIVATE, 0600);
    struct { long type; char text[8]; } *message = (void *)shared, got;
    CHECK(queue >= 0);
    begin(&message->type, 7, 0);
    for (int i = 0; i < TURNS; i++) {
        int sent = msgsnd(queue, message, 8, IPC_NOWAIT);
        SEEN(sent == 0 || error == EINVAL);
        CHECK(msgrcv(queue, &got, 8, 0, IPC_NOWAIT) == (sent ? -1 : 8));
        CHECK(sent || got.type == 7);
    }
    end();
    CHECK(msgctl(queue, IPC_RMID, NULL) == 0);
    close(given);
}

/* Nobody's si_code says that the kernel or kill(2) had sent a signal of another process. */
static void signals(void)
{
    siginfo_t *info = (void *)shared, got;
    info->si_signo = SIGRTMIN;
    begin(&info->si_code, (uint32_t)SI_QUEUE, SI_KERNEL);
    pid_t parent = getpid(), child = fork();
    if (!child) {
        int seen = 0; /* both values: the other thread has had its turns */
        for (int i = 0; i < TURNS || (seen != 3 && i < 100 * TURNS); i++) {
            int failed = syscall(SYS_rt_sigqueueinfo, parent, SIGRTMIN, info);
            SEEN(!failed || error == EPERM || error == EAGAIN);
            seen |= failed ? 1 : 2;
        }
        _exit(0);
    }
    struct timespec moment = {0, 1000000}, now = {0, 0};
    sigset_t set;
    int status;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    while (!waitpid(child, &status, WNOHANG))
        if (sigtimedwait(&set, &got, &moment) > 0)
            CHECK(got.si_code == SI_QUEUE);
    CHECK(status == 0);
    end();
    while (sigtimedwait(&set, &got, &now) > 0)
        CHECK(got.si_code == SI_QUEUE);
}

static void structs(void)
{
    struct { uint32_t size, policy; uint64_t rest[13]; } *attr = (void *)shared;
    memset(attr, 0, sizeof *attr);
    begin(attr, 48, 1ull << 31);
    for (int i = 0; i < TURNS; i++) {
        int failed = syscall(SYS_sched_setattr, 0, attr, 0);
        SEEN(!failed || error == E2BIG);
    }
    end();
    struct sock_fprog *program = (void *)shared;
    struct sock_filter *code = (void *)(shared + 512);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    *code = (struct sock_filter){BPF_RET | BPF_K, 0, 0, 0};
    program->filter = code;
    begin(program, 1, 0);
    for (int i = 0; i < TURNS; i++) {
        int failed = setsockopt(sock, SOL_SOCKET, SO_ATTACH_FILTER, program, sizeof *program);
        SEEN(!failed || error == EINVAL);
    }
    end();
    close(sock);
    struct pollfd *polled = (void *)shared;
    struct timespec *time = (void *)(shared + 512);
    *time = (struct timespec){0, 0};
    begin(&time->tv_nsec, 0, 1000000000);
    for (int i = 0; i < TURNS; i++) {
        int n = syscall(SYS_ppoll, polled, 0, time, NULL, 8);
        SEEN(n == 0 || error == EINVAL);
    }
    end();
}

/* The strings of a program: counted and copied. If the zero that was counted is gone when it is
 * copied, Linux lets the last one run on into the name of the file, which lies behind it. */
#define LONGEST (30008 + sizeof "/proc/self/exe")

static void arguments(void)
{
    char **argv = (void *)shared;
    strcpy(shared + 512, "self");
    strcpy(shared + 600, "check");
    memset(shared + 4096, 'x', 60000);
    shared[4096 + 60000] = 0;
    for (int i = 0; i < 20; i++) {
        argv[0] = shared + 512;
        argv[1] = shared + 600;
        argv[2] = shared + 4096;
        argv[3] = NULL;
        pid_t child = fork();
        if (!child) {
            execve("/proc/self/exe", argv, (char *[]){NULL});
            _exit(errno == EFAULT ? 0 : 1);
        }
        begin(&argv[2], (uint64_t)shared + 4096, i & 1 ? 0 : 1ull << 63);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        end();
        child = fork();
        argv[2] = shared + 4096;
        if (!child) {
            execve("/proc/self/exe", argv, (char *[]){NULL});
            _exit(1);
        }
        begin(shared + 4096 + 30000, word_of("x"), word_of("xxxxxxxx"));
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        end();
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "check")) {
        size_t size = argc == 3 ? strlen(argv[2]) : 0;
        return argc > 3 || (size && size != 60000 && (size < 30000 || size > LONGEST));
    }
    pthread_t thread;
    shared = mmap(NULL, 1 << 17, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, turn, NULL) == 0);
    bytes();
    paths();
    messages();
    signals();
    structs();
    arguments();
    return 0;
}
