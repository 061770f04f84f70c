/* Sends requests as fast as they are answered: one thread and one kept connection each.

       flood HOST PORT SECONDS CONNECTIONS HEAD BODY

   HEAD is a file with the request's lines up to a header whose value is still missing ("X-Gitea-Delivery: ");
   each request gets a value of its own there, and then the blank line and the file BODY.
   Prints, as JSON, how many were answered by status, and in how many seconds. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 65536, STATUSES = 600 };

static struct sockaddr_in place;
static char *head, *body;
static size_t head_size, body_size;
static double until;

struct lane {
    pthread_t thread;
    int number;
    long seen[STATUSES];
};

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static char *content(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    char *text = malloc(1 << 22);
    *size = fread(text, 1, (1 << 22) - 1, file);
    text[*size] = 0;
    fclose(file);
    return text;
}

/* One answer, its body included. Returns its status, or 0 when the connection ended. */
static int answer(int fd, char *text) {
    size_t have = 0, whole = 0;
    for (;;) {
        ssize_t got = recv(fd, text + have, ANSWER - 1 - have, 0);
        if (got <= 0 || have + (size_t)got >= ANSWER - 1)
            return 0;
        have += (size_t)got;
        text[have] = 0;
        if (whole == 0) {
            char *end = strstr(text, "\r\n\r\n");
            char *length = strcasestr(text, "\r\ncontent-length:");
            if (end == NULL)
                continue;
            whole = (size_t)(end + 4 - text) + (length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0);
        }
        if (have >= whole) {
            int status = atoi(text + 9);
            return status > 0 && status < STATUSES ? status : 0;
        }
    }
}

static void *send_all(void *given) {
    struct lane *lane = given;
    char *request = malloc(head_size + body_size + 64), *text = malloc(ANSWER);
    memcpy(request, head, head_size);
    int fd = -1;
    for (long sent = 0; now() < until; sent++) {
        if (fd < 0) {
            int one = 1;
            fd = socket(AF_INET, SOCK_STREAM, 0);
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (connect(fd, (struct sockaddr *)&place, sizeof place) != 0) {
                perror("connect");
                exit(2);
            }
        }
        size_t size = head_size + (size_t)sprintf(request + head_size, "%d-%ld\r\n\r\n", lane->number, sent);
        memcpy(request + size, body, body_size);
        size += body_size;
        int status = send(fd, request, size, MSG_NOSIGNAL) == (ssize_t)size ? answer(fd, text) : 0;
        lane->seen[status]++;
        if (status == 0) {
            close(fd);
            fd = -1;
        }
    }
    close(fd);
    return NULL;
}

int main(int count, char **given) {
    if (count != 7)
        return 2;
    place.sin_family = AF_INET;
    place.sin_port = htons((unsigned short)atoi(given[2]));
    inet_pton(AF_INET, given[1], &place.sin_addr);
    head = content(given[5], &head_size);
    body = content(given[6], &body_size);
    int lanes = atoi(given[4]);
    struct lane *lane = calloc((size_t)lanes, sizeof *lane);
    double began = now();
    until = began + atof(given[3]);
    for (int i = 0; i < lanes; i++) {
        lane[i].number = i;
        pthread_create(&lane[i].thread, NULL, send_all, &lane[i]);
    }
    for (int i = 0; i < lanes; i++)
        pthread_join(lane[i].thread, NULL);
    printf("{\"seconds\": %.6f, \"answers\": {", now() - began);
    const char *comma = "";
    for (int status = 0; status < STATUSES; status++) {
        long sum = 0;
        for (int i = 0; i < lanes; i++)
            sum += lane[i].seen[status];
        if (sum > 0)
            printf("%s\"%d\": %ld", comma, status, sum), comma = ", ";
    }
    printf("}}\n");
    return 0;
}
