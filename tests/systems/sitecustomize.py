"""Take away what another system does not have, before anything is imported: SIMULATED=macos or windows, with this folder on PYTHONPATH."""

import os
import select
import signal
import socket

EPOLL = [name for name in dir(select) if name.startswith(("epoll", "EPOLL"))]
MACOS = {
    select: [*EPOLL, "POLLRDHUP"],
    os: [name for name in dir(os) if name.startswith(("eventfd", "EFD_"))] + ["pipe2"],
    socket: ["TCP_INFO"],
}
WINDOWS = {
    select: [*MACOS[select], *(name for name in dir(select) if name.startswith(("poll", "POLL"))), "PIPE_BUF"],
    os: [*MACOS[os], "sysconf", "register_at_fork", "fork", "O_CLOEXEC", "set_blocking"],
    socket: ["TCP_INFO", "AF_UNIX"],
    signal: ["pthread_sigmask", "pthread_kill", "sigwait", "SIGKILL", "SIGHUP"],
}

for module, names in {"macos": MACOS, "windows": WINDOWS}.get(os.environ.get("SIMULATED", ""), {}).items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
