/* Records of a journal (gofer/p9/journal.py): the requests that are recorded most often, put together
 * in the ring. Each gives the size of what it has written at `position`, or 0: `room` is too small,
 * or the name is none. Messages: gofer/p9/extensions.py. */
#ifndef SENTRY_RECORDS_H
#define SENTRY_RECORDS_H

#include <stddef.h>
#include <stdint.h>

struct record_ring {
    uint8_t *memory;
    uint64_t capacity;
    uint64_t position; /* where the next record begins, in bytes since the ring was empty */
    uint64_t executed; /* what begins before this has been carried out */
};

/* Tnamex */
size_t record_name(struct record_ring *r, uint32_t fid, uint32_t dirfid, const char *name,
                   size_t length, uint32_t mode, uint32_t uid, uint32_t gid, int64_t time_ns);
/* Tsetattrx, without a size */
size_t record_attributes(struct record_ring *r, uint32_t fid, const char *name, size_t length,
                         uint32_t valid, uint32_t mode, uint32_t uid, uint32_t gid,
                         int64_t atime_ns, int64_t mtime_ns);
/* Tunlinkat */
size_t record_removal(struct record_ring *r, uint32_t fid, const char *name, size_t length,
                      uint32_t flags);
/* Tclunk, Trevertx */
size_t record_fid(struct record_ring *r, uint8_t type, uint32_t fid);
/* Any frame. */
size_t record_frame(struct record_ring *r, const uint8_t *frame, size_t size);

#endif
