/* Where events come from: sandboxes that connect to a Unix socket, each with a stream of JSON
 * lines, or a file of such lines.
 *
 * A sandbox may have been taken over, so nothing it sends is believed: a line has a length, all
 * that is kept together has one, a line that is no object with a "point" ends the connection, and
 * what it says of the time is a field, not the event's time. */
#define _GNU_SOURCE
#include "runsc.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 512, BATCH = 64, WAIT_MS = 100, PIECE = 1 << 16 };
static const size_t MAX_LINE = 1 << 21, MAX_KEPT = 64 << 20;

/* Why a sandbox is not heard. */
enum reason { TOO_MANY, NO_DESCRIPTOR, NO_RECORD, NO_ROOM, REASONS };
static const char *const SAID[] = {
    "too many sandboxes", "no descriptor is left", "it has sent what is no record",
    "more waits than there is room for",
};
static const char UNHEARD[] = "plugin/unheard"; /* the point of such events */

struct connection {
    int fd;   /* -1: none */
    int over; /* nothing more comes; its last lines are here */
    char *data;
    size_t used, room;
};

struct instance {
    int listening; /* -1: a file is read, as the only connection */
    int rests;     /* nobody could be let in: the next moment is for the others */
    int is_short;  /* of descriptors, since somebody was let in last */
    unsigned unheard[REASONS]; /* so many that no event has told of yet */
    int next;      /* whose turn it is */
    size_t kept;   /* bytes of room of all connections */
    struct connection connections[MAX_CONNECTIONS];
    struct event *events[BATCH];
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct stat made; /* what is there: another one may take its place */
};

static void hang_up(struct instance *it, struct connection *c) {
    if (c->fd >= 0)
        close(c->fd);
    free(c->data);
    it->kept -= c->room;
    *c = (struct connection){.fd = -1};
}

/* Whether what is at an address is a socket that nobody listens at any more. */
static int is_left(const struct sockaddr_un *address) {
    struct stat info;
    if (lstat(address->sun_path, &info) || !S_ISSOCK(info.st_mode))
        return 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    int left = connect(fd, (const struct sockaddr *)address, sizeof *address) && errno == ECONNREFUSED;
    close(fd);
    return left;
}

static int listen_at(struct instance *it, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    if (is_left(&address))
        unlink(path); /* of one that was killed */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* bind(2) makes it with the socket's mode; umask(2) would be that of Falco's other threads, too.
     * What is there already (EADDRINUSE) is another Falco's, or no socket. */
    if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&address, sizeof address) ||
        listen(fd, 128) || lstat(path, &it->made)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    strcpy(it->path, path);
    return fd;
}

struct instance *source_open(const char *where, char *error, size_t size) {
    struct instance *it = calloc(1, sizeof *it);
    if (!it) {
        snprintf(error, size, "no memory");
        return NULL;
    }
    it->listening = -1;
    for (int i = 0; i < MAX_CONNECTIONS; i++)
        it->connections[i].fd = -1;
    int is_socket = !strncmp(where, "unix:", 5);
    int fd = is_socket ? listen_at(it, where + 5) : open(where, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(error, size, "%s: %s", where, strerror(errno));
        free(it);
        return NULL;
    }
    if (is_socket)
        it->listening = fd;
    else
        it->connections[0].fd = fd;
    return it;
}

static void forget_batch(struct instance *it) {
    for (int i = 0; i < BATCH; i++) {
        free(it->events[i]);
        it->events[i] = NULL;
    }
}

void source_close(struct instance *it) {
    if (!it)
        return;
    forget_batch(it);
    for (int i = 0; i < MAX_CONNECTIONS; i++)
        hang_up(it, &it->connections[i]);
    if (it->listening >= 0) {
        struct stat now;
        if (!lstat(it->path, &now) && now.st_ino == it->made.st_ino && now.st_dev == it->made.st_dev)
            unlink(it->path);
        close(it->listening);
    }
    free(it);
}

/* How many bytes from `at` on are among `wanted`. */
static size_t span(const char *at, size_t left, const char *wanted) {
    size_t n = 0;
    while (n < left && at[n] && strchr(wanted, at[n]))
        n++;
    return n;
}

