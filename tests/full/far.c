/* The far end of socket programs of tests/abi (`tests/abi/far.h`): makes the calls that it is asked
 * for, each program's in a process of its own. Says its port. */
#define _GNU_SOURCE
#include "../abi/far.h"
#include <signal.h>

#undef socket
#undef bind
#undef listen
#undef accept
#undef getsockname
#undef setsockopt
#undef close

static char room[FAR_BUFFERS][FAR_MOST];

/* Until the program has ended. */
static void serve(int fd)
{
    struct far_call asked;
    struct far_answer answer;
    while (far_move(fd, &asked, sizeof asked, 0) == 0) {
        if (asked.count < 0 || asked.count > FAR_BUFFERS)
            return;
        for (int i = 0; i < asked.count; i++) {
            struct far_buffer *one = &asked.buffers[i];
            if (one->size > FAR_MOST || far_move(fd, room[i], one->size, 0))
                return;
        }
        for (int i = 0; i < asked.count; i++) {
            struct far_buffer *one = &asked.buffers[i];
            void *at = room[i];
            if (one->owner < 0)
                asked.args[one->slot] = (long)at;
            else
                memcpy(room[one->owner] + one->slot, &at, sizeof at);
        }
        long *a = asked.args;
        errno = 0;
        answer.result = syscall(asked.number, a[0], a[1], a[2], a[3], a[4], a[5]);
        answer.error = errno;
        int wrong = far_move(fd, &answer, sizeof answer, 1);
        for (int i = 0; i < asked.count; i++)
            if (asked.buffers[i].is_out)
                wrong |= far_move(fd, room[i], asked.buffers[i].size, 1);
        if (wrong)
            return;
    }
}

int main(void)
{
    struct sockaddr_in at = {AF_INET};
    socklen_t size = sizeof at;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGCHLD, SIG_IGN), signal(SIGPIPE, SIG_IGN);
    if (bind(listener, (void *)&at, size) || listen(listener, 9) ||
        getsockname(listener, (void *)&at, &size))
        return 1;
    printf("%d\n", ntohs(at.sin_port)), fflush(stdout);
    for (;;) {
        int fd = syscall(SYS_accept4, listener, NULL, NULL, 0);
        if (fd >= 0 && fork() == 0) {
            close(listener);
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            serve(fd);
            _exit(0);
        }
        close(fd);
    }
}
