/* A small HTTP/1.1 server for a static binary: one process, epoll, keep-alive; its version to everyone.
   On TERM it accepts no more, answers the requests it has, and closes connections once they are idle. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 65536, HEAD = 4096 };
static struct { char *head; int length; } of[CONNECTIONS];
static int polled, open_connections, ending;
static char keep[256], last[256];

static void drop(int fd) { free(of[fd].head); of[fd].head = NULL; of[fd].length = 0; close(fd); open_connections--; }

/* Answer every whole request there is; 0 when the connection is over. */
static int answer(int fd) {
  char *end;
  while ((end = memmem(of[fd].head, of[fd].length, "\r\n\r\n", 4))) {
    int size = end + 4 - of[fd].head;
    *end = 0;
    int closing = ending || strcasestr(of[fd].head, "connection: close") || strstr(of[fd].head, "HTTP/1.0");
    const char *reply = closing ? last : keep;
    if (send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0 || closing) return 0;
    memmove(of[fd].head, of[fd].head + size, of[fd].length -= size);
  }
  return of[fd].length < HEAD;
}

static void readable(int fd) {
  ssize_t got = recv(fd, of[fd].head + of[fd].length, HEAD - of[fd].length, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got > 0) of[fd].length += got;
  if (got <= 0 || !answer(fd)) drop(fd);
}

static void new_connections(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    if (fd >= CONNECTIONS) { close(fd); continue; }
    of[fd].head = malloc(HEAD);
    of[fd].length = 0;
    open_connections++;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(polled, EPOLL_CTL_ADD, fd, &event);
  }
}

static int listen_on(void) {
  if (getenv("LISTEN_FDS")) return 3;
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) { perror("listen"); exit(1); }
  return fd;
}

int main(void) {
  const char *version = getenv("EMPTYBOX_VERSION");
  int size = strlen(version) + 1, listener = listen_on();
  fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
  snprintf(keep, sizeof keep, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s\n", size, version);
  snprintf(last, sizeof last, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", size, version);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int asked = signalfd(-1, &set, SFD_CLOEXEC);
  polled = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event events[256], event = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(polled, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = asked;
  epoll_ctl(polled, EPOLL_CTL_ADD, asked, &event);
  while (!ending || open_connections) {
    int count = epoll_wait(polled, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) new_connections(listener);
      else if (fd == asked) {
        ending = 1;
        epoll_ctl(polled, EPOLL_CTL_DEL, asked, NULL);
        epoll_ctl(polled, EPOLL_CTL_DEL, listener, NULL);
        close(listener);
        for (int other = 0; other < CONNECTIONS; other++)
          if (of[other].head) readable(other);
        for (int other = 0; other < CONNECTIONS; other++)
          if (of[other].head && !of[other].length) shutdown(other, SHUT_WR);
      } else if (of[fd].head) readable(fd);
    }
  }
  return 0;
}