/* Whether jansson's numbers have no such one: a whole number of so many bytes at `at`. */
static int is_large(const char *at, size_t size) {
    static const char MOST[2][20] = {"9223372036854775807", "9223372036854775808"};
    int negative = *at == '-';
    at += negative;
    size -= negative;
    return size > 19 || (size == 19 && memcmp(at, MOST[negative], 19) > 0);
}

/* A line, with texts in the place of such numbers: as many bytes as are written into `to`, which has
 * room for twice as many as there are. */
static size_t with_texts(const char *line, size_t length, char *to) {
    size_t used = 0;
    int is_text = 0;
    for (size_t i = 0; i < length;) {
        size_t some = is_text ? 0 : span(line + i, length - i, "-+.0123456789eE");
        int large = some && span(line + i, some, "-0123456789") == some && is_large(line + i, some);
        if (!some) {
            some = is_text && line[i] == '\\' && i + 1 < length ? 2 : 1;
            is_text ^= line[i] == '"';
        }
        if (large)
            to[used++] = '"';
        memcpy(to + used, line + i, some);
        used += some;
        i += some;
        if (large)
            to[used++] = '"';
    }
    return used;
}

/* NULL: it is no JSON. Registers are numbers up to 2^64, of which jansson knows half. A program
 * chooses them, and must not be able to end its own supervision by one. */
json_t *line_read(const char *line, size_t length) {
    json_error_t error;
    json_t *read = json_loadb(line, length, JSON_ALLOW_NUL, &error);
    if (read || json_error_code(&error) != json_error_numeric_overflow)
        return read;
    char *changed = malloc(2 * length);
    if (!changed)
        return NULL;
    read = json_loadb(changed, with_texts(line, length, changed), JSON_ALLOW_NUL, NULL);
    free(changed);
    return read;
}

static int is_record(const char *line, size_t length) {
    json_t *read = line_read(line, length);
    const char *point = json_string_value(json_object_get(read, "point"));
    int good = point && strcmp(point, UNHEARD) && json_is_object(json_object_get(read, "record"));
    json_decref(read);
    return good;
}

static struct event *made_of(const char *line, size_t length) {
    uint32_t id = 0, sizes[2] = {sizeof id, length};
    size_t all = sizeof(struct event) + sizeof sizes + sizeof id + length;
    struct event *made = malloc(all);
    struct timespec now;
    if (!made)
        return NULL;
    clock_gettime(CLOCK_REALTIME, &now);
    *made = (struct event){now.tv_sec * UINT64_C(1000000000) + now.tv_nsec, UINT64_MAX, all,
                           PLUGIN_EVENT, 2};
    char *at = (char *)(made + 1);
    memcpy(at, sizes, sizeof sizes);
    memcpy(at + sizeof sizes, &id, sizeof id);
    memcpy(at + sizeof sizes + sizeof id, line, length);
    return made;
}

/* Lines that are whole become events, as long as there is room for some. */
static void take_lines(struct instance *it, struct connection *c, uint32_t *count) {
    size_t begun = 0;
    char *end;
    while (*count < BATCH && (end = memchr(c->data + begun, '\n', c->used - begun))) {
        size_t length = end - (c->data + begun);
        enum reason reason = is_record(c->data + begun, length) ? NO_ROOM : NO_RECORD;
        if (reason == NO_RECORD || !(it->events[*count] = made_of(c->data + begun, length))) {
            it->unheard[reason]++;
            hang_up(it, c);
            return;
        }
        ++*count;
        begun += length + 1;
    }
    c->used -= begun;
    if (begun)
        memmove(c->data, c->data + begun, c->used);
    if (c->over && *count < BATCH)
        hang_up(it, c);
}

/* There is a line that no batch had room for. */
static int has_line(const struct connection *c) {
    return c->used && memchr(c->data, '\n', c->used);
}

/* Whether a connection may have so much room. Where there is no more for all, who has most goes: some
 * that fill it must not keep others from being heard. */
