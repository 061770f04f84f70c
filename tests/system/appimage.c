/* The program at the head of an AppImage-like executable: what that of a type 2 AppImage does where it has no FUSE.
 *
 * A squashfs image follows the ELF file. With APPIMAGE_EXTRACT_AND_RUN it is unpacked, if it is not there yet, into
 * $TMPDIR/appimage_extracted_DIGEST, and AppRun there is run by a second process; afterwards it is removed, unless
 * there is NO_CLEANUP. */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(char *const argv[]) {
    int status, pid = fork();
    if (pid == 0) {
        execvp(argv[0], argv);
        perror(argv[0]);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

int main(int argc, char *argv[]) {
    const char *base = getenv("TMPDIR");
    char place[4096], start[4200], offset[32], self[4096] = {0}, block[65536];
    uint64_t digest = 14695981039346656037u; /* FNV-1a */
    Elf64_Ehdr head;
    ssize_t got;
    int fd = open("/proc/self/exe", O_RDONLY), code;

    (void)argc;
    if (!getenv("APPIMAGE_EXTRACT_AND_RUN")) {
        fputs("Cannot mount AppImage, please check your FUSE setup.\n", stderr);
        return 127;
    }
    if (fd < 0 || read(fd, &head, sizeof head) != sizeof head || readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 127;
    snprintf(offset, sizeof offset, "%lu", head.e_shoff + (unsigned long)head.e_shentsize * head.e_shnum);
    lseek(fd, 0, SEEK_SET);
    while ((got = read(fd, block, sizeof block)) > 0)
        for (ssize_t i = 0; i < got; i++)
            digest = (digest ^ (unsigned char)block[i]) * 1099511628211u;
    close(fd);
    snprintf(place, sizeof place, "%s/appimage_extracted_%016lx", base ? base : "/tmp", (unsigned long)digest);
    snprintf(start, sizeof start, "%s/AppRun", place);
    if (access(start, X_OK) &&
        (code = run((char *[]){"unsquashfs", "-quiet", "-no-progress", "-offset", offset, "-dest", place, self, NULL})))
        return code;
    setenv("APPDIR", place, 1);
    setenv("APPIMAGE", self, 1);
    argv[0] = start;
    code = run(argv);
    if (!getenv("NO_CLEANUP"))
        run((char *[]){"rm", "-rf", place, NULL});
    return code;
}
