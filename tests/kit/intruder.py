"""A hostile program: serves like any other, and tells what it could do when it is asked to try.

`GET /` answers `1.0`, `GET /try` a JSON object: attempt to "done" or the name of the errno that stopped it.
With the argument `try` it prints that, and ends.
What to try it on comes in its environment (`TARGETS`, JSON). Standard library only.
"""

import ctypes
import errno
import http.server
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
TARGETS: dict[str, Any] = json.loads(os.environ.get("TARGETS", "{}"))


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def module() -> None:
    """Any complaint about what is handed over means that it would have been taken."""
    libc.syscall(TARGETS["init_module"], 0, 0, 0)
    if ctypes.get_errno() == errno.EPERM:
        raise PermissionError(errno.EPERM, "")


def mount() -> None:
    """Where it may, in a namespace of its own: this is not to stay."""
    if libc.unshare(0x00020000) == 0:  # CLONE_NEWNS
        checked(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
    checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))


def mount_apart() -> None:
    """In a user namespace of its own, where it would have the right to."""
    checked(libc.unshare(0x10020000))  # CLONE_NEWUSER | CLONE_NEWNS
    checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def write(path: str) -> None:
    with open(path, "ab"):
        pass


def memory(pid: int) -> None:
    """Look at the first byte that is mapped."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        file.seek(int(maps.readline().split("-")[0], 16))
        file.read(1)


def trace(pid: int) -> None:
    checked(libc.ptrace(0x4206, pid, 0, 0))  # PTRACE_SEIZE: does not stop it; ends with this process


def bind(port: int) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


def connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def see(pid: int) -> None:
    """Whether /proc has another process, and tells its command line."""
    read(f"/proc/{pid}/cmdline")


def rename(directory: str) -> None:
    """Across directories: no attack, but what Landlock denies to the careless."""
    os.makedirs(f"{directory}/a", exist_ok=True)
    os.makedirs(f"{directory}/b", exist_ok=True)
    write(f"{directory}/a/x")
    os.rename(f"{directory}/a/x", f"{directory}/b/x")


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read the agent's secrets": lambda: read(TARGETS["secret"]),
    "read the agent's data directory": lambda: read(TARGETS["journal"]),
    "read the agent's memory": lambda: memory(TARGETS["agent"]),
    "read the agent's environment": lambda: read(f"/proc/{TARGETS['agent']}/environ"),
    "trace the keeper": lambda: trace(TARGETS["keeper"]),
    "kill the agent": lambda: os.kill(TARGETS["agent"], 0),
    "kill the keeper": lambda: os.kill(TARGETS["keeper"], 0),
    "write elsewhere on the disk": lambda: write(f"{TARGETS['outside']}/mine"),
    "write into its release": lambda: write(TARGETS["release"]),
    "bind another TCP port": lambda: bind(TARGETS["free"]),
    "connect to the agent's port": lambda: connect(TARGETS["admin"]),
    "see other processes": lambda: see(TARGETS["keeper"]),
    "load a kernel module": module,
    "mount": mount,
    "make a user namespace": lambda: checked(libc.unshare(0x10000000)),
    "mount in a user namespace of its own": mount_apart,
    "write into its own directories": lambda: write(f"{os.environ['STATE_DIRECTORY']}/mine"),
    "move files between its own directories": lambda: rename(os.environ["STATE_DIRECTORY"]),
    "make temporary files": lambda: write(f"{os.environ.get('TMPDIR', '/tmp')}/intruder.{os.getpid()}"),
}


def attempt(act: Callable[[], object]) -> str:
    """In a process of its own: some attempts would change this one."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        said = "done"
        try:
            act()
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, "failed")
        except BaseException as error:
            said = repr(error)
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        answer = pipe.read().decode()
    os.wait()
    return answer


def everything() -> str:
    return json.dumps({name: attempt(act) for name, act in ATTEMPTS.items()})


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = "1.0\n"
        if self.path == "/try":
            body = everything()
        elif self.path == "/eat":
            hog = []
            while True:
                hog.append(bytearray(os.urandom(1 << 12) * 256))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    if sys.argv[1:] == ["try"]:
        print(everything())
        sys.exit()
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
