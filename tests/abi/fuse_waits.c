/* Requests that are not answered: signals, kills, aborts, servers that go. fuse(4). Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include "fuse.h"
#include <pthread.h>

static char connections[128];
static dev_t dev;

static pid_t begin(const char *more)
{
    struct stat st;
    pid_t server = start(more);
    CHECK(stat("mnt", &st) == 0);
    dev = st.st_dev;
    return server;
}

static long control(const char *name)
{
    char path[128], buffer[32];
    snprintf(path, sizeof(path), "control/%u/%s", (unsigned)minor(dev), name);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n = read(fd, buffer, sizeof(buffer) - 1);
    CHECK(n > 0);
    buffer[n] = 0;
    close(fd);
    return atol(buffer);
}

static long set_control(const char *name, const char *value)
{
    char path[128];
    snprintf(path, sizeof(path), "control/%u/%s", (unsigned)minor(dev), name);
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    long n = write(fd, value, strlen(value));
    int error = errno;
    close(fd);
    errno = error;
    return n;
}

static void nothing(int signo) {}

/* A child that asks for an attribute of a file, and gets this error (0: none). */
static pid_t ask(int error, int restarts)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child)
        return child;
    struct sigaction action = {.sa_handler = nothing, .sa_flags = restarts ? SA_RESTART : 0};
    sigaction(SIGUSR1, &action, NULL);
    struct stat st;
    errno = 0;
    int result = stat("mnt/file", &st);
    _exit(error ? !(result == -1 && errno == error) : result);
}

static void ended(pid_t child, int how)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (status != how)
        fprintf(stderr, "status %x\n", status);
    CHECK(status == how);
}

static void interrupts(void)
{
    S->hang[FUSE_LOOKUP] = 1;
    pid_t child = ask(EINTR, 0);
    AWAIT(S->hung);
    uint64_t asked = S->hung;
    CHECK(control("waiting") == 1);
    kill(child, SIGUSR1);
    ended(child, 0); /* the server answers INTERRUPT, and then with EINTR */
    CHECK(S->interrupted == asked && S->calls[FUSE_INTERRUPT] == 1);
    CHECK(S->last[FUSE_INTERRUPT].unique == (asked | 1));
    child = ask(EINTR, 1); /* not restarted either */
    AWAIT(S->hung);
    kill(child, SIGUSR1);
    ended(child, 0);
    CHECK(control("waiting") == 0);
}

static void kills(pid_t server)
{
    int status;
    kill(server, SIGSTOP);
    CHECK(waitpid(server, &status, WUNTRACED) == server && WIFSTOPPED(status));
    pid_t child = ask(0, 0); /* nobody reads it */
    AWAIT(control("waiting") == 1);
    int lookups = S->calls[FUSE_LOOKUP];
    kill(child, SIGKILL);
    ended(child, SIGKILL);
    CHECK(control("waiting") == 0);
    child = ask(0, 0);
    AWAIT(control("waiting") == 1);
    kill(child, SIGTERM); /* which kills, too */
    ended(child, SIGTERM);
    CHECK(control("waiting") == 0);
    kill(server, SIGCONT);
    S->hang[FUSE_LOOKUP] = 0;
    struct stat st;
    CHECK_ERR(stat("mnt/none", &st), ENOENT);
    CHECK(S->calls[FUSE_LOOKUP] == lookups + 1);
    S->hang[FUSE_LOOKUP] = 1;
    child = ask(0, 0); /* the server is told, and answers: on Linux before the child has ended */
    AWAIT(S->hung);
    uint64_t asked = S->hung;
    kill(child, SIGKILL);
    ended(child, SIGKILL);
    AWAIT(S->interrupted == asked && control("waiting") == 0);
}

static void server_that_dies(pid_t server)
{
    pid_t child = ask(ECONNABORTED, 0);
    AWAIT(S->hung);
    struct stat st;
    kill(server, SIGKILL);
    ended(server, SIGKILL);
    ended(child, 0);
    CHECK_ERR(stat("mnt/file", &st), ENOTCONN);
    CHECK_ERR(opendir("mnt") ? 0 : -1, ENOTCONN);
    CHECK(umount("mnt") == 0);
    S->hang[FUSE_LOOKUP] = 0;
    S->hung = 0;
}

static void files_of_a_dead_server(void)
{
    pid_t server = begin("");
    int fd = open("mnt/file", O_RDWR);
    char byte;
    CHECK(fd >= 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) == 0);
    CHECK(read(fd, &byte, 1) == 1);
    char *p = mmap(NULL, 524288, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED && madvise(p, 524288, MADV_RANDOM) == 0 && p[0] == 'f');
    kill(server, SIGKILL);
    ended(server, SIGKILL);
    CHECK_ERR(pread(fd, &byte, 1, 500000), ENOTCONN);
    CHECK_ERR(pwrite(fd, &byte, 1, 0), ENOTCONN);
    CHECK_ERR(fsync(fd), ENOTCONN);
    CHECK_ERR(close(fd), ENOTCONN);
    pid_t child = fork();
    if (!child)
        _exit(p[491520]); /* a page that nobody gives any more */
    ended(child, SIGBUS);
    munmap(p, 524288);
    CHECK(umount("mnt") == 0);
}

