/* SAFETY: a frame is the caller's, who keeps it as it is until it is counted as gone, or its outbox is
 * closed, for which the thread's call for it is waited for. Frames between `first` and `end` are the
 * thread's to read; both change under the lock. */
#define _GNU_SOURCE
#include "sender.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define STACK (64 << 10)
#define FRAMES 256u         /* that wait, at most; a power of two, as is the next */
#define BYTES (1u << 20)    /* in those that wait */
#define BATCH 16u           /* frames of a call: less than a millisecond's work */
#define BATCH_BYTES (1u << 18)

struct outbox {
    struct sender *sender;
    struct outbox *next;
    int fd;
    int is_busy;     /* the thread is in a call for it */
    int is_full;
    int wants_room;
    uint32_t lost;
    uint32_t first, end;   /* frames: which is the next, and how many have come; modulo FRAMES */
    uint32_t bytes;        /* of those between them */
    struct iovec frames[FRAMES];
};

struct sender {
    pthread_mutex_t lock;
    pthread_cond_t more, idle;
    struct outbox *boxes;
    int fd;
    int is_asleep;
    int is_closing;
};

static void tell(struct sender *s)
{
    const uint64_t one = 1;
    (void)!write(s->fd, &one, sizeof one);
}

/* The next one with something to do, after which the others have their turn. */
static struct outbox *next_box(struct sender *s)
{
    struct outbox **at = &s->boxes, *box;
    while ((box = *at) && (box->is_full || box->first == box->end))
        at = &box->next;
    if (box && box->next) {
        *at = box->next;
        while (*at)
            at = &(*at)->next;
        *at = box;
        box->next = NULL;
    }
    return box;
}

/* Without the lock: how many went, or -errno for the first. */
static int send_some(struct outbox *box, uint32_t waiting)
{
    struct mmsghdr messages[BATCH];
    uint32_t count = 0;
    size_t bytes = 0;

    memset(messages, 0, sizeof messages);
    for (; count < waiting && count < BATCH && bytes < BATCH_BYTES; count++) {
        struct iovec *frame = &box->frames[(box->first + count) % FRAMES];
        messages[count].msg_hdr.msg_iov = frame;
        messages[count].msg_hdr.msg_iovlen = 1;
        bytes += frame->iov_len;
    }
    int sent = sendmmsg(box->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

/* With the lock. */
static void went(struct outbox *box, int sent)
{
    int is_news = 0;

    if (sent == -EAGAIN || sent == -EINTR) {
        if (sent == -EAGAIN)
            box->is_full = is_news = 1;
        sent = 0;
    } else if (sent < 0) { /* the first is refused, as by a link that is down */
        box->lost++;
        sent = is_news = 1;
    }
    for (; sent > 0; sent--)
        box->bytes -= (uint32_t)box->frames[box->first++ % FRAMES].iov_len;
    if (box->wants_room && box->bytes <= BYTES / 2) {
        box->wants_room = 0;
        is_news = 1;
    }
    if (is_news)
        tell(box->sender);
}

static void *work(void *argument)
{
    struct sender *s = argument;

    pthread_mutex_lock(&s->lock);
    while (!s->is_closing) {
        struct outbox *box = next_box(s);
        if (!box) {
            s->is_asleep = 1;
            pthread_cond_wait(&s->more, &s->lock);
            s->is_asleep = 0;
            continue;
        }
        uint32_t waiting = box->end - box->first;
        box->is_busy = 1;
        pthread_mutex_unlock(&s->lock);
        int sent = send_some(box, waiting);
        pthread_mutex_lock(&s->lock);
        box->is_busy = 0;
        went(box, sent);
        pthread_cond_signal(&s->idle);
    }
    pthread_mutex_unlock(&s->lock);
    close(s->fd);
    free(s);
    return NULL;
}

struct sender *sender_open(void)
{
    struct sender *s = calloc(1, sizeof *s);
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;

    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = s->fd < 0 ? errno : pthread_create(&thread, &attributes, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!error)
        return s;
    if (s->fd >= 0)
        close(s->fd);
    free(s);
    return NULL;
}

int sender_fd(struct sender *s)
{
    return s->fd;
}

void sender_heard(struct sender *s)
{
    uint64_t count;
    (void)!read(s->fd, &count, sizeof count);
}

void sender_close(struct sender *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_closing = 1;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
}

struct outbox *outbox_open(struct sender *s, int fd)
{
    struct outbox *box = calloc(1, sizeof *box);
    if (!box)
        return NULL;
    box->sender = s;
    box->fd = fd;
    pthread_mutex_lock(&s->lock);
    box->next = s->boxes;
    s->boxes = box;
    pthread_mutex_unlock(&s->lock);
    return box;
}

int outbox_put(struct outbox *box, const uint8_t *frame, uint32_t size)
{
    struct sender *s = box->sender;

    pthread_mutex_lock(&s->lock);
    int has_room = box->end - box->first < FRAMES && size <= BYTES - box->bytes;
    int wakes = has_room && s->is_asleep;
    if (has_room) {
        box->frames[box->end++ % FRAMES] = (struct iovec){(void *)frame, size};
        box->bytes += size;
    } else {
        box->wants_room = 1;
    }
    if (wakes)
        s->is_asleep = 0;
    pthread_mutex_unlock(&s->lock);
    if (wakes) /* not before: the thread would wake up to wait for the lock */
        pthread_cond_signal(&s->more);
    return has_room;
}

uint32_t outbox_gone(struct outbox *box)
{
    pthread_mutex_lock(&box->sender->lock);
    uint32_t gone = box->first;
    pthread_mutex_unlock(&box->sender->lock);
    return gone;
}

uint32_t outbox_waiting(struct outbox *box)
{
    pthread_mutex_lock(&box->sender->lock);
    uint32_t waiting = box->end - box->first;
    pthread_mutex_unlock(&box->sender->lock);
    return waiting;
}

int outbox_is_full(struct outbox *box)
{
    pthread_mutex_lock(&box->sender->lock);
    int is_full = box->is_full;
    pthread_mutex_unlock(&box->sender->lock);
    return is_full;
}

void outbox_resume(struct outbox *box)
{
    pthread_mutex_lock(&box->sender->lock);
    box->is_full = 0;
    pthread_cond_signal(&box->sender->more);
    pthread_mutex_unlock(&box->sender->lock);
}

uint32_t outbox_take_lost(struct outbox *box)
{
    pthread_mutex_lock(&box->sender->lock);
    uint32_t lost = box->lost;
    box->lost = 0;
    pthread_mutex_unlock(&box->sender->lock);
    return lost;
}

void outbox_close(struct outbox *box)
{
    struct sender *s = box->sender;
    struct outbox **at = &s->boxes;

    pthread_mutex_lock(&s->lock);
    box->is_full = 1; /* no more calls for it */
    while (box->is_busy)
        pthread_cond_wait(&s->idle, &s->lock);
    while (*at != box)
        at = &(*at)->next;
    *at = box->next;
    pthread_mutex_unlock(&s->lock);
    free(box);
}
