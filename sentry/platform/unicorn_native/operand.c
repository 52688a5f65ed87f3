/* The byte that a page fault was about.
 *
 * unicorn tells a TLB fill only the page. The address is in the instruction: its ModRM operand
 * (SDM volume 2 chapter 2), or one that the opcode implies. Of these the one in the faulting page
 * is the answer; if none is, the access began in the page before, and the fault is about the first
 * byte of the page. Anything not decoded here (bit strings, gathers) falls under that too, which
 * makes the address less exact and nothing else.
 */
#include "machine.h"

#include <string.h>

#define MAX_INSTRUCTION 15

struct decoder {
    struct uctx *c;
    uint8_t bytes[MAX_INSTRUCTION + 9]; /* zeros behind */
    int at;
    int rex, narrow; /* 67: 32-bit addresses */
    int operand16;   /* 66 */
    uint64_t base;   /* of the segment */
};

static const uint8_t number_to_index[16] = {
    R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI,
    R_R8,  R_R9,  R_R10, R_R11, R_R12, R_R13, R_R14, R_R15,
};

static uint64_t reg(const struct decoder *d, int number)
{
    return d->c->regs[number_to_index[number & 15]];
}

static void fetch(struct decoder *d)
{
    for (int i = 0; i < MAX_INSTRUCTION; i++) {
        const uint8_t *byte = user_byte(d->c, d->c->regs[R_RIP] + (uint64_t)i, 0);
        if (!byte)
            return;
        d->bytes[i] = *byte;
    }
}

static void prefixes(struct decoder *d)
{
    for (; d->at < MAX_INSTRUCTION; d->at++) {
        uint8_t b = d->bytes[d->at];
        if (b == 0x64)
            d->base = d->c->regs[R_FS_BASE];
        else if (b == 0x65)
            d->base = d->c->regs[R_GS_BASE];
        else if (b == 0x66)
            d->operand16 = 1;
        else if (b == 0x67)
            d->narrow = 1;
        else if (b != 0xf0 && b != 0xf2 && b != 0xf3 && b != 0x26 && b != 0x2e && b != 0x36 &&
                 b != 0x3e)
            break;
    }
    if ((d->bytes[d->at] & 0xf0) == 0x40)
        d->rex = d->bytes[d->at++];
}

static int one_byte_has_modrm(uint8_t op)
{
    if (op < 0x40)
        return (op & 7) < 4;
    return op == 0x63 || op == 0x69 || op == 0x6b || (op >= 0x80 && op <= 0x8f) ||
           (op & 0xfe) == 0xc0 || (op & 0xfe) == 0xc6 || (op >= 0xd0 && op <= 0xd3) ||
           op >= 0xfe || (op >= 0xd8 && op <= 0xdf) || (op & 0xfe) == 0xf6;
}

static int two_byte_has_modrm(uint8_t op)
{
    if (op >= 0x05 && op <= 0x0b)
        return 0;
    return !((op >= 0x30 && op <= 0x37) || op == 0x77 || (op >= 0x80 && op <= 0x8f) ||
             (op >= 0xa0 && op <= 0xa2) || (op >= 0xa8 && op <= 0xaa) ||
             (op >= 0xc8 && op <= 0xcf));
}

/* Bytes of immediate behind the operand, which RIP-relative addresses count in. */
static int immediate(const struct decoder *d, int map, uint8_t op, uint8_t modrm)
{
    int full = d->operand16 ? 2 : 4;
    if (map == 3)
        return 1;
    if (map == 1)
        return (op >= 0x70 && op <= 0x73) || op == 0xa4 || op == 0xac || op == 0xba ||
               op == 0xc2 || (op >= 0xc4 && op <= 0xc6);
    if (map == 2)
        return 0;
    if (op == 0x81 || op == 0xc7 || op == 0x69)
        return full;
    if (op == 0x80 || op == 0x83 || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0x6b)
        return 1;
    if ((op & 0xfe) == 0xf6 && (modrm & 0x30) == 0)
        return op == 0xf6 ? 1 : full;
    return 0;
}

