/*
 * The load of the responder's bench. Every answer must be a 200 of one length, or nothing is measured.
 *
 *     load ADDRESS PORT NETS CONNECTIONS SECONDS PIPELINED PER_CONNECTION as-answered  < REQUEST
 *     load ADDRESS PORT NETS CONNECTIONS SECONDS PIPELINED PER_CONNECTION paced RATE   < REQUEST
 *     load ADDRESS PORT NETS CONNECTIONS SECONDS PIPELINED PER_CONNECTION bursts PID…  < REQUEST
 *
 * NETS: descriptors of the guests' network namespaces, between commas; they connect in turn.
 * PIPELINED: requests sent at one go. PER_CONNECTION: after so many requests a connection is closed
 * and another takes its place; with 1 the request says "Connection: close", and the server closes.
 *
 * as-answered: each connection asks again once it is answered. Quick servers wait for the load then.
 * paced: RATE requests a second, whatever the answers do, on connections that have been answered
 *     once. A delay counts from when the request was due, so that a server that stalls does not slow
 *     the questions that would show it.
 * bursts: the server (PID…) is stopped while every connection is made and asks, then goes on: it has
 *     all its work before it, and a core for itself. The seconds are those in which it answered.
 *
 * It prints requests and seconds; paced, the delays' median, p90, p99 and greatest in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 4096, EVENTS = 256, REQUEST = 4096, PIPELINED = 16,
       ANSWERS = 65536, LATE = 10, SETTLE = 20000, NETS = 64 };

static const double EARLY = 0.01;

struct link {
	int fd;
	int net;      /* its guest's */
	int left;     /* requests that this connection may still carry */
	int asked;    /* requests sent and not answered */
	size_t got;   /* bytes of their answers */
	double due;   /* when the first of them was */
};

static struct sockaddr_in there = {.sin_family = AF_INET};
static char request[PIPELINED * REQUEST];
static size_t request_length, answer_length;
static int pipelined, per_connection, poll_fd;
static struct link links[CONNECTIONS];
static struct link *idle[CONNECTIONS]; /* a ring: in turn, that none is at its end before others */
static unsigned idle_first, idle_count;
static float *delays;
static long answered, delays_room;

static void fail(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
	exit(1);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static void rest(struct link *link)
{
	idle[(idle_first + idle_count++) % CONNECTIONS] = link;
}

static void begin(struct link *link)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
	int on = 1, off = 0;

	if (setns(link->net, CLONE_NEWNET))
		fail("a guest's namespace");
	if ((link->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0)
		fail("socket");
	setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	/* The handshake's last acknowledgement is the request. */
	setsockopt(link->fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
	if (connect(link->fd, (struct sockaddr *)&there, sizeof there))
		fail("connect");
	if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, link->fd, &event))
		fail("epoll");
}

