/* What is asked for most often, answered without Python: a file made (Tcreatex with O_EXCL), and a
 * name removed (Tunlinkat). See hot.py, which says which sessions and directories; _build.py.
 *
 * A frame is answered here if nothing about it is unusual, as its handler in gofer/handlers would,
 * by the same functions of native.c. All others are Python's, those with a name that is none, too.
 */
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>

#define HOT_SESSIONS 32
#define HOT_DIRECTORIES 64 /* of a session; a power of two */
#define HOT_AT_ONCE 64     /* requests, before others have their turn */
#define HOT_EVENTS 64

enum { HEADER = 7, RLERROR = 7, TUNLINKAT = 76, TCREATEX = 202 };
enum { DONATED = 2 }; /* OPENED_DONATED of gofer/p9/constants.py */

struct hot_directory {
    uint32_t fid;
    int fd;
    int place;      /* the descriptor of its attachment */
    int is_parent;  /* names in it are known by fids: what is removed may be one of these */
    uint64_t since; /* 1 + `now` when that was learnt: what is older is not so any more */
};

struct hot_session {
    int taken;
    int fd;
    int ready;
    int cpu; /* 1 + that where its client waits for replies; 0: it goes on meanwhile */
    struct hot_directory directories[HOT_DIRECTORIES];
};

/* All 0 in the beginning. */
struct hot {
    uint64_t now; /* goes on when something of a directory changes */
    int cpu;      /* the last request's session's */
    int stays_on; /* 1 + the only one where this thread may run, or 0 */
    cpu_set_t anywhere;
    struct hot_session sessions[HOT_SESSIONS];
};

/* What Python has to go on with. */
struct hot_rest {
    int32_t came;    /* bytes of the first event's socket that are in the buffer; 0: none */
    int32_t owed;    /* bytes of `reply` that its socket did not take, */
    int32_t donated; /* the descriptor that goes with them, or -1 */
    uint8_t reply[128];
};

static struct hot_session *session_of(struct hot *h, int fd)
{
    for (int i = 0; i < HOT_SESSIONS; i++)
        if (h->sessions[i].taken && h->sessions[i].fd == fd)
            return &h->sessions[i];
    return NULL;
}

static struct hot_session *new_session(struct hot *h, int fd)
{
    for (int i = 0; i < HOT_SESSIONS; i++)
        if (!h->sessions[i].taken) {
            h->sessions[i] = (struct hot_session){.taken = 1, .fd = fd};
            return &h->sessions[i];
        }
    return NULL;
}

/* Whether the next request of the session on this socket may be answered here. A new one gets a place
 * if there is one. */
void hot_ready(struct hot *h, int fd, int ready)
{
    struct hot_session *s = session_of(h, fd);
    if (!s && ready)
        s = new_session(h, fd);
    if (s)
        s->ready = ready;
}

/* The client of the session on this socket waits for its replies on this CPU, if there can be such. */
void hot_near(struct hot *h, int fd, uint32_t cpu)
{
    struct hot_session *s = session_of(h, fd);
    if (!s)
        s = new_session(h, fd);
    if (s)
        s->cpu = h->cpu = cpu < CPU_SETSIZE ? (int)cpu + 1 : 0;
}

/* Be where the next request probably comes from: who waits for its reply leaves the CPU to this
 * thread, and needs no other one woken. Where the host does not let it: where it is. */
static void stay_near(struct hot *h)
{
    cpu_set_t there;
    if (h->stays_on == h->cpu)
        return;
    if (!h->stays_on && sched_getaffinity(0, sizeof h->anywhere, &h->anywhere))
        return;
    there = h->anywhere;
    if (h->cpu) {
        CPU_ZERO(&there);
        CPU_SET((size_t)h->cpu - 1, &there);
        CPU_AND(&there, &there, &h->anywhere);
    }
    if (CPU_COUNT(&there))
        (void)!sched_setaffinity(0, sizeof there, &there);
    h->stays_on = h->cpu;
}

/* The calling thread, which was made by the one that waits, runs where that one might. */
void hot_roam(const struct hot *h)
{
    if (h->stays_on)
        (void)!sched_setaffinity(0, sizeof h->anywhere, &h->anywhere);
}

/* The socket is closed. */
void hot_forget(struct hot *h, int fd)
{
    struct hot_session *s = session_of(h, fd);
    if (s)
        s->taken = 0;
}

/* What is known of fids is to be learnt anew. */
void hot_forget_directories(struct hot *h) { h->now++; }

/* `fid` is a directory that may be written in; this descriptor is it. Whether there is a place for the
 * session. */
int hot_learn(struct hot *h, int fd, uint32_t fid, int dirfd, int place, int is_parent)
{
    struct hot_session *s = session_of(h, fd);
    if (!s && !(s = new_session(h, fd)))
        return 0;
    s->directories[fid % HOT_DIRECTORIES] = (struct hot_directory){
        .fid = fid, .fd = dirfd, .place = place, .is_parent = is_parent, .since = h->now + 1};
    return 1;
}

static const struct hot_directory *directory_of(const struct hot *h, const struct hot_session *s,
                                                uint32_t fid)
{
    const struct hot_directory *d = &s->directories[fid % HOT_DIRECTORIES];
    return d->fid == fid && d->since == h->now + 1 ? d : NULL;
}

/* The rest of a frame. What is read past its end is 0 and counts as short. */
struct reader {
    const uint8_t *at, *end;
    int is_short;
};

static uint32_t take(struct reader *r, size_t size)
{
    uint32_t value = 0;
    if ((size_t)(r->end - r->at) < size) {
        r->is_short = 1;
        r->at = r->end;
        return 0;
    }
    memcpy(&value, r->at, size);
    r->at += size;
    return value;
}

