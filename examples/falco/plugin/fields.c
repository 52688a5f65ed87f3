/* Fields of an event, with the names that Falco's system calls have.
 *
 * Texts come from inside a sandbox: what could break a line of a log, move a terminal or turn
 * writing around is a question mark. */
#define _GNU_SOURCE
#include "runsc.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 16, O_ACCMODE_ = 3 };

enum id {
    EVT_TYPE, EVT_DIR, EVT_RES, EVT_FAILED, EVT_ARG, EVT_OPEN_READ, EVT_OPEN_WRITE,
    PROC_NAME, PROC_VPID, PROC_EXEPATH, PROC_CWD, PROC_CMDLINE, PROC_ARGS, PROC_PNAME, PROC_PVPID,
    PROC_ANAME, THREAD_VTID, FD_NUM, FD_NAME, FD_DIRECTORY, FD_SIP, FD_SPORT, USER_UID, GROUP_GID,
    CONTAINER_ID, RUNSC_POINT, RUNSC_DROPPED, RUNSC_TIME,
};

#define FIELD(type, name, desc) "{\"type\":\"" type "\",\"name\":\"" name "\",\"desc\":\"" desc "\"}"
#define KEYED(name, arg, desc)                                                                    \
    "{\"type\":\"string\",\"name\":\"" name "\",\"arg\":{\"isRequired\":true,\"" arg             \
    "\":true},\"desc\":\"" desc "\"}"

/* In the order of `enum id`. */
const char FIELDS[] = "["
    FIELD("string", "evt.type", "The system call, or what the kernel did (execve, clone, procexit)") ","
    FIELD("string", "evt.dir", "> where a call begins, < where it ends") ","
    FIELD("string", "evt.res", "SUCCESS or the name of an error") ","
    FIELD("bool", "evt.failed", "It has ended with an error") ","
    KEYED("evt.arg", "isKey", "A field of the record, such as evt.arg[pathname]") ","
    FIELD("bool", "evt.is_open_read", "A file is opened to be read") ","
    FIELD("bool", "evt.is_open_write", "A file is opened to be written") ","
    FIELD("string", "proc.name", "The name of the thread") ","
    FIELD("uint64", "proc.vpid", "The process, as the sandbox numbers it") ","
    FIELD("string", "proc.exepath", "The file that it runs: context field program") ","
    FIELD("string", "proc.cwd", "Its working directory: context field cwd") ","
    FIELD("string", "proc.cmdline", "Arguments of a program that begins") ","
    FIELD("string", "proc.args", "The same without the first") ","
    FIELD("string", "proc.pname", "Who has made it: context field ancestry") ","
    FIELD("uint64", "proc.pvpid", "The number of that") ","
    KEYED("proc.aname", "isIndex", "proc.aname[2] is who has made that, and so on") ","
    FIELD("uint64", "thread.vtid", "The thread, as the sandbox numbers it") ","
    FIELD("uint64", "fd.num", "A descriptor") ","
    FIELD("string", "fd.name", "A path, or the address of the other end") ","
    FIELD("string", "fd.directory", "The directory of a path") ","
    FIELD("ipaddr", "fd.sip", "The address of the other end") ","
    FIELD("uint64", "fd.sport", "Its port") ","
    FIELD("uint64", "user.uid", "The effective user inside") ","
    FIELD("uint64", "group.gid", "The effective group inside") ","
    FIELD("string", "container.id", "The container") ","
    FIELD("string", "sandbox.point", "The point, such as sentry/execve") ","
    FIELD("uint64", "sandbox.dropped", "Records that this sandbox has lost so far") ","
    FIELD("abstime", "sandbox.time", "When it was, as the sandbox says")
    "]";

/* --- what is answered lives until the next question of its kind */

static void *kept(struct answer **list, size_t size) {
    struct answer *made = malloc(sizeof *made + size);
    if (!made)
        return NULL;
    made->next = *list;
    *list = made;
    return made + 1;
}

static void forget(struct answer **list) {
    while (*list) {
        struct answer *next = (*list)->next;
        free(*list);
        *list = next;
    }
}

/* How many bytes at `at` are one sign that is not to be shown; 0: it may be. */
static size_t unshown(const unsigned char *at, size_t left) {
    if (at[0] < 0x20 || at[0] == 0x7F)
        return 1;
    if (left >= 2 && at[0] == 0xC2 && at[1] < 0xA0)
        return 2;
    if (left >= 3 && at[0] == 0xE2 &&
        ((at[1] == 0x80 && ((at[2] >= 0x8E && at[2] <= 0x8F) || (at[2] >= 0xA8 && at[2] <= 0xAE))) ||
         (at[1] == 0x81 && at[2] >= 0xA6 && at[2] <= 0xA9)))
        return 3;
    return 0;
}

