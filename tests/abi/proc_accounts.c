/* What /proc/locks and /proc/meminfo count, and what a child inherits of a memory policy. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MPOL_DEFAULT 0
#define MPOL_BIND 2
#define SIZE (16L << 20)

static char text[262144];

static void slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n, total = 0;
    while ((n = read(fd, text + total, sizeof text - 1 - total)) > 0)
        total += n;
    text[total] = 0;
    close(fd);
}

/* The number of the line of /proc/locks that has this after it, or 0. */
static int listed(const char *what, pid_t pid, const struct stat *file, const char *where)
{
    char line[256];
    snprintf(line, sizeof line, ": %s %d %02x:%02x:%lu %s\n", what, pid, major(file->st_dev),
             minor(file->st_dev), file->st_ino, where);
    slurp("/proc/locks");
    char *at = strstr(text, line);
    while (at && at > text && at[-1] != '\n')
        at--;
    return at ? atoi(at) : 0;
}

static int any(const struct stat *file)
{
    char place[64];
    snprintf(place, sizeof place, " %02x:%02x:%lu ", major(file->st_dev), minor(file->st_dev),
             file->st_ino);
    slurp("/proc/locks");
    return strstr(text, place) != NULL;
}

static void locks(void)
{
    int fd = memfd_create("locked", 0);
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CHECK(!any(&st));
    CHECK(flock(fd, LOCK_SH) == 0);
    CHECK(listed("FLOCK  ADVISORY  READ", getpid(), &st, "0 EOF"));
    CHECK(flock(fd, LOCK_EX) == 0);
    CHECK(listed("FLOCK  ADVISORY  WRITE", getpid(), &st, "0 EOF"));
    CHECK(flock(fd, LOCK_UN) == 0);
    CHECK(!any(&st));
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
    CHECK(fcntl(fd, F_SETLK, &range) == 0);
    CHECK(listed("POSIX  ADVISORY  WRITE", getpid(), &st, "5 14"));
    range.l_type = F_RDLCK;
    range.l_start = range.l_len = 0;
    CHECK(fcntl(fd, F_SETLK, &range) == 0);
    CHECK(listed("POSIX  ADVISORY  READ", getpid(), &st, "0 EOF"));
    range.l_type = F_UNLCK;
    CHECK(fcntl(fd, F_SETLK, &range) == 0);
    CHECK(!any(&st));
    range.l_type = F_RDLCK;
    CHECK(fcntl(fd, F_OFD_SETLK, &range) == 0);
    CHECK(listed("OFDLCK ADVISORY  READ", -1, &st, "0 EOF"));
    pid_t pid = fork();
    if (pid == 0)
        _exit(!listed("OFDLCK ADVISORY  READ", -1, &st, "0 EOF"));
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    close(fd);
    CHECK(!any(&st));
    fd = open("leased", O_RDONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CHECK(fcntl(fd, F_SETLEASE, F_RDLCK) == 0);
    slurp("/proc/locks");
    CHECK(strstr(text, ": LEASE  ACTIVE    READ ") != NULL);
    CHECK(fcntl(fd, F_SETLEASE, F_UNLCK) == 0);
    CHECK(!any(&st));
    close(fd);
    unlink("leased");
}

/* A child that waits for a lock, once /proc/locks says so. */
static pid_t waiter(int ofd, int kind, const char *what, const struct stat *file, const char *where)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("contended", O_RDWR);
        struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
        _exit(ofd < 0 ? flock(fd, kind) : fcntl(fd, ofd ? F_OFD_SETLKW : F_SETLKW, &range));
    }
    for (int i = 0; i < 5000 && !listed(what, ofd > 0 ? -1 : pid, file, where); i++)
        usleep(1000);
    CHECK(listed(what, ofd > 0 ? -1 : pid, file, where));
    return pid;
}

