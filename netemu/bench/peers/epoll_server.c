/*
 * The floor of the responder's bench: what any HTTP server must ask of the kernel, and no more.
 * One process, level-triggered epoll, a constant answer for each blank line that ends a request.
 *
 *     epoll-server ADDRESS PORT BODY_LENGTH
 *
 * It closes when asked to ("Connection: close" in the first 512 bytes). For the bench only: it
 * believes what it reads.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, REQUESTS = 64, READ = 16384 };

struct answer {
	char text[2048];
	size_t length;
};

static struct answer kept, last;
static char many[REQUESTS * 1024];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Answer what has arrived; 0 if the connection is to be closed. */
static int serve(int fd)
{
	char data[READ];
	ssize_t got = recv(fd, data, READ, MSG_DONTWAIT);
	size_t length = 0;
	const struct answer *answer = &kept;

	if (got <= 0)
		return got < 0;
	if (memmem(data, (size_t)got, "Connection: close", 17))
		answer = &last;
	for (char *at = data; (at = memmem(at, (size_t)(data + got - at), "\r\n\r\n", 4)); at += 4) {
		if (length + answer->length > sizeof many)
			break;
		memcpy(many + length, answer->text, answer->length);
		length += answer->length;
	}
	if (send(fd, many, length, MSG_NOSIGNAL) < 0)
		return 0;
	return answer == &kept;
}

static void prepare(struct answer *answer, const char *connection, size_t body_length)
{
	char body[1024];

	memset(body, 'x', sizeof body);
	answer->length = (size_t)snprintf(answer->text, sizeof answer->text,
		"HTTP/1.1 200 OK\r\nServer: epoll\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
		"Content-Type: text/plain\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n%.*s",
		body_length, connection, (int)body_length, body);
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = {.sin_family = AF_INET};
	struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
	int on = 1, listener, poll;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &here.sin_addr) != 1) {
		fprintf(stderr, "usage: epoll-server ADDRESS PORT BODY_LENGTH\n");
		return 2;
	}
	here.sin_port = htons((unsigned short)atoi(argv[2]));
	prepare(&kept, "keep-alive", (size_t)atoi(argv[3]) % 1024);
	prepare(&last, "close", (size_t)atoi(argv[3]) % 1024);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 2048))
		fail("listen");
	if ((poll = epoll_create1(0)) < 0)
		fail("epoll");
	event.data.fd = listener;
	epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);

	for (;;) {
		int ready = epoll_wait(poll, events, EVENTS, -1);

		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;

			if (fd != listener) {
				if (!serve(fd))
					close(fd);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				/* Deferred: the request is here. Most connections end with it. */
				if (!serve(fd)) {
					close(fd);
					continue;
				}
				event.data.fd = fd;
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
				epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
			}
		}
	}
}
