/* Host calls that may take long, on threads of their own, so that the kernel thread goes on. */
#ifndef SENTRY_HOSTIO_H
#define SENTRY_HOSTIO_H

#include <stddef.h>
#include <stdint.h>

enum hostio_op { HOSTIO_READ, HOSTIO_WRITE, HOSTIO_ALLOCATE, HOSTIO_TRUNCATE, HOSTIO_SYNC,
                 HOSTIO_CLOSE, HOSTIO_IOCTL };

struct hostio {
    int op, fd;
    int64_t offset;  /* -1: at the descriptor's position; of HOSTIO_IOCTL the request */
    uint64_t size;
    uint64_t token;  /* the caller's */
    int64_t result;  /* or -errno; once it is done */
    struct hostio *next;
    uint8_t buffer[]; /* of HOSTIO_READ, HOSTIO_WRITE and HOSTIO_IOCTL: size bytes */
};

/* Bytes that a read of a stream or queue would find, or -errno. */
int hostio_pending(int fd);
/* Asks a stream that does not block what a read would find, and takes nothing: HOSTIO_DATA, or
 * HOSTIO_NOBODY (the end: nobody writes), or HOSTIO_QUIET (somebody may write), or -errno. */
enum { HOSTIO_QUIET, HOSTIO_DATA, HOSTIO_NOBODY };
int hostio_writer(int fd);
/* fstat(2) of something whose attributes are in memory, into HOSTIO_STAT bytes that hold those of
 * last time: 1 if they are different now, 0 if not, or -errno. */
#define HOSTIO_STAT 144
int hostio_stat(int fd, uint8_t *known);
int hostio_cpu(void); /* where this thread runs */
/* send(2) to a helper process whose answer a program may wait for: bytes, or -errno. */
int64_t hostio_send(int fd, const uint8_t *data, size_t size);
/* recvmsg(2) on a stream of a helper process, waiting so long at most. `fds`: how many descriptors
 * came, at most HOSTIO_FDS, and which; they close at execve. The bytes, 0 at the end, or -errno. */
#define HOSTIO_FDS 32
int64_t hostio_receive(int fd, int patience_ms, uint8_t *data, size_t size, int *fds);

struct hostio_pool;

/* SAFETY: threads are made here, before the filter, and never again. NULL if that fails. */
struct hostio_pool *hostio_open(int threads);
/* In a forked process, where its threads are not: the descriptor keeps its number. 0 or -errno.
 * Preconditions: nothing was under way when the process was forked. */
int hostio_again(struct hostio_pool *pool, int threads);
int hostio_fd(struct hostio_pool *pool); /* readable while something is done that was not taken */
/* The request has a descriptor, which is closed at its end, and bytes of its own: nobody else has
 * to keep anything. 0 or -errno. */
int hostio_submit(struct hostio_pool *pool, int op, int fd, int64_t offset, uint64_t size,
                  const void *data, uint64_t token);
/* Wait for any to be done, so many ns at most. */
void hostio_linger(struct hostio_pool *pool, uint64_t ns);
struct hostio *hostio_take(struct hostio_pool *pool); /* one that is done, NULL: none */
uint8_t *hostio_buffer(struct hostio *request);
void hostio_free(struct hostio *request);
/* Threads end when their call does; nothing waits for them. */
void hostio_close(struct hostio_pool *pool);

#endif