static void ask(struct link *link, double due)
{
	link->due = due;
	link->got = 0;
	link->asked = pipelined;
	link->left -= pipelined;
	if (send(link->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
		fail("send");
}

/* Read what has arrived; 1 once the connection may ask again. */
static int hear(struct link *link)
{
	static char data[ANSWERS];
	ssize_t got = recv(link->fd, data, sizeof data, MSG_DONTWAIT);
	char *body, *length;

	if (got < 0)
		return errno == EAGAIN ? 0 : (fail("recv"), 0);
	errno = 0;
	if (got == 0) {
		if (link->asked || per_connection > 1)
			fail("the server has ended a connection");
		link->left = 0;
		epoll_ctl(poll_fd, EPOLL_CTL_DEL, link->fd, NULL);
		return 1;
	}
	if (link->got == 0 && (got < 13 || memcmp(data, "HTTP/1.1 200 ", 13))) {
		fprintf(stderr, "load: no 200: %.*s\n", (int)(got > 200 ? 200 : got), data);
		exit(1);
	}
	if (answer_length == 0) {
		data[got < ANSWERS ? got : ANSWERS - 1] = 0;
		body = strstr(data, "\r\n\r\n");
		length = strcasestr(data, "\r\nContent-Length: ");
		if (!body || !length)
			fail("the first answer");
		answer_length = (size_t)(body + 4 - data) + (size_t)atol(length + 18);
	}
	link->got += (size_t)got;
	if (link->got < answer_length * (size_t)link->asked)
		return 0;
	if (link->got > answer_length * (size_t)link->asked)
		fail("the length of an answer");
	if (answered + link->asked <= delays_room)
		for (double took = now() - link->due; link->asked; link->asked--)
			delays[answered++] = (float)took;
	else
		answered += link->asked;
	link->asked = 0;
	if (per_connection == 1)
		return 0; /* the server is to end it */
	return 1;
}

/* Ask on the connection that has rested longest. */
static void ask_next(double due)
{
	struct link *link = idle[idle_first];

	idle_first = (idle_first + 1) % CONNECTIONS;
	idle_count--;
	if (link->left < pipelined) {
		close(link->fd);
		link->fd = -1;
		link->left = per_connection;
	}
	if (link->fd < 0)
		begin(link);
	ask(link, due);
}

static void hear_all(int timeout)
{
	struct epoll_event events[EVENTS];
	int ready = epoll_wait(poll_fd, events, EVENTS, timeout);

	for (int i = 0; i < ready; i++)
		if (hear(events[i].data.ptr))
			rest(events[i].data.ptr);
}

static double as_answered(double seconds)
{
	double start = now(), at;

	while ((at = now()) < start + seconds) {
		while (idle_count)
			ask_next(at);
		hear_all(100);
	}
	return at - start;
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double paced(double seconds, double rate)
{
	double start, at;
	unsigned count = idle_count;
	long early = (long)(rate * EARLY), wanted = (long)(rate * seconds);

	/* Every connection is made, and settled at the server, before it counts. */
	for (unsigned i = 0; i < count; i++) {
		idle[i]->left = per_connection;
		ask_next(0);
	}
	while (idle_count < count)
		hear_all(100);
	usleep(SETTLE);
	/* And the machine is awake: the first answers are not kept. */
	delays_room = early + wanted;
	if (wanted < 1 || !(delays = malloc(sizeof *delays * (size_t)delays_room)))
		fail("the rate");
	answered = 0;
	start = at = now();
	for (long asked = 0; answered < delays_room; at = now()) {
		if (at > start + seconds + LATE)
			fail("answers that come too late");
		for (; idle_count && asked < delays_room && at >= start + (double)asked / rate; asked++)
			ask_next(start + (double)asked / rate);
		hear_all(0); /* without sleeping: to wake takes longer than the next is due */
	}
	delays += early;
	answered = wanted;
	qsort(delays, (size_t)answered, sizeof *delays, compare);
	return at - start - EARLY;
}

static void signal_all(char **pids, int what)
{
	for (; *pids; pids++)
		if (kill(atoi(*pids), what))
			fail("the server's process");
}

static double bursts(double seconds, char **pids)
{
	double stop = now() + seconds, took = 0, start;
	unsigned count = idle_count;

	while (now() < stop) {
		signal_all(pids, SIGSTOP);
		while (idle_count)
			ask_next(0);
		start = now();
		signal_all(pids, SIGCONT);
		while (idle_count < count) {
			hear_all(100);
			if (now() > start + LATE)
				fail("answers that come too late");
		}
		took += now() - start;
	}
	return took;
}

int main(int argc, char **argv)
{
	double seconds, took;
	int nets[NETS], guests = 0, count;

	if (argc < 9 || inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		fail("the arguments");
	there.sin_port = htons((unsigned short)atoi(argv[2]));
	for (char *net = strtok(argv[3], ","); net && guests < NETS; net = strtok(NULL, ","))
		nets[guests++] = atoi(net);
	count = atoi(argv[4]);
	seconds = atof(argv[5]);
	pipelined = atoi(argv[6]);
	per_connection = atoi(argv[7]);
	argv += 8;
	if (count < 1 || count > CONNECTIONS || pipelined < 1 || pipelined > PIPELINED ||
	    per_connection < pipelined || !guests)
		fail("the arguments");
	request_length = fread(request, 1, REQUEST, stdin);
	for (int i = 1; i < pipelined; i++)
		memcpy(request + (size_t)i * request_length, request, request_length);
	request_length *= (size_t)pipelined;
	if ((poll_fd = epoll_create1(0)) < 0)
		fail("epoll");
	for (int i = 0; i < count; i++) {
		links[i].fd = -1;
		links[i].net = nets[i % guests];
		/* Their first lives end in turn: a server bounds what one guest holds. */
		links[i].left = pipelined + (per_connection - pipelined) * (i + 1) / count;
		rest(&links[i]);
	}
	if (!strcmp(argv[0], "bursts"))
		took = bursts(seconds, argv + 1);
	else if (!strcmp(argv[0], "paced") && argv[1])
		took = paced(seconds, atof(argv[1]));
	else
		took = as_answered(seconds);
	printf("%ld %.6f", answered, took);
	if (delays)
		printf(" %.1f %.1f %.1f %.1f", delays[answered / 2] * 1e6, delays[answered * 9 / 10] * 1e6,
		       delays[answered * 99 / 100] * 1e6, delays[answered - 1] * 1e6);
	printf("\n");
	return 0;
}
