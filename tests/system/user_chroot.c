/* user_chroot NIX COMMAND [ARG]...: run a command where the directory NIX is /nix, by a user namespace, as bundles of
 * Nix start what they have unpacked. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void need(int failed, const char *what) {
    if (failed) {
        perror(what);
        exit(1);
    }
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    need(fd < 0 || write(fd, text, strlen(text)) < 0, path);
    close(fd);
}

static void bind(const char *what, const char *root, const char *name) {
    char place[4096];
    snprintf(place, sizeof place, "%s/%s", root, name);
    mkdir(place, 0755);
    need(mount(what, place, "none", MS_BIND | MS_REC, NULL), place);
}

int main(int argc, char *argv[]) {
    char root[4096], nix[4096], map[64], path[512];
    int uid = getuid(), gid = getgid();
    struct dirent *entry;
    struct stat found;
    DIR *top = opendir("/");

    need(argc < 3 || !top || !realpath(argv[1], nix), "usage");
    snprintf(root, sizeof root, "%s/../root", nix);
    mkdir(root, 0755);
    need(unshare(CLONE_NEWNS | CLONE_NEWUSER), "unshare");
    while ((entry = readdir(top))) {
        snprintf(path, sizeof path, "/%s", entry->d_name);
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "nix") && !lstat(path, &found) && S_ISDIR(found.st_mode))
            bind(path, root, entry->d_name);
    }
    bind(nix, root, "nix");
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%d %d 1", uid, uid);
    write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%d %d 1", gid, gid);
    write_file("/proc/self/gid_map", map);
    need(chroot(root) || chdir("/"), "chroot");
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
