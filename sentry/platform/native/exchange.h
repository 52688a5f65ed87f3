/* The requests that programs wait for most often, with their replies: put together, sent, waited for
 * and looked at by one call. Messages: gofer/p9/extensions.py. */
#ifndef SENTRY_EXCHANGE_H
#define SENTRY_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

#define EXCHANGE_TAG 1024 /* no other request has it (sentry/fs/gofer/requests.py) */
#define EXCHANGE_BLOCK 96 /* bytes of attributes */

struct exchange {
    int fd;           /* that came with the reply, or -1 */
    int cpu;          /* where this thread waited for it */
    uint32_t missing; /* bytes of the request that the socket did not take, the last ones */
    int64_t came;     /* what hostio_receive gave */
    uint8_t block[EXCHANGE_BLOCK]; /* of what was made */
};

/* 0, or what the server says. Or `came` bytes of `data`, and `fds`, are for who knows all of 9P:
 * nothing has come in time, or no such reply. Or nothing was sent. */
enum { EXCHANGE_DONE = 0, EXCHANGE_OTHER = -1, EXCHANGE_UNSENT = -2 };

/* Tcreatex without a fid, with a descriptor */
int exchange_creation(struct exchange *x, int fd, int patience_ms, uint8_t *data, size_t room,
                      int *fds, uint32_t dirfid, const char *name, size_t length, uint32_t flags,
                      uint32_t mode, uint32_t uid, uint32_t gid);
/* Tunlinkat */
int exchange_removal(struct exchange *x, int fd, int patience_ms, uint8_t *data, size_t room,
                     int *fds, uint32_t dirfid, const char *name, size_t length, uint32_t flags);

#endif
