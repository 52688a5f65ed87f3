/* CRC-32 as binascii.crc32() has it, of what both sides of a journal check: journal.py. */
#ifndef GOFER_P9_CRC32_H
#define GOFER_P9_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Of what comes after that of which `crc` is. */
static inline uint32_t crc32_more(uint32_t crc, const uint8_t *p, size_t size)
{
    static uint32_t table[256]; /* used by one thread */
    crc = ~crc;
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    while (size--)
        crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}

static inline uint32_t crc32_of(const uint8_t *p, size_t size) { return crc32_more(0, p, size); }

#endif