static void ends(pid_t pid, int by)
{
    int status;
    CHECK(kill(pid, by) == 0 || !by);
    CHECK(waitpid(pid, &status, 0) == pid && (by ? WTERMSIG(status) == by : status == 0));
}

/* Who waits stands behind the holder, and behind who waits for the same before it. */
static void waiters(void)
{
    int fd = open("contended", O_RDWR | O_CREAT, 0600);
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
    CHECK(fcntl(fd, F_SETLK, &range) == 0);
    pid_t first = waiter(0, F_WRLCK, "-> POSIX  ADVISORY  WRITE", &st, "10 14");
    pid_t second = waiter(1, F_RDLCK, " -> OFDLCK ADVISORY  READ", &st, "10 14");
    pid_t third = waiter(0, F_RDLCK, " -> POSIX  ADVISORY  READ", &st, "10 14");
    pid_t last = waiter(0, F_WRLCK, "  -> POSIX  ADVISORY  WRITE", &st, "10 14");
    CHECK(listed("POSIX  ADVISORY  WRITE", getpid(), &st, "5 14") ==
          listed("-> POSIX  ADVISORY  WRITE", first, &st, "10 14"));
    ends(last, SIGKILL);
    CHECK(!listed("  -> POSIX  ADVISORY  WRITE", last, &st, "10 14"));
    ends(first, SIGKILL);
    range.l_type = F_UNLCK;
    CHECK(fcntl(fd, F_SETLK, &range) == 0);
    ends(second, 0);
    ends(third, 0);
    CHECK(!any(&st));
    CHECK(flock(fd, LOCK_SH) == 0);
    first = waiter(-1, LOCK_EX, "-> FLOCK  ADVISORY  WRITE", &st, "0 EOF");
    CHECK(flock(fd, LOCK_UN) == 0);
    ends(first, 0);
    CHECK(!any(&st));
    close(fd);
    unlink("contended");
}

static long field(const char *name)
{
    slurp("/proc/meminfo");
    char *at = strstr(text, name);
    CHECK(at != NULL);
    return strtol(at + strlen(name), NULL, 0) * 1024;
}

/* Within a quarter: pages of other kinds come and go. */
static int about(long change, long expected)
{
    return change > expected - SIZE / 4 && change < expected + SIZE / 4;
}

static int shared_memory_counts(void)
{
    long shmem = field("\nShmem:"), cached = field("\nCached:");
    char *area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    memset(area, 1, SIZE);
    int right = about(field("\nShmem:") - shmem, SIZE) && about(field("\nCached:") - cached, SIZE);
    munmap(area, SIZE);
    right = right && about(field("\nShmem:") - shmem, 0);
    int fd = memfd_create("file", 0);
    CHECK(fd >= 0);
    char *page = calloc(1, 65536);
    for (long at = 0; at < SIZE; at += 65536)
        CHECK(write(fd, page, 65536) == 65536);
    right = right && about(field("\nShmem:") - shmem, SIZE);
    CHECK(ftruncate(fd, 0) == 0);
    right = right && about(field("\nShmem:") - shmem, 0);
    close(fd);
    free(page);
    return right;
}

/* Natively others of the machine take and give memory meanwhile: it shows when nobody does. */
static void shared_memory(void)
{
    int left = 100;
    while (!shared_memory_counts())
        CHECK(left-- > 0);
}

static int policy(void)
{
    int mode = -1;
    CHECK(syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) == 0);
    return mode;
}

static void inherited_policy(void)
{
    unsigned long nodes = 1;
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 64) && errno == ENOSYS)
        return;
    CHECK(policy() == MPOL_BIND);
    pid_t pid = fork();
    if (pid == 0)
        _exit(policy());
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == MPOL_BIND);
    CHECK(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0) == 0);
    CHECK(policy() == MPOL_DEFAULT);
}

int main(void)
{
    locks();
    waiters();
    shared_memory();
    inherited_policy();
    return 0;
}
