/* The records of a journal, read and for the most part carried out without Python. See records.py,
 * which says how; journal.py, who does the rest; _build.py.
 *
 * The ring is written by somebody hostile: it is read by pread(2), each byte that counts once, and a
 * record is looked at in that copy only. What is refused here Python does once more, and finds out
 * why: what has been done of it by then may be done twice.
 */
#include "p9/crc32.h"

#define DRAIN_SPARES 4096  /* a power of two */
#define DRAIN_NAMES 4096   /* the same */
#define RECORD_HEADER 16   /* check[4] length[4] position[8]: gofer/p9/journal.py */
#define RECORD_FRAME_MAX (1 << 17)
#define RECORD_FIRST 4096  /* bytes that are looked at before it is known that there is more */
#define WALK_MAX 16        /* MAX_WALK of gofer/p9/constants.py */

enum { TCLUNK = 120, TWALKX = 200, TMAKEX = 204, TRENAMEX = 208, TSETATTRX = 212, TSETXATTRX = 216,
       TREMOVEXATTRX = 218, TLINKX = 220, TNAMEX = 246, TREVERTX = 248 };
enum { SET_MODE = 1, SET_UID = 2, SET_GID = 4, SET_SIZE = 8, SET_ATIME = 16, SET_MTIME = 32,
       SET_ATIME_TO = 128, SET_MTIME_TO = 256 }; /* SETATTR_… of gofer/p9/constants.py */
enum drain_what { DRAIN_DO, DRAIN_LEAVE_OUT, DRAIN_GIVE_BACK };

struct drain_record {
    uint64_t position;
    uint32_t at, size; /* of its frame in `bytes` */
    int32_t what;      /* DRAIN_GIVE_BACK: a Tnamex of which only the fid's end is left */
};

/* A file without a name, whose fid only this table knows. */
struct drain_spare {
    int taken;
    uint32_t fid;
    int fd;
};

struct drain {
    uint64_t position; /* of the next record */
    uint64_t capacity;
    int ring;
    int count;         /* records that were read last */
    int held;          /* spares, */
    int place;         /* and in which attachment (its descriptor) */
    int may_link;      /* one of them could have been given a name */
    uint32_t mode;     /* of the last that was: the next ones are made with it */
    struct drain_spare spares[DRAIN_SPARES];
    uint8_t *bytes;
    struct drain_record *records;
};

/* A record's fields, in their order: numbers, and texts as they lie in the frame. */
struct fields {
    uint64_t number[8];
    struct text {
        const uint8_t *at;
        size_t size;
    } text[WALK_MAX];
    int numbers, texts;
};

void drain_end(struct drain *d)
{
    if (!d)
        return;
    for (int i = 0; i < DRAIN_SPARES; i++)
        if (d->spares[i].taken)
            close(d->spares[i].fd);
    free(d->bytes);
    free(d->records);
    free(d);
}

/* Of a ring in a file in memory of so many bytes. NULL: there is no memory. */
struct drain *drain_begin(int ring, uint64_t capacity)
{
    struct drain *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->ring = ring;
    d->capacity = capacity;
    d->mode = 0600;
    d->bytes = malloc(capacity);
    d->records = malloc((capacity / (RECORD_HEADER + HEADER) + 1) * sizeof *d->records);
    if (d->bytes && d->records)
        return d;
    drain_end(d);
    return NULL;
}