static uint64_t modrm_address(struct decoder *d, int map, uint8_t op)
{
    uint8_t modrm = d->bytes[d->at++], mod = modrm >> 6, rm = modrm & 7;
    uint64_t address = 0;
    int32_t displacement = 0;
    int relative = 0, wide = mod == 2;
    if (rm == 4) {
        uint8_t sib = d->bytes[d->at++];
        int index = (sib >> 3 & 7) | (d->rex & 2) << 2;
        if (index != 4)
            address = reg(d, index) << (sib >> 6);
        if ((sib & 7) == 5 && mod == 0)
            wide = 1;
        else
            address += reg(d, (sib & 7) | (d->rex & 1) << 3);
    } else if (rm == 5 && mod == 0) {
        wide = relative = 1;
    } else {
        address = reg(d, rm | (d->rex & 1) << 3);
    }
    if (wide) {
        memcpy(&displacement, d->bytes + d->at, sizeof displacement);
        d->at += 4;
    } else if (mod == 1) {
        displacement = (int8_t)d->bytes[d->at++];
    }
    address += (uint64_t)(int64_t)displacement;
    if (relative)
        address += d->c->regs[R_RIP] + (uint64_t)(d->at + immediate(d, map, op, modrm));
    if (d->narrow)
        address = (uint32_t)address;
    return address + d->base;
}

/* Addresses that the opcode implies, the likeliest first; how many. */
static int implied(const struct decoder *d, int map, uint8_t op, uint8_t modrm, int write,
                   uint64_t *address)
{
    const uint64_t *r = d->c->regs;
    int n = 0, extension = modrm >> 3 & 7;
    if (map == 1) {
        if (op == 0xa0 || op == 0xa8) /* PUSH FS, GS */
            address[n++] = r[R_RSP] - 8;
        else if (op == 0xa1 || op == 0xa9)
            address[n++] = r[R_RSP];
        else if (op == 0xf7) /* MASKMOVDQU */
            address[n++] = r[R_RDI] + d->base;
        return n;
    }
    if (map)
        return 0;
    if ((op >= 0x50 && op <= 0x57) || op == 0x68 || op == 0x6a || op == 0x9c || op == 0xe8 ||
        (op == 0xff && (extension == 2 || extension == 6)))
        address[n++] = r[R_RSP] - (d->operand16 ? 2 : 8);
    else if ((op >= 0x58 && op <= 0x5f) || op == 0x8f || op == 0x9d || op == 0xc2 || op == 0xc3 ||
             op == 0xcf)
        address[n++] = r[R_RSP];
    else if (op == 0xc9) /* LEAVE */
        address[n++] = r[R_RBP];
    else if (op == 0xd7) /* XLAT */
        address[n++] = r[R_RBX] + (r[R_RAX] & 0xff) + d->base;
    else if (op == 0xa4 || op == 0xa5) /* MOVS */
        address[n++] = write ? r[R_RDI] : r[R_RSI] + d->base;
    else if (op == 0xa6 || op == 0xa7) /* CMPS */
        address[n++] = r[R_RSI] + d->base, address[n++] = r[R_RDI];
    else if (op == 0xaa || op == 0xab || op == 0xae || op == 0xaf) /* STOS, SCAS */
        address[n++] = r[R_RDI];
    else if (op == 0xac || op == 0xad) /* LODS */
        address[n++] = r[R_RSI] + d->base;
    return n;
}

uint64_t operand_in_page(struct uctx *c, uint64_t page, int write)
{
    struct decoder d = {.c = c};
    uint64_t candidates[4];
    int n = 0, map = 0;
    fetch(&d);
    prefixes(&d);
    uint8_t op = d.bytes[d.at++];
    if (op == 0x0f) {
        map = 1;
        op = d.bytes[d.at++];
        if (op == 0x38 || op == 0x3a) {
            map = op == 0x38 ? 2 : 3;
            op = d.bytes[d.at++];
        }
    }
    uint8_t modrm = d.bytes[d.at];
    if (map > 1 || (map == 1 ? two_byte_has_modrm(op) : one_byte_has_modrm(op))) {
        if (modrm >> 6 != 3)
            candidates[n++] = modrm_address(&d, map, op);
    } else if (map == 0 && op >= 0xa0 && op <= 0xa3) { /* MOV with the address in it */
        uint64_t address;
        memcpy(&address, d.bytes + d.at, sizeof address);
        candidates[n++] = address + d.base;
    }
    n += implied(&d, map, op, modrm, write, candidates + n);
    for (int i = 0; i < n; i++)
        if ((candidates[i] & ~(PAGE_SIZE - 1)) == page)
            return candidates[i];
    return page;
}
