/* Preloaded into a program: reading, writing and syncing files fails with EIO while the file named by the
   variable FAILING is there, for those whose path holds what stands in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *control = getenv("FAILING");
    char what[256] = {0}, name[64], path[4096] = {0};
    int before = errno, file = control ? syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC) : -1;
    int length = -1;
    if (file >= 0) {
        length = syscall(SYS_read, file, what, sizeof what - 1);
        syscall(SYS_close, file);
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    }
    int found = length > 0 && readlink(name, path, sizeof path - 1) > 0 && strstr(path, what);
    errno = found ? EIO : before;
    return found;
}

#define FAILING(type, name, parameters, arguments)                      \
    type name parameters {                                              \
        static type(*real) parameters;                                  \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);  \
        return fails(fd) ? -1 : real arguments;                         \
    }

FAILING(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))
FAILING(ssize_t, pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAILING(ssize_t, pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
FAILING(ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
FAILING(ssize_t, pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
FAILING(ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
FAILING(int, fsync, (int fd), (fd))
FAILING(int, fdatasync, (int fd), (fd))
