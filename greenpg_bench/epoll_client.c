/* `select 1` over many connections with libpq and epoll: one statement at a time on each. */

#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* libpq's functions; the caller has loaded it, and connected. */
struct libpq {
    int (*socket)(const void *);
    int (*send_query)(void *, const char *);
    int (*consume_input)(void *);
    int (*is_busy)(void *);
    void *(*get_result)(void *);
    char *(*get_value)(const void *, int, int);
    void (*clear)(void *);
};

/* Read what has come; return 1 once the statement has ended, -1 if the connection is lost. */
static int receive(const struct libpq *pq, void *conn, int *right)
{
    void *result;

    if (!pq->consume_input(conn))
        return -1;
    while (!pq->is_busy(conn)) {
        result = pq->get_result(conn);
        if (result == NULL)
            return 1;
        *right += atoi(pq->get_value(result, 0, 0)) == 1;
        pq->clear(result);
    }
    return 0;
}

/* Execute `times` statements on each connection; return how many answers were right. */
int lap(const struct libpq *pq, void **conns, int count, int times)
{
    struct epoll_event events[64];
    int *left = calloc(count, sizeof *left), poll = epoll_create1(0);
    int busy = 0, right = 0, ready, ended, i, one;

    for (i = 0; i < count && times > 0; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(poll, EPOLL_CTL_ADD, pq->socket(conns[i]), &event);
        left[i] = times;
        busy += pq->send_query(conns[i], "select 1");
    }
    while (busy > 0 && (ready = epoll_wait(poll, events, 64, -1)) >= 0) {
        for (i = 0; i < ready; i++) {
            one = events[i].data.u32;
            ended = receive(pq, conns[one], &right);
            if (ended < 0)
                busy = 0;
            else if (ended && --left[one] == 0)
                busy--;
            else if (ended)
                pq->send_query(conns[one], "select 1");
        }
    }
    close(poll);
    free(left);
    return right;
}
