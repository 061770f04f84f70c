/* A web server in one static binary: answers every request with its version. Listens on $PORT. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "0"
#endif

static volatile sig_atomic_t ending;

static void end(int signal_number) {
    (void)signal_number;
    ending = 1;
}

int main(void) {
    const char *port = getenv("PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sigaction action = {.sa_handler = end};
    const char body[] = "hello from " VERSION "\n";
    char answer[256], request[4096];

    sigaction(SIGTERM, &action, NULL); /* without SA_RESTART: accept returns */
    signal(SIGPIPE, SIG_IGN);
    snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
             sizeof body - 1, body);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("hello");
        return 1;
    }
    while (!ending) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        if (read(client, request, sizeof request) > 0 && write(client, answer, strlen(answer)) > 0)
            shutdown(client, SHUT_WR);
        while (read(client, request, sizeof request) > 0)
            ; /* until the client has gone: closing with unread bytes would reset the connection */
        close(client);
    }
    return 0;
}
