/* A frame of 9P that is being written: size[4] type[1] tag[2], fields. */
#ifndef SENTRY_FRAME_H
#define SENTRY_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FRAME_HEADER = 7, FRAME_NAME = 255, FRAME_NUMBERS = 64 };

struct frame {
    uint8_t bytes[FRAME_HEADER + FRAME_NUMBERS + FRAME_NAME]; /* of fields at most; one name */
    size_t size;
};

static inline void put(struct frame *f, const void *value, size_t size)
{
    memcpy(f->bytes + f->size, value, size);
    f->size += size;
}

static inline void put8(struct frame *f, uint8_t value) { put(f, &value, 1); }
static inline void put16(struct frame *f, uint16_t value) { put(f, &value, 2); }
static inline void put32(struct frame *f, uint32_t value) { put(f, &value, 4); }
static inline void put64(struct frame *f, uint64_t value) { put(f, &value, 8); }

/* Preconditions: at most FRAME_NAME bytes. */
static inline void put_name(struct frame *f, const char *name, size_t length)
{
    put16(f, (uint16_t)length);
    put(f, name, length);
}

static inline void begin_frame(struct frame *f, uint8_t type, uint16_t tag)
{
    f->size = 4;
    put8(f, type);
    put16(f, tag);
}

static inline void end_frame(struct frame *f)
{
    uint32_t size = (uint32_t)f->size;
    memcpy(f->bytes, &size, sizeof size);
}

#endif
