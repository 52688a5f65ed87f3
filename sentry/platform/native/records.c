#include "records.h"

#include <string.h>

#include "crc32.h"
#include "frame.h"

enum { HEADER = 16, NOTAG = 0xffff };
enum { TUNLINKAT = 76, TSETATTRX = 212, TNAMEX = 246 };

static struct frame begin(uint8_t type)
{
    struct frame f;
    begin_frame(&f, type, NOTAG);
    return f;
}

static void copy_in(struct record_ring *r, uint64_t position, const uint8_t *from, size_t size)
{
    size_t at = (size_t)(position % r->capacity), first = (size_t)r->capacity - at;
    if (first > size)
        first = size;
    memcpy(r->memory + at, from, first);
    memcpy(r->memory, from + first, size - first);
}

/* check[4] length[4] position[8], then the frame. The check comes over all that follows it, so a
 * record that is not written in whole is none. */
static size_t finish(struct record_ring *r, const uint8_t *frame, size_t length)
{
    uint8_t header[HEADER];
    uint32_t size = (uint32_t)length, check;
    if (HEADER + length > r->capacity - (r->position - r->executed))
        return 0;
    memcpy(header + 4, &size, 4);
    memcpy(header + 8, &r->position, 8);
    check = crc32_more(crc32_of(header + 4, HEADER - 4), frame, length);
    memcpy(header, &check, 4);
    copy_in(r, r->position, header, HEADER);
    copy_in(r, r->position + HEADER, frame, length);
    r->position += HEADER + length;
    return HEADER + length;
}

static size_t end(struct record_ring *r, struct frame *f)
{
    end_frame(f);
    return finish(r, f->bytes, f->size);
}

size_t record_name(struct record_ring *r, uint32_t fid, uint32_t dirfid, const char *name,
                   size_t length, uint32_t mode, uint32_t uid, uint32_t gid, int64_t time_ns)
{
    struct frame c = begin(TNAMEX);
    if (length > FRAME_NAME)
        return 0;
    put32(&c, fid);
    put32(&c, dirfid);
    put_name(&c, name, length);
    put32(&c, mode);
    put32(&c, uid);
    put32(&c, gid);
    put64(&c, (uint64_t)time_ns);
    return end(r, &c);
}

size_t record_attributes(struct record_ring *r, uint32_t fid, const char *name, size_t length,
                         uint32_t valid, uint32_t mode, uint32_t uid, uint32_t gid,
                         int64_t atime_ns, int64_t mtime_ns)
{
    struct frame c = begin(TSETATTRX);
    if (length > FRAME_NAME)
        return 0;
    put32(&c, fid);
    put_name(&c, name, length);
    put32(&c, valid);
    put32(&c, mode);
    put32(&c, uid);
    put32(&c, gid);
    put64(&c, 0);
    put64(&c, (uint64_t)atime_ns);
    put64(&c, (uint64_t)mtime_ns);
    return end(r, &c);
}

size_t record_removal(struct record_ring *r, uint32_t fid, const char *name, size_t length,
                      uint32_t flags)
{
    struct frame c = begin(TUNLINKAT);
    if (length > FRAME_NAME)
        return 0;
    put32(&c, fid);
    put_name(&c, name, length);
    put32(&c, flags);
    return end(r, &c);
}

size_t record_fid(struct record_ring *r, uint8_t type, uint32_t fid)
{
    struct frame c = begin(type);
    put32(&c, fid);
    return end(r, &c);
}

size_t record_frame(struct record_ring *r, const uint8_t *frame, size_t size)
{
    return finish(r, frame, size);
}
