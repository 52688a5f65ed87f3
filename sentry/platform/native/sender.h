/* A thread that sends the frames of uplinks. Sending a frame by a veth is all that the other end
 * does with it, up to its sockets: as much work as it was to make the frame. */
#ifndef SENTRY_SENDER_H
#define SENTRY_SENDER_H

#include <stdint.h>

struct sender;
struct outbox; /* frames for one socket, in their order */

/* SAFETY: the thread is made here, before the filter, and never again. NULL if that fails. */
struct sender *sender_open(void);
/* Readable when an outbox has something to tell: it has room again, its socket takes no more, or
 * frames were lost. */
int sender_fd(struct sender *sender);
void sender_heard(struct sender *sender);
/* With no outbox left. The thread ends by itself. */
void sender_close(struct sender *sender);

/* NULL if there is no memory. */
struct outbox *outbox_open(struct sender *sender, int fd);
/* 1: it will go; until outbox_gone counts it the frame is the thread's to read. 0: there is no room,
 * and the sender tells when there is some. */
int outbox_put(struct outbox *box, const uint8_t *frame, uint32_t size);
/* How many frames have gone, or are lost, of all that were put; modulo 2^32. */
uint32_t outbox_gone(struct outbox *box);
/* How many frames have not been sent. */
uint32_t outbox_waiting(struct outbox *box);
/* The socket takes no more: nothing is sent until outbox_resume. */
int outbox_is_full(struct outbox *box);
void outbox_resume(struct outbox *box);
/* Frames that the socket refused since this was asked last. */
uint32_t outbox_take_lost(struct outbox *box);
/* Waits for the call that is under way, whose frames are few; what waits is lost. The descriptor
 * is the caller's again. */
void outbox_close(struct outbox *box);

#endif
