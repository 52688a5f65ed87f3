/* Blocks of LZ4 (doc/lz4_Block_format.md of LZ4), unpacked in pieces. */
#ifndef SENTRY_LZ4_H
#define SENTRY_LZ4_H

#include <stddef.h>
#include <stdint.h>

/* What is between two pieces: all zero at first, then as it was left. */
enum { LZ4_IN, LZ4_OUT, LZ4_LITERALS, LZ4_MATCH, LZ4_DISTANCE, LZ4_TOKEN, LZ4_STATE };

/* Unpack until `until` bytes are in `out`, which has room for `room`, or the block ends: LZ4_OUT of
 * `state` says how many there are. 0, or -1 where the bytes are no such block. */
int lz4_unpack(uint64_t *state, const uint8_t *data, size_t size, uint8_t *out, size_t room,
               size_t until);

#endif
