/* Makes every system call that has a message of its own in gVisor's schema. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALL(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

int main(void) {
    char byte[16] = "x", name[] = "/tmp/watched", folder[] = "/tmp";
    struct iovec part = {byte, 3};
    int pair[2];
    int file = CALL(openat, AT_FDCWD, name, O_CREAT | O_RDWR, 0640);
    close(CALL(open, name, O_RDONLY, 0));
    close(CALL(creat, name, 0600));
    CALL(write, file, "abcdefgh", 8);
    CALL(pwrite64, file, byte, 1, 20L);
    CALL(writev, file, &part, 1);
    CALL(pwritev, file, &part, 1, 20L, 0L);
    CALL(pwritev2, file, &part, 1, 20L, 0L, 0);
    CALL(read, file, byte, 1);
    CALL(pread64, file, byte, 1, 20L);
    CALL(readv, file, &part, 1);
    CALL(preadv, file, &part, 1, 20L, 0L);
    CALL(preadv2, file, &part, 1, 20L, 0L, 0);
    CALL(pipe, pair);
    CALL(pipe2, pair, O_CLOEXEC);
    int other = CALL(dup, file);
    CALL(dup2, file, other);
    CALL(dup3, file, other, O_CLOEXEC);
    CALL(fcntl, file, F_GETFL, 0);
    CALL(eventfd, 1);
    CALL(eventfd2, 1, 0);
    uint64_t mask = 1ull << (SIGUSR1 - 1);
    CALL(signalfd, -1, &mask, 8L);
    CALL(signalfd4, -1, &mask, 8L, 0);
    struct itimerspec {
        long words[4];
    } timer = {{0, 0, 100, 0}}, old;
    int clock = CALL(timerfd_create, 1, 0);
    CALL(timerfd_settime, clock, 0, &timer, &old);
    CALL(timerfd_gettime, clock, &old);
    CALL(inotify_init);
    int watches = CALL(inotify_init1, 0);
    int watch = CALL(inotify_add_watch, watches, folder, 2);
    CALL(inotify_rm_watch, watches, watch);
    struct sockaddr_un address = {AF_UNIX, "/tmp/sock"};
    int server = CALL(socket, AF_UNIX, SOCK_STREAM, 0);
    CALL(bind, server, &address, sizeof address);
    CALL(listen, server, 5);
    for (int i = 0; i < 2; i++) {
        int one = CALL(socket, AF_UNIX, SOCK_STREAM, 0);
        CALL(connect, one, &address, sizeof address);
    }
    CALL(accept, server, NULL, NULL);
    CALL(accept4, server, NULL, NULL, SOCK_CLOEXEC);
    CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
    struct rlimit limit;
    CALL(prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    CALL(chdir, folder);
    int root = CALL(openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    CALL(fchdir, root);
    CALL(chroot, "/");
    char *words[] = {"true", NULL}, *variables[] = {"TEST=123", NULL};
    if (CALL(fork) == 0) {
        CALL(setsid);
        CALL(execve, "/bin/true", words, variables);
    }
    if (CALL(clone, SIGCHLD, NULL, NULL, NULL, 0L) == 0)
        CALL(execveat, root, "bin/true", words, variables, 0);
    if (vfork() == 0)
        _exit(3);
    while (wait(NULL) > 0)
        ;
    CALL(setresgid, 0, 0, 0);
    CALL(setgid, 0);
    CALL(setresuid, 0, 0, 0);
    CALL(setuid, 0);
    return 0;
}
