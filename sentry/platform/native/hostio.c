/* A pool of threads for host calls that may wait: a disk, a server behind FUSE or NFS, a terminal
 * that is held. The kernel thread submits, goes on, and hears of the end by an eventfd. */
#define _GNU_SOURCE
#include "hostio.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define STACK (64 << 10)

extern void offer_more(void); /* vcpu.h, which has another `pool` */

int hostio_pending(int fd)
{
    int bytes = 0;
    return ioctl(fd, FIONREAD, &bytes) < 0 ? -errno : bytes;
}

int hostio_writer(int fd)
{
    struct iovec nowhere = {NULL, 1};
    if (preadv2(fd, &nowhere, 1, -1, 0) == 0)
        return HOSTIO_NOBODY;
    if (errno == EFAULT)
        return HOSTIO_DATA;
    return errno == EAGAIN ? HOSTIO_QUIET : -errno;
}

int hostio_cpu(void) { return sched_getcpu(); }

_Static_assert(sizeof(struct stat) == HOSTIO_STAT, "struct stat of x86-64");

int hostio_stat(int fd, uint8_t *known)
{
    struct stat now;
    memset(&now, 0, sizeof now); /* padding */
    if (fstat(fd, &now) < 0)
        return -errno;
    if (!memcmp(known, &now, sizeof now))
        return 0;
    memcpy(known, &now, sizeof now);
    return 1;
}

int64_t hostio_send(int fd, const uint8_t *data, size_t size)
{
    offer_more(); /* the other side may run before this call returns */
    ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

int64_t hostio_receive(int fd, int patience_ms, uint8_t *data, size_t size, int *fds)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(HOSTIO_FDS * sizeof(int))];
    struct iovec iov = {data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    fds[0] = 0;
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EAGAIN && patience_ms) {
        /* Who sleeps in recvmsg is woken by each request that the other side takes, too. */
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, patience_ms) <= 0)
            return -EAGAIN;
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    }
    if (got < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0); /* all of them fit: control has no more room */
        memcpy(fds + 1 + fds[0], CMSG_DATA(c), bytes);
        fds[0] += (int)(bytes / sizeof(int));
    }
    if (message.msg_flags & MSG_CTRUNC && fds[0] < HOSTIO_FDS)
        fds[1 + fds[0]++] = -1; /* the one that this process may not have: the limit is reached */
    return got;
}

struct hostio_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct hostio *head, **tail; /* to be done */
    struct hostio *done, **done_tail;
    int fd;
    int users; /* threads, and whoever opened it */
    int closing;
};

static int64_t perform(struct hostio *r)
{
    struct iovec iov = {r->buffer, r->size};
    int64_t got = -1;
    switch (r->op) {
    case HOSTIO_READ:
        got = preadv2(r->fd, &iov, 1, r->offset, 0);
        break;
    case HOSTIO_WRITE:
        got = pwritev2(r->fd, &iov, 1, r->offset, 0);
        break;
    case HOSTIO_ALLOCATE:
        got = fallocate(r->fd, 0, r->offset, (off_t)r->size);
        break;
    case HOSTIO_TRUNCATE:
        got = ftruncate(r->fd, (off_t)r->size);
        break;
    case HOSTIO_SYNC:
        got = fdatasync(r->fd);
        break;
    case HOSTIO_IOCTL:
        got = ioctl(r->fd, (unsigned long)r->offset, r->buffer);
        break;
    case HOSTIO_CLOSE:
        got = 0;
        break;
    default:
        errno = EINVAL;
    }
    if (got < 0)
        got = -errno;
    close(r->fd); /* which may wait, too: a flush */
    return got;
}

static void drop(struct hostio *r)
{
    while (r) {
        struct hostio *next = r->next;
        free(r);
        r = next;
    }
}

/* With the lock held, which it gives up. */
static void leave(struct hostio_pool *pool)
{
    int last = --pool->users == 0;
    pthread_mutex_unlock(&pool->lock);
    if (!last)
        return;
    drop(pool->head);
    drop(pool->done);
    close(pool->fd);
    free(pool);
}

static void *work(void *argument)
{
    struct hostio_pool *pool = argument;
    const uint64_t one = 1;
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing) {
        struct hostio *r = pool->head;
        if (!r) {
            pthread_cond_wait(&pool->more, &pool->lock);
            continue;
        }
        pool->head = r->next;
        if (!pool->head)
            pool->tail = &pool->head;
        pthread_mutex_unlock(&pool->lock);
        int64_t result = perform(r);
        pthread_mutex_lock(&pool->lock);
        if (pool->closing) {
            free(r);
            break;
        }
        r->result = result;
        r->next = NULL;
        *pool->done_tail = r;
        pool->done_tail = &r->next;
        (void)!write(pool->fd, &one, sizeof one);
    }
    leave(pool);
    return NULL;
}

/* How many could be made. */
static int start(struct hostio_pool *pool, int threads)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pool->users = 1;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&pool->lock);
    for (int i = 0; i < threads && pool->fd >= 0; i++)
        pool->users += pthread_create(&thread, &attributes, work, pool) == 0;
    int made = pool->users - 1;
    pthread_mutex_unlock(&pool->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return made;
}

struct hostio_pool *hostio_open(int threads)
{
    struct hostio_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->tail = &pool->head;
    pool->done_tail = &pool->done;
    pool->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (start(pool, threads))
        return pool;
    hostio_close(pool);
    return NULL;
}

int hostio_again(struct hostio_pool *pool, int threads)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0 || dup3(fd, pool->fd, O_CLOEXEC) < 0)
        return -errno;
    close(fd);
    return start(pool, threads) ? 0 : -EAGAIN;
}

int hostio_fd(struct hostio_pool *pool)
{
    return pool->fd;
}

int hostio_submit(struct hostio_pool *pool, int op, int fd, int64_t offset, uint64_t size,
                  const void *data, uint64_t token)
{
    int has_bytes = op == HOSTIO_READ || op == HOSTIO_WRITE || op == HOSTIO_IOCTL;
    struct hostio *r = malloc(sizeof *r + (has_bytes ? size : 0));
    if (!r)
        return -ENOMEM;
    *r = (struct hostio){.op = op, .offset = offset, .size = size, .token = token};
    r->fd = op == HOSTIO_CLOSE ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (r->fd < 0) {
        free(r);
        return -errno;
    }
    if (op == HOSTIO_WRITE || op == HOSTIO_IOCTL)
        memcpy(r->buffer, data, size);
    pthread_mutex_lock(&pool->lock);
    *pool->tail = r;
    pool->tail = &r->next;
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

void hostio_linger(struct hostio_pool *pool, uint64_t ns)
{
    struct pollfd p = {.fd = pool->fd, .events = POLLIN};
    struct timespec t = {0, (long)ns};
    (void)ppoll(&p, 1, &t, NULL);
}

struct hostio *hostio_take(struct hostio_pool *pool)
{
    uint64_t count;
    pthread_mutex_lock(&pool->lock);
    struct hostio *r = pool->done;
    if (r) {
        pool->done = r->next;
        if (!pool->done)
            pool->done_tail = &pool->done;
    } else {
        (void)!read(pool->fd, &count, sizeof count);
    }
    pthread_mutex_unlock(&pool->lock);
    return r;
}

uint8_t *hostio_buffer(struct hostio *request)
{
    return request->buffer;
}

void hostio_free(struct hostio *request)
{
    free(request);
}

void hostio_close(struct hostio_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->closing = 1;
    pthread_cond_broadcast(&pool->more);
    leave(pool);
}
