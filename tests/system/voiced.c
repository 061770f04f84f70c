/* Alone in a container: says that it is ready, gives signs of life until the file data/silent is there, and prints
 * etc/app.conf at its start and at each HUP, after which it is ready again. */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t asked = 1;

static void reload(int number) {
    (void)number;
    asked = 1;
}

static void say(const char *text) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (!path || fd < 0)
        exit(3);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("notify");
        exit(4);
    }
    close(fd);
}

int main(void) {
    struct sigaction action = {.sa_handler = reload};
    sigaction(SIGHUP, &action, NULL);
    for (;;) {
        if (asked) {
            char line[256] = "";
            FILE *file = fopen("/etc/app.conf", "r");
            asked = 0;
            say("RELOADING=1");
            if (file && fgets(line, sizeof line, file))
                printf("conf %s", line);
            fflush(stdout);
            if (file)
                fclose(file);
            say("READY=1\nSTATUS=has read it");
        }
        if (access("/data/silent", F_OK))
            say("WATCHDOG=1");
        usleep(100000);
    }
}
