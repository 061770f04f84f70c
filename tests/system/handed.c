/* Serves the content of /version on the socket it was handed (sd_listen_fds(3)), and ends well when asked to. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }

int main(void) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || atoi(pid) != getpid() || !count || atoi(count) != 1) return 2;
    signal(SIGTERM, end);
    char version[64] = {0}, request[4096], answer[256];
    FILE *file = fopen("/version", "r");
    if (!file || !fgets(version, sizeof version, file)) return 3;
    int length = snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n", strlen(version) + 1, version);
    for (;;) {
        int client = accept(3, 0, 0);
        if (client < 0) continue;
        if (read(client, request, sizeof request) > 0 && write(client, answer, length) != length) return 4;
        close(client);
    }
}