/* More of the ring, from the position on, so that `size` bytes are in the copy. How many there are. */
static size_t look(const struct drain *d, size_t have, size_t size)
{
    while (have < size) {
        uint64_t at = (d->position + have) % d->capacity;
        size_t want = size - have, left = (size_t)(d->capacity - at);
        ssize_t got = pread(d->ring, d->bytes + have, want < left ? want : left, (off_t)at);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    return have;
}

/* The size of the record that begins at `at` of the copy, as far as its header can be believed; 0: it
 * is none, or is not whole in these `have` bytes, of which there would have to be `need`. */
static size_t record_at(const struct drain *d, size_t at, size_t have, size_t *need)
{
    uint32_t check, length;
    uint64_t position;
    if (have - at < RECORD_HEADER) {
        *need = at + RECORD_HEADER;
        return 0;
    }
    memcpy(&check, d->bytes + at, 4);
    memcpy(&length, d->bytes + at + 4, 4);
    memcpy(&position, d->bytes + at + 8, 8);
    size_t size = RECORD_HEADER + (size_t)length;
    *need = 0;
    if (position != d->position + at || length > RECORD_FRAME_MAX || size > d->capacity - at)
        return 0;
    if (have - at < size) {
        *need = at + size;
        return 0;
    }
    return crc32_of(d->bytes + at + 4, size - 4) == check ? size : 0;
}

/* Read the records that are there, one lap at most. How many; -EPROTO: after these comes one that is
 * no frame. The position is that after them. */
int drain_read(struct drain *d)
{
    size_t at = 0, have = 0, need = 0, ahead = RECORD_FIRST;
    int broken = 0;
    d->count = 0;
    for (;;) {
        size_t size = record_at(d, at, have, &need);
        if (!size && need && need <= d->capacity) {
            size_t most = need > have + ahead ? need : have + ahead;
            size_t more = look(d, have, most < d->capacity ? most : d->capacity);
            ahead *= 2;
            if (more < need)
                break;
            have = more;
            continue;
        }
        if (!size)
            break;
        uint32_t length, frame = (uint32_t)size - RECORD_HEADER;
        memcpy(&length, d->bytes + at + RECORD_HEADER, frame < 4 ? 0 : 4);
        if (frame < HEADER || length != frame) {
            broken = 1;
            break;
        }
        d->records[d->count++] = (struct drain_record){
            .position = d->position + at, .at = (uint32_t)at + RECORD_HEADER, .size = frame};
        at += size;
    }
    d->position += at;
    return broken ? -EPROTO : d->count;
}

/* The kinds that a journal has, and their fields after the tag: 1, 4, 8 bytes, s: a text, d: a long
 * one, n: several. */
static const char *shape_of(uint8_t type)
{
    switch (type) {
    case TUNLINKAT: return "4s4";
    case TCLUNK: return "4";
    case TWALKX: return "4441n";
    case TMAKEX: return "4ss4448";
    case TRENAMEX: return "4s4s4";
    case TSETATTRX: return "4s4444888";
    case TSETXATTRX: return "4ss4d";
    case TREMOVEXATTRX: return "4ss";
    case TLINKX: return "4s4s";
    case TNAMEX: return "44s4448";
    case TREVERTX: return "4";
    default: return NULL;
    }
}

static void take_text(struct reader *r, struct fields *f, size_t size)
{
    if ((size_t)(r->end - r->at) < size) {
        r->is_short = 1;
        return;
    }
    f->text[f->texts++] = (struct text){r->at, size};
    r->at += size;
}

/* Whether it is such a request, and what is in it. */
static int parse(const uint8_t *frame, size_t size, struct fields *f)
{
    struct reader r = {.at = frame + HEADER, .end = frame + size};
    const char *shape = shape_of(frame[4]);
    *f = (struct fields){.numbers = 0};
    if (!shape)
        return 0;
    for (; *shape && !r.is_short; shape++) {
        if (*shape == 's')
            take_text(&r, f, take(&r, 2));
        else if (*shape == 'd')
            take_text(&r, f, take(&r, 4));
        else if (*shape == 'n') {
            size_t count = take(&r, 2);
            if (count > WALK_MAX)
                return 0;
            while (count-- && !r.is_short)
                take_text(&r, f, take(&r, 2));
        } else if (*shape == '8') {
            uint64_t low = take(&r, 4);
            f->number[f->numbers++] = low | (uint64_t)take(&r, 4) << 32;
        } else
            f->number[f->numbers++] = take(&r, *shape == '1' ? 1 : 4);
    }
    if (r.is_short || r.at != r.end)
        return 0;
    if (frame[4] == TWALKX) { /* it binds a fid, and opens nothing */
        uint32_t newfid = (uint32_t)f->number[1];
        return f->number[2] == 0xffffffff && !f->number[3] && newfid != 0xffffffff
               && newfid != f->number[0];
    }
    return 1;
}

static uint8_t kind_of(const struct drain *d, int i) { return d->bytes[d->records[i].at + 4]; }

static int fields_of(const struct drain *d, int i, struct fields *f)
{
    return parse(d->bytes + d->records[i].at, d->records[i].size, f);
}

static int has_kind(const struct drain *d, uint8_t kind)
{
    for (int i = 0; i < d->count; i++)
        if (kind_of(d, i) == kind)
            return 1;
    return 0;
}

static uint32_t hash_of(const uint8_t *p, size_t size)
{
    uint32_t h = 2166136261u;
    while (size--)
        h = (h ^ *p++) * 16777619u;
    return h ^ h >> 15;
}

/* Each Trevertx, and the Tnamex that it is about. */
static int leave_out_reverted(struct drain *d)
{
    struct fields f;
    uint32_t slots = 16, *named; /* by the fid: 1 + the last Tnamex of it */
    if (!has_kind(d, TREVERTX))
        return 0;
    while (slots < 2 * (uint32_t)d->count)
        slots *= 2;
    named = calloc(2 * (size_t)slots, sizeof *named);
    if (!named)
        return -ENOMEM;
    for (int i = 0; i < d->count; i++) {
        uint8_t kind = kind_of(d, i);
        if (kind != TNAMEX && kind != TREVERTX)
            continue;
        fields_of(d, i, &f);
        uint32_t fid = (uint32_t)f.number[0], at = fid * 2654435761u >> 7 & (slots - 1);
        while (named[2 * at] && named[2 * at + 1] != fid)
            at = (at + 1) & (slots - 1);
        if (kind == TNAMEX) {
            named[2 * at] = (uint32_t)i + 1;
            named[2 * at + 1] = fid;
            continue;
        }
        d->records[i].what = DRAIN_LEAVE_OUT;
        if (named[2 * at] && named[2 * at] != UINT32_MAX) {
            d->records[named[2 * at] - 1].what = DRAIN_LEAVE_OUT;
            named[2 * at] = UINT32_MAX;
        }
    }
    free(named);
    return 0;
}

/* What is made under a name that is not mentioned again before it is removed. */
struct making {
    int record; /* 1 + its number; 0: nothing */
    uint32_t fid, flags;
    struct text name;
};

/* Each making of a name that is removed again, nothing of that name being mentioned between, and the
 * removal; not where a file gets one name more, since the names of what goes on are those of a moment
 * of the history. Names are compared, whatever the directory: fids of one directory may be several.
 * Of two names with the same place only the later one is known, and a fid's change is one of those
 * with the same place: so less is left out, which is no harm. */
static int leave_out_vanished(struct drain *d)
{
    struct making *made;
    int *changed; /* by the fid: the last that binds or ends it */
    struct fields f;
    if (!has_kind(d, TUNLINKAT) || !(has_kind(d, TNAMEX) || has_kind(d, TMAKEX) || has_kind(d, TLINKX)))
        return 0;
    made = calloc(DRAIN_NAMES, sizeof *made);
    changed = calloc(DRAIN_NAMES, sizeof *changed);
    if (!made || !changed) {
        free(made);
        free(changed);
        return -ENOMEM;
    }
    for (int i = 0; i < d->count; i++) {
        if (d->records[i].what == DRAIN_LEAVE_OUT)
            continue;
        uint8_t kind = kind_of(d, i);
        fields_of(d, i, &f);
        /* The second text of these is no name of a file. */
        int names = kind == TMAKEX || kind == TSETXATTRX || kind == TREMOVEXATTRX ? 1 : f.texts;
        struct making *m = NULL, last = {0};
        for (int k = 0; k < names; k++) {
            m = &made[hash_of(f.text[k].at, f.text[k].size) & (DRAIN_NAMES - 1)];
            last = *m;
            if (last.name.size != f.text[k].size
                || (last.record && memcmp(last.name.at, f.text[k].at, last.name.size)))
                last.record = 0;
            else
                m->record = 0;
        }
        if (kind == TUNLINKAT && last.record && last.fid == f.number[0] && last.flags == f.number[1]
            && changed[last.fid & (DRAIN_NAMES - 1)] < last.record) {
            int first = last.record - 1;
            d->records[i].what = DRAIN_LEAVE_OUT;
            d->records[first].what = kind_of(d, first) == TNAMEX ? DRAIN_GIVE_BACK : DRAIN_LEAVE_OUT;
        }
        if (kind == TNAMEX || (kind == TLINKX && !f.text[0].size))
            *m = (struct making){i + 1, (uint32_t)f.number[1], 0, f.text[f.texts - 1]};
        else if (kind == TMAKEX)
            *m = (struct making){i + 1, (uint32_t)f.number[0],
                                 S_ISDIR(f.number[1]) ? AT_REMOVEDIR : 0, f.text[0]};
        else if (kind == TCLUNK)
            changed[f.number[0] & (DRAIN_NAMES - 1)] = i + 1;
        else if (kind == TWALKX)
            changed[f.number[1] & (DRAIN_NAMES - 1)] = i + 1;
    }
    free(made);
    free(changed);
    return 0;
}

/* Which of the records that were read are to be done. -EPROTO: those that are left are, and the one
 * after them is nothing that a journal has. */
int drain_sort(struct drain *d)
{
    struct fields f;
    int broken = 0;
    for (int i = 0; i < d->count && !broken; i++)
        if (!fields_of(d, i, &f)) {
            d->count = i;
            broken = 1;
        }
    int rc = leave_out_reverted(d);
    if (!rc)
        rc = leave_out_vanished(d);
    return rc ? rc : broken ? -EPROTO : 0;
}

/* Number `i` of them. */
const struct drain_record *drain_record(const struct drain *d, int i) { return &d->records[i]; }

/* --- spares */

static struct drain_spare *spare_of(struct drain *d, uint32_t fid)
{
    struct drain_spare *s = &d->spares[fid & (DRAIN_SPARES - 1)];
    return s->taken && s->fid == fid ? s : NULL;
}

/* Whether a new one with this fid would be known here. */
static int drain_has_place(const struct drain *d, uint32_t fid)
{
    return !d->spares[fid & (DRAIN_SPARES - 1)].taken;
}

int drain_has(struct drain *d, uint32_t fid) { return !!spare_of(d, fid); }

/* Attributes of a new file, in which it may say that it has no extended ones. */
static int stat_new(int fd, uint8_t *block)
{
    int rc = gofer_stat(fd, "", block);
    if (!rc && !flistxattr(fd, NULL, 0))
        block[BLOCK - 4] |= NO_XATTRS; /* the flags, which come last */
    return rc;
}

/* A new file on the file system of the directory `dirfd`, known by this fid, and its attributes; a
 * second descriptor of it. A link to "." is never made: EEXIST says that linkat(2) would take the
 * descriptor, which needs CAP_DAC_READ_SEARCH (or Linux 6.10). Preconditions: there is a place. */
static int drain_spare(struct drain *d, int dirfd, uint32_t fid, uint8_t *block)
{
    int fd = gofer_open(dirfd, ".", O_TMPFILE | O_RDWR, d->mode);
    if (fd < 0)
        return fd;
    int rc = stat_new(fd, block), donated = -1;
    if (!rc && !d->may_link) {
        d->may_link = gofer_link(fd, dirfd, ".") == -EEXIST;
        rc = d->may_link ? 0 : -EOPNOTSUPP;
    }
    if (!rc)
        donated = rc = result(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (rc < 0) {
        close(fd);
        return rc;
    }
    d->spares[fid & (DRAIN_SPARES - 1)] = (struct drain_spare){1, fid, fd};
    d->held++;
    return donated;
}

/* The same for several fids: how many were made, before one that has no place here or an error; their
 * attributes, and their second descriptors. */
int drain_spares(struct drain *d, int dirfd, const uint32_t *fids, int count, uint8_t *blocks, int *fds)
{
    for (int i = 0; i < count; i++) {
        int fd = drain_has_place(d, fids[i]) ? drain_spare(d, dirfd, fids[i], blocks + i * BLOCK) : -EBADF;
        if (fd < 0)
            return i;
        fds[i] = fd;
    }
    return count;
}

/* Its descriptor, which is the caller's from now on, or -1. */
int drain_take(struct drain *d, uint32_t fid)
{
    struct drain_spare *s = spare_of(d, fid);
    if (!s)
        return -1;
    s->taken = 0;
    d->held--;
    return s->fd;
}

/* It ends. -1: it is none. */
int drain_drop(struct drain *d, uint32_t fid)
{
    int fd = drain_take(d, fid);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

/* The fids of all. */
int drain_fids(const struct drain *d, uint32_t *fids)
{
    int count = 0;
    for (int i = 0; i < DRAIN_SPARES; i++)
        if (d->spares[i].taken)
            fids[count++] = d->spares[i].fid;
    return count;
}

/* --- what is carried out here */

static int is_name(const struct text *t, char name[256])
{
    if (!t->size || t->size > 255)
        return 0;
    memcpy(name, t->at, t->size);
    name[t->size] = 0;
    return strlen(name) == t->size && !strchr(name, '/') && !is_dots(name);
}

static int set_attributes(int fd, const struct fields *f)
{
    uint64_t valid = f->number[1];
    int rc = 0, which = (valid & SET_ATIME ? 1 : 0) | (valid & SET_MTIME ? 2 : 0)
                        | (valid & SET_ATIME_TO ? 4 : 0) | (valid & SET_MTIME_TO ? 8 : 0);
    if (valid & (SET_UID | SET_GID))
        rc = gofer_chown(fd, valid & SET_UID ? (uint32_t)f->number[3] : NOBODY,
                         valid & SET_GID ? (uint32_t)f->number[4] : NOBODY);
    if (!rc && valid & SET_MODE)
        rc = gofer_chmod(fd, f->number[2] & 07777);
    if (!rc && which & 3)
        rc = gofer_utimens(fd, (int64_t)f->number[6], (int64_t)f->number[7], which);
    return rc;
}

/* The file that got its name last, in case that its attributes are changed next. */
struct named {
    int fd;
    uint32_t fid;
    char name[256];
};

static int change(const struct hot_directory *dir, const struct fields *f, const struct named *last)
{
    char name[256];
    if (!dir || f->number[1] & SET_SIZE)
        return -1;
    if (!f->text[0].size)
        return set_attributes(dir->fd, f);
    if (!is_name(&f->text[0], name))
        return -1;
    if (last->fd >= 0 && last->fid == dir->fid && !strcmp(last->name, name))
        return set_attributes(last->fd, f);
    int fd = gofer_open(dir->fd, name, O_PATH, 0);
    if (fd < 0)
        return fd;
    int rc = set_attributes(fd, f);
    close(fd);
    return rc;
}

/* The records after number `i`, a Tnamex, that change mode or times of its file and nothing else:
 * their number. All of it can be done at once, before others see the file. */
static int changes_after(const struct drain *d, int i, int most, const struct fields *named,
                         struct given *g)
{
    const uint64_t times = SET_ATIME | SET_ATIME_TO | SET_MTIME | SET_MTIME_TO;
    const struct text *name = &named->text[0];
    struct fields f;
    int n = 0;
    while (n < most && i + n + 1 < d->count && d->records[i + n + 1].what == DRAIN_DO
           && kind_of(d, i + n + 1) == TSETATTRX && fields_of(d, i + n + 1, &f)) {
        uint64_t valid = f.number[1];
        if (f.number[0] != named->number[1] || f.text[0].size != name->size
            || memcmp(f.text[0].at, name->at, name->size) || valid & ~(times | SET_MODE)
            || !(valid & SET_ATIME) != !(valid & SET_ATIME_TO)
            || !(valid & SET_MTIME) != !(valid & SET_MTIME_TO)
            || (valid & SET_MODE && f.number[2] & 07000))
            break;
        if (valid & SET_MODE)
            g->mode = f.number[2] & 0777;
        if (valid & SET_ATIME)
            g->atime_ns = (int64_t)f.number[6];
        if (valid & SET_MTIME)
            g->mtime_ns = (int64_t)f.number[7];
        g->which |= (valid & SET_ATIME ? 5 : 0) | (valid & SET_MTIME ? 10 : 0);
        n++;
    }
    return n;
}

/* How many records that was: with it changes of the file that come next, `most` in all. */
static int give_name(struct drain *d, const struct hot_directory *dir, const struct fields *f, int i,
                     int most, struct named *last)
{
    struct drain_spare *s = spare_of(d, (uint32_t)f->number[0]);
    char name[256];
    if (!s || !dir || dir->place != d->place || !is_name(&f->text[0], name))
        return -1;
    struct given g = {
        .mode = f->number[2] & 07777, .uid = (uint32_t)f->number[3], .gid = (uint32_t)f->number[4],
        .time_ns = (int64_t)f->number[5]};
    int more = g.mode & 07000 ? 0 : changes_after(d, i, most - 1, f, &g);
    int rc = give(s->fd, dir->fd, name, &g);
    if (rc < 0)
        return rc;
    if (last->fd >= 0)
        close(last->fd);
    *last = (struct named){.fd = s->fd, .fid = dir->fid};
    memcpy(last->name, name, sizeof name);
    d->mode = g.mode & 0777;
    s->taken = 0;
    d->held--;
    return 1 + more;
}

/* Number `i`, and what can be done with it, `most` records in all: how many these are. */
static int carry_out(struct drain *d, const struct hot *h, const struct hot_session *s, int i,
                     int most, struct named *last)
{
    struct fields f;
    char name[256];
    fields_of(d, i, &f);
    uint32_t fid = (uint32_t)f.number[0];
    if (d->records[i].what == DRAIN_GIVE_BACK)
        return drain_drop(d, fid) < 0 ? -1 : 1;
    switch (kind_of(d, i)) {
    case TNAMEX:
        return give_name(d, directory_of(h, s, (uint32_t)f.number[1]), &f, i, most, last);
    case TSETATTRX:
        return change(directory_of(h, s, fid), &f, last) < 0 ? -1 : 1;
    case TUNLINKAT: {
        const struct hot_directory *dir = directory_of(h, s, fid);
        if (!dir || dir->is_parent || f.number[1] || !is_name(&f.text[0], name))
            return -1;
        return gofer_unlink(dir->fd, name) < 0 ? -1 : 1;
    }
    case TCLUNK:
        return drain_drop(d, fid) < 0 ? -1 : 1;
    default:
        return -1;
    }
}

/* Carry out records from number `from` on, `most` at most, for the session on the socket `sock`. The
 * number of the next one: what is Python's to do, or the count of them. */
int drain_run(struct drain *d, struct hot *h, int sock, int from, int most)
{
    static const struct hot_session nobody;
    const struct hot_session *s = session_of(h, sock);
    struct named last = {.fd = -1};
    int i = from, done = 1;
    for (; i < d->count && i - from < most; i += done) {
        int left = most - (i - from);
        done = 1;
        if (d->records[i].what != DRAIN_LEAVE_OUT
            && (done = carry_out(d, h, s ? s : &nobody, i, left, &last)) < 0)
            break;
    }
    if (last.fd >= 0)
        close(last.fd);
    return i;
}
