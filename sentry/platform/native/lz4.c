/* LZ4. The block is hostile: each length is compared with what is left of both sides before a byte
 * moves. A sequence is literals, then a match: bytes that are in `out` already, further back. */
#include "lz4.h"

#include <string.h>

#define LEAST_MATCH 4
#define LONG 15 /* of a half of the token: more bytes of the length follow */

/* The rest of a length, 255 at a time; 0 where the block ends amidst. */
static int longer(const uint8_t *data, size_t size, uint64_t *at, uint64_t *length)
{
    uint8_t more;
    do {
        if (*at >= size)
            return 0;
        more = data[(*at)++];
        *length += more;
    } while (more == 255);
    return 1;
}

static void copy_match(uint8_t *out, uint64_t at, uint64_t distance, uint64_t count)
{
    if (distance >= count) {
        memcpy(out + at, out + at - distance, count);
        return;
    }
    if (distance == 1) {
        memset(out + at, out[at - 1], count);
        return;
    }
    for (uint64_t i = 0; i < count; i++) /* what is copied is copied again */
        out[at + i] = out[at + i - distance];
}

int lz4_unpack(uint64_t *state, const uint8_t *data, size_t size, uint8_t *out, size_t room,
               size_t until)
{
    uint64_t at = state[LZ4_IN], done = state[LZ4_OUT], token = state[LZ4_TOKEN];
    uint64_t literals = state[LZ4_LITERALS], match = state[LZ4_MATCH];
    uint64_t distance = state[LZ4_DISTANCE];
    if (until > room)
        until = room;
    if (at > size || done > room || (match && (!distance || distance > done)))
        return -1;
    while (done < until) {
        if (match) {
            uint64_t count = match < until - done ? match : until - done;
            copy_match(out, done, distance, count);
            done += count;
            match -= count;
            continue;
        }
        if (literals) {
            uint64_t count = literals < until - done ? literals : until - done;
            if (count > size - at)
                return -1;
            memcpy(out + done, data + at, count);
            at += count;
            done += count;
            literals -= count;
            continue;
        }
        if (token) { /* its literals are there; the last sequence has no match */
            if (at == size)
                break;
            if (size - at < 2)
                return -1;
            distance = (uint64_t)data[at] | (uint64_t)data[at + 1] << 8;
            at += 2;
            match = (token & LONG) + LEAST_MATCH;
            if ((token & LONG) == LONG && !longer(data, size, &at, &match))
                return -1;
            if (!distance || distance > done)
                return -1;
            token = 0;
            continue;
        }
        if (at == size)
            break;
        token = data[at++];
        literals = token >> 4;
        if (literals == LONG && !longer(data, size, &at, &literals))
            return -1;
        token |= 256; /* one is under way, also if it is 0 */
    }
    state[LZ4_IN] = at;
    state[LZ4_OUT] = done;
    state[LZ4_TOKEN] = token;
    state[LZ4_LITERALS] = literals;
    state[LZ4_MATCH] = match;
    state[LZ4_DISTANCE] = distance;
    return 0;
}
