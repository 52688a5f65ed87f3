#define _GNU_SOURCE
#include "exchange.h"

#include <sched.h>

#include "frame.h"
#include "hostio.h"

enum { RLERROR = 7, TUNLINKAT = 76, TCREATEX = 202, NOFID = -1, DONATED = 2, MAX_ERRNO = 4095 };
enum { CREATED = 2 + EXCHANGE_BLOCK }; /* opened[1] created[1] attributes */

static uint32_t get(const uint8_t *from, size_t size)
{
    uint32_t value = 0;
    memcpy(&value, from, size);
    return value;
}

/* SAFETY: the reply is untrusted. Whatever is not as it has to be is judged elsewhere. */
static int judge(struct exchange *x, uint8_t type, const uint8_t *data, const int *fds)
{
    const uint8_t *body = data + FRAME_HEADER;
    if (x->came < FRAME_HEADER || get(data, 4) != (uint64_t)x->came || get(data + 5, 2) != EXCHANGE_TAG)
        return EXCHANGE_OTHER;
    int64_t rest = x->came - FRAME_HEADER;
    if (data[4] == RLERROR && rest == 4 && !fds[0]) {
        uint32_t number = get(body, 4);
        return number && number <= MAX_ERRNO ? (int)number : EXCHANGE_OTHER;
    }
    if (data[4] != type + 1)
        return EXCHANGE_OTHER;
    if (type == TUNLINKAT)
        return rest || fds[0] ? EXCHANGE_OTHER : EXCHANGE_DONE;
    if (rest != CREATED || body[0] != DONATED || fds[0] != 1 || fds[1] < 0)
        return EXCHANGE_OTHER;
    x->fd = fds[1];
    memcpy(x->block, body + 2, EXCHANGE_BLOCK);
    return EXCHANGE_DONE;
}

static int make(struct exchange *x, struct frame *f, int fd, int patience_ms, uint8_t *data,
                size_t room, int *fds)
{
    end_frame(f);
    int64_t sent = hostio_send(fd, f->bytes, f->size);
    x->fd = -1;
    if (sent <= 0)
        return EXCHANGE_UNSENT;
    x->missing = (uint32_t)(f->size - (size_t)sent);
    x->came = hostio_receive(fd, x->missing ? 0 : patience_ms, data, room, fds);
    x->cpu = sched_getcpu();
    return judge(x, f->bytes[4], data, fds);
}

int exchange_creation(struct exchange *x, int fd, int patience_ms, uint8_t *data, size_t room,
                      int *fds, uint32_t dirfid, const char *name, size_t length, uint32_t flags,
                      uint32_t mode, uint32_t uid, uint32_t gid)
{
    struct frame f;
    if (length > FRAME_NAME)
        return EXCHANGE_UNSENT;
    begin_frame(&f, TCREATEX, EXCHANGE_TAG);
    put32(&f, dirfid);
    put32(&f, (uint32_t)NOFID);
    put_name(&f, name, length);
    put32(&f, flags);
    put8(&f, 1);
    put32(&f, mode);
    put32(&f, uid);
    put32(&f, gid);
    return make(x, &f, fd, patience_ms, data, room, fds);
}

int exchange_removal(struct exchange *x, int fd, int patience_ms, uint8_t *data, size_t room,
                     int *fds, uint32_t dirfid, const char *name, size_t length, uint32_t flags)
{
    struct frame f;
    if (length > FRAME_NAME)
        return EXCHANGE_UNSENT;
    begin_frame(&f, TUNLINKAT, EXCHANGE_TAG);
    put32(&f, dirfid);
    put_name(&f, name, length);
    put32(&f, flags);
    return make(x, &f, fd, patience_ms, data, room, fds);
}
