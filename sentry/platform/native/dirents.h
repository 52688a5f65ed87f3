/* Records of getdents64(2). */
#ifndef SENTRY_DIRENTS_H
#define SENTRY_DIRENTS_H

#include <stdint.h>

/* The most that a record has beside its name: struct linux_dirent64, a NUL, what fills up 8 bytes. */
enum { DIRENT_MORE = 27 };

/* Append `count` records to the `at` bytes that are in `out`, which has DIRENT_MORE more bytes of
 * room for each than its name. Of each: its name, all of them in a row, its length, inode number
 * and d_type; the first one stands at `position`. `ends` gets where each ends; gives where the last
 * does. */
uint64_t dirents_pack(const uint8_t *names, const uint16_t *lengths, const uint64_t *inos,
                      const uint8_t *types, uint64_t count, uint64_t position, uint8_t *out,
                      uint64_t at, uint64_t *ends);

#endif