static void aborts(void)
{
    S->hang[FUSE_LOOKUP] = 1;
    pid_t server = begin(""), child = ask(ECONNABORTED, 0);
    AWAIT(S->hung);
    CHECK(control("max_background") == 10 && control("congestion_threshold") == 7);
    CHECK(set_control("max_background", "9\n") == 2 && control("max_background") == 9);
    CHECK_ERR(set_control("max_background", "x"), EINVAL);
    CHECK_ERR(set_control("max_background", "65536"), EINVAL);
    CHECK(set_control("abort", "1") == 1);
    ended(child, 0);
    ended(server, 0); /* whose read fails */
    CHECK(umount("mnt") == 0);
    CHECK_ERR(set_control("abort", "1"), ENOENT);
    S->hung = 0;
    server = begin("");
    int fd = open("mnt", O_RDONLY);
    child = ask(ECONNABORTED, 0);
    AWAIT(S->hung);
    CHECK_ERR(umount("mnt"), EBUSY);
    CHECK(control("waiting") == 1);
    CHECK_ERR(umount2("mnt", MNT_FORCE), EBUSY); /* but nobody waits any longer */
    ended(child, 0);
    ended(server, 0);
    close(fd);
    CHECK(umount("mnt") == 0);
    S->hang[FUSE_LOOKUP] = 0;
    S->hung = 0;
}

static void several_devices(void)
{
    int fd = open_fuse(), second = open_fuse();
    CHECK(mount_at(fd, "mnt", "") == 0);
    ssize_t got = read(fd, fuse_buffer, sizeof(fuse_buffer));
    CHECK(got > 0);
    serve_one(fd, (void *)fuse_buffer, fuse_buffer + sizeof(struct fuse_in_header));
    uint32_t old = fd;
    CHECK(ioctl(second, FUSE_DEV_IOC_CLONE, &old) == 0);
    CHECK_ERR(ioctl(second, FUSE_DEV_IOC_CLONE, &old), EINVAL);
    pid_t child = ask(0, 0);
    got = read(second, fuse_buffer, sizeof(fuse_buffer));
    struct fuse_in_header *in = (void *)fuse_buffer;
    while (got > 0 && in->opcode != FUSE_LOOKUP) {
        serve_one(second, in, fuse_buffer + sizeof(*in));
        got = read(second, fuse_buffer, sizeof(fuse_buffer));
    }
    CHECK(got > 0);
    struct fuse_out_header out = {sizeof(out), -ENOENT, in->unique};
    CHECK_ERR(write(fd, &out, sizeof(out)), ENOENT); /* it was not read there */
    serve_one(second, in, fuse_buffer + sizeof(*in));
    pid_t server = fork();
    if (!server) {
        close(fd);
        serve(second);
    }
    ended(child, 0);
    close(second);
    struct stat st;
    CHECK(stat("mnt/file", &st) == 0);
    CHECK(umount("mnt") == 0);
    ended(server, 0);
    close(fd);
}

static int own;

static void *asks_itself(void *unused)
{
    struct stat st;
    stat("mnt/file", &st);
    return NULL;
}

static void server_that_asks_itself(void)
{
    pid_t child = fork();
    if (!child) {
        own = open_fuse();
        if (mount_at(own, "mnt", ""))
            _exit(1);
        S->hung = 0;
        read(own, fuse_buffer, sizeof(fuse_buffer));
        serve_one(own, (void *)fuse_buffer, fuse_buffer + sizeof(struct fuse_in_header));
        S->hung = 1;
        struct stat st;
        stat("mnt/file", &st); /* for ever */
        _exit(2);
    }
    AWAIT(S->hung == 1);
    usleep(20000);
    kill(child, SIGKILL);
    ended(child, SIGKILL);
    CHECK(umount("mnt") == 0);
    S->hung = 0;
}

int main(void)
{
    prepare();
    strcpy(S->nodes[make(1, "file", S_IFREG | 0644, NULL)].data, "file");
    S->nodes[2].size = 600000;
    mkdir("control", 0755);
    CHECK(mount("control", "control", "fusectl", 0, NULL) == 0);
    pid_t server = begin("");
    interrupts();
    kills(server);
    server_that_dies(server);
    files_of_a_dead_server();
    aborts();
    several_devices();
    server_that_asks_itself();
    return 0;
}