/* A text with an end, without what it must not have. */
static const char *shown(struct answer **list, const char *text, size_t length) {
    if (length > MAX_TEXT)
        for (length = MAX_TEXT; length && ((unsigned char)text[length] & 0xC0) == 0x80;)
            length--;
    char *made = kept(list, length + 1), *to = made;
    for (size_t i = 0; made && i < length;) {
        size_t bad = unshown((const unsigned char *)text + i, length - i);
        *to++ = bad ? '?' : text[i];
        i += bad ? bad : 1;
    }
    if (made)
        *to = 0;
    return made;
}

static int says(struct plugin *p, struct field *f, const char *text, size_t length) {
    const char **place = kept(&p->answers, sizeof *place);
    if (!place || !(*place = shown(&p->answers, text, length)))
        return FAILURE;
    f->res.str = place;
    f->res_len = 1;
    return SUCCESS;
}

static int says_json(struct plugin *p, struct field *f, const json_t *value) {
    if (json_is_string(value))
        return says(p, f, json_string_value(value), json_string_length(value));
    if (!value)
        return SUCCESS;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    int rc = text ? says(p, f, text, strlen(text)) : FAILURE;
    free(text);
    return rc;
}

static int counts(struct plugin *p, struct field *f, const json_t *value) {
    uint64_t *place;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return SUCCESS;
    if (!(place = kept(&p->answers, sizeof *place)))
        return FAILURE;
    *place = json_integer_value(value);
    f->res.u64 = place;
    f->res_len = 1;
    return SUCCESS;
}

/* Where numbers are: what is 0 is left out of a record. */
static int counts_or_0(struct plugin *p, struct field *f, const json_t *object, const char *name) {
    json_t *zero = NULL, *value = json_object_get(object, name);
    if (object && !value)
        value = zero = json_integer(0);
    int rc = counts(p, f, value);
    json_decref(zero);
    return rc;
}

static int is(struct plugin *p, struct field *f, int value) {
    uint32_t *place = kept(&p->answers, sizeof *place);
    if (!place)
        return FAILURE;
    *place = value;
    f->res.boolean = place;
    f->res_len = 1;
    return SUCCESS;
}

/* --- the record */

struct view {
    const char *point, *last; /* its name, and the part behind the last / but one of a call */
    size_t type_length;
    const json_t *line, *record, *who, *ended;
    int is_call;
};

static const struct { const char *point, *type; } KERNEL[] = {
    {"sentry/exit_notify_parent", "procexit"},
    {"sentry/task_exit", "procexit"},
    {"container/start", "container"},
};

static struct view view_of(const json_t *line) {
    struct view v = {.line = line, .record = json_object_get(line, "record")};
    v.point = json_string_value(json_object_get(line, "point"));
    v.who = json_object_get(v.record, "context_data");
    v.ended = json_object_get(v.record, "exit");
    v.is_call = !strncmp(v.point, "syscall/", 8);
    const char *end = strrchr(v.point, '/');
    if (v.is_call && end > v.point + 7) {
        v.last = v.point + 8;
        v.type_length = end - v.last;
    } else {
        v.is_call = 0;
        v.last = end ? end + 1 : v.point;
        for (size_t i = 0; i < sizeof KERNEL / sizeof *KERNEL; i++)
            if (!strcmp(v.point, KERNEL[i].point))
                v.last = KERNEL[i].type;
        v.type_length = strlen(v.last);
    }
    return v;
}

static int ends(const struct view *v) {
    size_t length = strlen(v->point);
    return !v->is_call || (length > 5 && !strcmp(v->point + length - 5, "/exit"));
}

static json_int_t error_of(const struct view *v) {
    return json_integer_value(json_object_get(v->ended, "errorno"));
}

static int is_open(const struct view *v) {
    static const char *const NAMES[] = {"open", "openat", "creat"};
    for (int i = 0; i < 3; i++)
        if (v->is_call && strlen(NAMES[i]) == v->type_length &&
            !strncmp(v->last, NAMES[i], v->type_length))
            return 1;
    return 0;
}

static int open_mode(const struct view *v) {
    if (!strncmp(v->last, "creat", v->type_length))
        return 1;
    return json_integer_value(json_object_get(v->record, "flags")) & O_ACCMODE_;
}

static const json_t *path_of(const struct view *v) {
    static const char *const NAMES[] = {"pathname", "binary_path", "fd_path"};
    for (int i = 0; i < 3; i++) {
        const json_t *found = json_object_get(v->record, NAMES[i]);
        if (json_string_length(found))
            return found;
    }
    return NULL;
}