static int may_have(struct instance *it, const struct connection *c, size_t room) {
    while (room <= MAX_LINE && it->kept - c->room + room > MAX_KEPT) {
        struct connection *most = NULL;
        for (int i = 0; i < MAX_CONNECTIONS; i++) {
            struct connection *each = &it->connections[i];
            if (each != c && each->room > room && (!most || each->room > most->room))
                most = each;
        }
        if (!most)
            return 0;
        it->unheard[NO_ROOM]++;
        hang_up(it, most);
    }
    return room <= MAX_LINE;
}

static void hear(struct instance *it, struct connection *c) {
    if (c->room - c->used < PIECE) {
        size_t room = c->used + 2 * PIECE;
        char *data = NULL;
        if (may_have(it, c, room))
            data = realloc(c->data, room);
        if (!data) {
            it->unheard[NO_ROOM]++;
            hang_up(it, c);
            return;
        }
        it->kept += room - c->room;
        c->data = data;
        c->room = room;
    }
    ssize_t got = read(c->fd, c->data + c->used, PIECE);
    if (got > 0)
        c->used += got;
    else if (!got || (errno != EAGAIN && errno != EINTR))
        c->over = 1;
}

static void welcome(struct instance *it) {
    struct connection *place = NULL;
    for (int i = 0; i < MAX_CONNECTIONS && !place; i++)
        if (it->connections[i].fd < 0)
            place = &it->connections[i];
    int fd = accept4(it->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && place) {
        place->fd = fd;
        it->is_short = 0;
    } else if (fd >= 0) {
        close(fd);
        it->unheard[TOO_MANY]++;
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        it->unheard[NO_DESCRIPTOR] += !it->is_short;
        it->is_short = it->rests = 1; /* he waits, and poll(2) would come back for him at once */
    }
}

/* Sandboxes that are not heard are an event each time: nobody must get there unseen. */
static void tell_unheard(struct instance *it, uint32_t *count) {
    for (int i = 0; i < REASONS; i++) {
        char line[256];
        if (!it->unheard[i])
            continue;
        int length = snprintf(line, sizeof line,
                              "{\"point\":\"%s\",\"record\":{\"reason\":\"%s\",\"number\":%u}}",
                              UNHEARD, SAID[i], it->unheard[i]);
        if (!(it->events[*count] = made_of(line, length)))
            return;
        ++*count;
        it->unheard[i] = 0;
    }
}

int source_next(struct instance *it, uint32_t *count, struct event ***events) {
    struct pollfd polled[MAX_CONNECTIONS + 1];
    int places[MAX_CONNECTIONS], number = 0, waits = 1;
    *count = 0;
    *events = it->events;
    forget_batch(it);
    tell_unheard(it, count);
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *c = &it->connections[(it->next + i) % MAX_CONNECTIONS];
        if (c->fd >= 0 && (c->over || has_line(c)))
            take_lines(it, c, count);
    }
    it->next = (it->next + 1) % MAX_CONNECTIONS;
    if (*count)
        waits = 0; /* more may be there already, but nobody waits for it */
    int left = 0;
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        const struct connection *c = &it->connections[i];
        left += c->fd >= 0;
        if (c->fd >= 0 && !c->over && !has_line(c)) {
            polled[number] = (struct pollfd){it->connections[i].fd, POLLIN, 0};
            places[number++] = i;
        }
    }
    if (!left && it->listening < 0) {
        if (!*count)
            tell_unheard(it, count);
        return *count ? SUCCESS : END;
    }
    polled[number] = (struct pollfd){it->rests ? -1 : it->listening, POLLIN, 0}; /* -1: not asked */
    it->rests = 0;
    if (poll(polled, number + 1, waits ? WAIT_MS : 0) > 0) {
        for (int i = 0; i < number; i++)
            if (polled[i].revents) {
                struct connection *c = &it->connections[places[i]];
                if (c->fd >= 0) /* it may have gone for another one */
                    hear(it, c);
                if (c->fd >= 0 && *count < BATCH)
                    take_lines(it, c, count);
            }
        if (polled[number].revents)
            welcome(it);
    }
    return *count ? SUCCESS : TIMEOUT;
}
