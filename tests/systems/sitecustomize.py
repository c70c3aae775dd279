"""Take away what another system does not have, before anything is imported: SIMULATED=macos or windows, with this folder on PYTHONPATH."""

import importlib
import os

MACOS = {
    "select": ("epoll", "EPOLL", "POLLRDHUP"),  # first: socket imports selectors, which looks what there is
    "os": ("eventfd", "EFD_", "pipe2"),
    "socket": ("TCP_INFO",),
}
WINDOWS = {
    "select": ("epoll", "EPOLL", "poll", "POLL", "PIPE_BUF"),
    "os": ("eventfd", "EFD_", "pipe", "sysconf", "register_at_fork", "fork", "O_CLOEXEC", "set_blocking"),
    "socket": ("TCP_INFO", "AF_UNIX"),
    "signal": ("pthread_", "sigwait", "SIGKILL", "SIGHUP"),
}

if os.environ.get("SIMULATED") == "windows":
    import asyncio  # noqa: F401  # while there is what its POSIX half asks for: pdb, which pytest imports, imports it

for module, beginnings in {"macos": MACOS, "windows": WINDOWS}.get(os.environ.get("SIMULATED", ""), {}).items():
    found = importlib.import_module(module)
    for name in dir(found):
        if name.startswith(beginnings):
            delattr(found, name)