/* "ADDRESS:PORT" or "[ADDRESS]:PORT" → its length in bytes, and the port; 0: it is neither. */
static size_t address_of(const char *peer, unsigned char *address, unsigned *port) {
    char text[INET6_ADDRSTRLEN];
    const char *colon = peer ? strrchr(peer, ':') : NULL;
    char *rest;
    if (!colon)
        return 0;
    int is_six = peer[0] == '[' && colon[-1] == ']';
    size_t length = colon - peer - 2 * is_six;
    if (!length || length >= sizeof text)
        return 0;
    memcpy(text, peer + is_six, length);
    text[length] = 0;
    unsigned long number = strtoul(colon + 1, &rest, 10);
    if (rest == colon + 1 || *rest || number > 65535)
        return 0;
    *port = number;
    if (inet_pton(is_six ? AF_INET6 : AF_INET, text, address) != 1)
        return 0;
    return is_six ? 16 : 4;
}

/* Words with spaces between; `first`: from this one on. */
static int words(struct plugin *p, struct field *f, const json_t *list, size_t first) {
    char *text = malloc(MAX_TEXT);
    size_t used = 0;
    if (!text)
        return FAILURE;
    for (size_t i = first; i < json_array_size(list); i++) {
        const json_t *word = json_array_get(list, i);
        size_t length = json_string_length(word);
        if (used + 1 >= MAX_TEXT)
            break;
        if (used)
            text[used++] = ' ';
        const char *from = json_string_value(word);
        if (length > MAX_TEXT - used) /* a long word does not hide all of itself */
            for (length = MAX_TEXT - used; length && ((unsigned char)from[length] & 0xC0) == 0x80;)
                length--;
        if (length)
            memcpy(text + used, from, length);
        used += length;
    }
    int rc = json_array_size(list) ? says(p, f, text, used) : SUCCESS;
    free(text);
    return rc;
}

/* "NUMBER NAME" of who has made the process. */
static const char *ancestor(const struct view *v, size_t index, json_int_t *number) {
    const json_t *list = json_object_get(v->who, "ancestry");
    const char *text = json_string_value(json_array_get(list, index));
    char *rest;
    if (!text)
        return NULL;
    *number = strtoll(text, &rest, 10);
    return rest != text && *rest == ' ' ? rest + 1 : NULL;
}

