/* Records of getdents64(2): include/linux/dirent.h. */
#include "dirents.h"

#include <string.h>

#define OFF 8u
#define RECLEN 16u
#define TYPE 18u
#define NAME 19u

uint64_t dirents_pack(const uint8_t *names, const uint16_t *lengths, const uint64_t *inos,
                      const uint8_t *types, uint64_t count, uint64_t position, uint8_t *out,
                      uint64_t at, uint64_t *ends)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t following = position + i + 1;
        size_t size = (NAME + lengths[i] + 8u) & ~(size_t)7;
        uint16_t told = (uint16_t)size;
        uint8_t *record = out + at;
        memcpy(record, &inos[i], sizeof inos[i]);
        memcpy(record + OFF, &following, sizeof following);
        memcpy(record + RECLEN, &told, sizeof told);
        record[TYPE] = types[i];
        memcpy(record + NAME, names, lengths[i]);
        memset(record + NAME + lengths[i], 0, size - NAME - lengths[i]);
        names += lengths[i];
        at += size;
        ends[i] = at;
    }
    return at;
}