/* One component, as check_name() in native.py has it; 0: it is none. */
static int take_name(struct reader *r, char name[256])
{
    size_t length = take(r, 2);
    if (!length || length > 255 || (size_t)(r->end - r->at) < length)
        return 0;
    memcpy(name, r->at, length);
    name[length] = 0;
    r->at += length;
    return strlen(name) == length && !strchr(name, '/') && !is_dots(name);
}

/* The reply's size, and the descriptor that goes with it; 0: the request is not for here. */
static int answer(const struct hot *h, const struct hot_session *s, const uint8_t *frame,
                  size_t size, uint8_t *reply, int *donated)
{
    struct reader r = {.at = frame + 4, .end = frame + size};
    char name[256];
    uint32_t type = take(&r, 1), tag = take(&r, 2);
    const struct hot_directory *d = directory_of(h, s, take(&r, 4));
    int rc;
    uint8_t *body = reply + HEADER, *end = body;

    if (!d || tag == 0xffff)
        return 0;
    if (type == TCREATEX) {
        uint32_t newfid = take(&r, 4);
        if (newfid != 0xffffffff || !take_name(&r, name))
            return 0;
        uint32_t flags = take(&r, 4), donate = take(&r, 1), mode = take(&r, 4);
        uint32_t uid = take(&r, 4), gid = take(&r, 4);
        if (r.is_short || r.at != r.end || !donate || !(flags & O_EXCL))
            return 0;
        rc = gofer_create(d->fd, name, flags & (O_ACCMODE | O_SYNC | O_DSYNC), mode, uid, gid,
                          body + 2);
        if (rc >= 0) {
            *donated = rc;
            body[0] = DONATED;
            body[1] = 1;
            end = body + 2 + BLOCK;
        }
    } else if (type == TUNLINKAT) {
        if (d->is_parent || !take_name(&r, name))
            return 0;
        uint32_t flags = take(&r, 4);
        if (r.is_short || r.at != r.end || flags)
            return 0;
        rc = gofer_unlink(d->fd, name);
    } else
        return 0;
    reply[4] = (uint8_t)(type + 1);
    if (rc < 0) {
        reply[4] = RLERROR;
        end = put32(body, (uint32_t)-rc);
    }
    put32(reply, (uint32_t)(end - reply));
    memcpy(reply + 5, &tag, 2);
    return (int)(end - reply);
}

/* How much of a reply the socket has taken; with the first byte goes the descriptor, which is closed
 * here then. What fails is told to Python when it tries. */
static int transmit(int fd, uint8_t *reply, int size, int *donated)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {reply, (size_t)size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (*donated >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), donated, sizeof(int));
    }
    ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0)
        return 0;
    if (*donated >= 0)
        close(*donated);
    *donated = -1;
    return (int)sent;
}

/* Answer what has come on a session's socket as far as it is for here. Whether all of it was; else
 * `rest` and the buffer have what is Python's. `left` requests may be answered. */
static int serve(const struct hot *h, struct hot_session *s, uint8_t *data, size_t room,
                 struct hot_rest *rest, int *left)
{
    ssize_t got = recv(s->fd, data, room, MSG_DONTWAIT);
    if (got <= 0) /* the end, or an error, or nothing: Python asks again */
        return 0;
    size_t at = 0, count = (size_t)got;
    while (at < count && *left > 0) {
        uint32_t size = 0;
        if (count - at >= HEADER)
            memcpy(&size, data + at, 4);
        if (size < HEADER || size > count - at)
            break;
        int donated = -1, length = answer(h, s, data + at, size, rest->reply, &donated);
        if (!length)
            break;
        at += size;
        --*left;
        int sent = transmit(s->fd, rest->reply, length, &donated);
        if (sent < length) {
            memmove(rest->reply, rest->reply + sent, (size_t)(length - sent));
            rest->owed = length - sent;
            rest->donated = donated;
            break;
        }
    }
    rest->came = (int32_t)(count - at);
    memmove(data, data + at, count - at);
    return !rest->came && !rest->owed;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* epoll_wait(2) of `epoll`, whose events have descriptors as their data, as pairs in `out`; what is
 * for here is answered meanwhile. At most `HOT_AT_ONCE` such requests, then perhaps no event. */
int hot_wait(struct hot *h, int epoll, int timeout_ms, int *out, uint8_t *data, size_t room,
             struct hot_rest *rest)
{
    struct epoll_event events[HOT_EVENTS];
    int left = HOT_AT_ONCE;
    int64_t end = timeout_ms > 0 ? now_ms() + timeout_ms : 0;

    *rest = (struct hot_rest){.donated = -1};
    for (;;) {
        stay_near(h);
        int n = epoll_wait(epoll, events, HOT_EVENTS, timeout_ms), kept = 0;
        if (n < 0)
            return errno == EINTR ? 0 : -errno;
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            struct hot_session *s = events[i].events & EPOLLIN ? session_of(h, fd) : NULL;
            h->cpu = s ? s->cpu : 0;
            if (s && events[i].events == EPOLLIN && s->ready && left > 0) {
                if (serve(h, s, data, room, rest, &left))
                    continue;
                s->ready = 0;
                kept = rest->came || rest->owed ? 0 : kept;
            }
            out[2 * kept] = fd;
            out[2 * kept + 1] = (int)events[i].events;
            kept++;
            if (rest->came || rest->owed)
                return kept; /* the others are told again */
        }
        if (kept || !n || left <= 0)
            return kept;
        if (end && (timeout_ms = (int)(end - now_ms())) < 0)
            timeout_ms = 0;
    }
}