static int extract(struct plugin *p, struct field *f, const struct view *v) {
    static const char *const OF_WHO[] = {
        [PROC_NAME] = "process_name", [PROC_VPID] = "thread_group_id", [PROC_EXEPATH] = "program",
        [PROC_CWD] = "cwd", [THREAD_VTID] = "thread_id", [CONTAINER_ID] = "container_id",
        [RUNSC_TIME] = "time_ns",
    };
    const json_t *argv = json_object_get(v->record, "argv"), *peer, *path;
    unsigned char *address;
    struct buffer *buffer;
    const char *text, *slash;
    unsigned port;
    json_int_t number = 0;
    size_t length;

    if (!argv)
        argv = json_object_get(v->record, "args");
    peer = json_object_get(v->record, "peer");
    path = path_of(v);
    switch (f->field_id) {
    case EVT_TYPE:
        return says(p, f, v->last, v->type_length);
    case EVT_DIR:
        return says(p, f, ends(v) ? "<" : ">", 1);
    case EVT_RES:
        if (!ends(v) || !v->is_call)
            return SUCCESS;
        text = error_of(v) ? strerrorname_np(error_of(v)) : "SUCCESS";
        return text ? says(p, f, text, strlen(text)) : says(p, f, "?", 1);
    case EVT_FAILED:
        return is(p, f, error_of(v) != 0);
    case EVT_ARG: {
        const json_t *found = f->arg_key ? json_object_get(v->record, f->arg_key) : NULL;
        if (!found && f->arg_key) /* of a call without a message of its own */
            found = json_object_get(json_object_get(v->record, "args"), f->arg_key);
        return says_json(p, f, found);
    }
    case EVT_OPEN_READ:
        return is(p, f, is_open(v) && open_mode(v) != 1);
    case EVT_OPEN_WRITE:
        return is(p, f, is_open(v) && open_mode(v) != 0);
    case PROC_NAME: case PROC_EXEPATH: case PROC_CWD: case CONTAINER_ID:
        return says_json(p, f, json_object_get(v->who, OF_WHO[f->field_id]));
    case PROC_VPID: case THREAD_VTID: case RUNSC_TIME:
        return counts(p, f, json_object_get(v->who, OF_WHO[f->field_id]));
    case PROC_CMDLINE:
        return words(p, f, argv, 0);
    case PROC_ARGS:
        return words(p, f, argv, 1);
    case PROC_PNAME: case PROC_PVPID: case PROC_ANAME:
        text = f->field_id == PROC_ANAME && f->arg_index == 0
            ? json_string_value(json_object_get(v->who, "process_name"))
            : ancestor(v, f->field_id == PROC_ANAME ? f->arg_index - 1 : 0, &number);
        if (!text)
            return SUCCESS;
        if (f->field_id != PROC_PVPID)
            return says(p, f, text, strlen(text));
        json_t *made = json_integer(number);
        int rc = counts(p, f, made);
        json_decref(made);
        return rc;
    case FD_NUM:
        if (is_open(v)) /* what it has opened, not the directory where it looked */
            return error_of(v) || !v->ended ? SUCCESS : counts_or_0(p, f, v->ended, "result");
        return counts(p, f, json_object_get(v->record, "fd"));
    case FD_NAME:
        return says_json(p, f, json_string_length(peer) ? peer : path);
    case FD_DIRECTORY:
        text = json_string_value(path);
        slash = text ? strrchr(text, '/') : NULL;
        return slash ? says(p, f, text, slash == text ? 1 : (size_t)(slash - text)) : SUCCESS;
    case FD_SIP: case FD_SPORT:
        if (!(address = kept(&p->answers, 16)) || !(buffer = kept(&p->answers, sizeof *buffer)))
            return FAILURE;
        length = address_of(json_string_value(peer), address, &port);
        if (!length)
            return SUCCESS;
        if (f->field_id == FD_SIP) {
            *buffer = (struct buffer){length, address};
            f->res.buf = buffer;
            f->res_len = 1;
            return SUCCESS;
        }
        uint64_t *place = kept(&p->answers, sizeof *place);
        if (!place)
            return FAILURE;
        *place = port;
        f->res.u64 = place;
        f->res_len = 1;
        return SUCCESS;
    case USER_UID:
        return counts_or_0(p, f, json_object_get(v->who, "credentials"), "effective_uid");
    case GROUP_GID:
        return counts_or_0(p, f, json_object_get(v->who, "credentials"), "effective_gid");
    case RUNSC_POINT:
        return says(p, f, v->point, strlen(v->point));
    case RUNSC_DROPPED:
        return counts_or_0(p, f, v->line, "dropped");
    }
    return SUCCESS;
}

/* The line of an event, read; the last one is remembered, for Falco asks for one field at a time. */
static const json_t *line_of(struct plugin *p, const char *data, size_t length) {
    if (p->line && p->length == length && !memcmp(p->data, data, length))
        return p->line;
    json_decref(p->line);
    free(p->data);
    p->line = line_read(data, length);
    p->data = malloc(length ? length : 1);
    p->length = length;
    if (!p->data || !json_is_string(json_object_get(p->line, "point")) ||
        !json_is_object(json_object_get(p->line, "record"))) {
        json_decref(p->line);
        p->line = NULL;
        return NULL;
    }
    memcpy(p->data, data, length);
    return p->line;
}

/* What an event of ours has in it; NULL: it is none. */
static const char *data_of(const struct event *evt, size_t *length) {
    uint32_t sizes[2];
    size_t before = sizeof *evt + sizeof sizes;
    if (evt->type != PLUGIN_EVENT || evt->nparams != 2 || evt->len < before)
        return NULL;
    memcpy(sizes, evt + 1, sizeof sizes);
    if ((uint64_t)before + sizes[0] + sizes[1] > evt->len)
        return NULL;
    *length = sizes[1];
    return (const char *)evt + before + sizes[0];
}

int fields_extract(struct plugin *p, const struct event *evt, struct field *fields, uint32_t count) {
    size_t length;
    const char *data = data_of(evt, &length);
    const json_t *line = data ? line_of(p, data, length) : NULL;
    forget(&p->answers);
    for (uint32_t i = 0; i < count; i++)
        fields[i].res_len = 0;
    if (!line)
        return FAILURE;
    struct view v = view_of(line);
    for (uint32_t i = 0; i < count; i++)
        if (extract(p, &fields[i], &v) != SUCCESS)
            return FAILURE;
    return SUCCESS;
}

const char *fields_text(struct plugin *p, const struct event *evt) {
    size_t length;
    const char *data = data_of(evt, &length);
    forget(&p->text); /* not what was extracted: of that Falco may still have pointers */
    return data ? shown(&p->text, data, length) : NULL;
}

void fields_forget(struct plugin *p) {
    forget(&p->answers);
    forget(&p->text);
    json_decref(p->line);
    free(p->data);
    p->line = NULL;
    p->data = NULL;
}
