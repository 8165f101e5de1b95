"""Run a command where there is no network but loopback: `python loopback_only.py COMMAND...`, as root.

Dynamo's workers listen on all interfaces, whatever they are told. In a network namespace of its own that is loopback.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
INTERFACE_FLAGS = "16sH14x"
"""The part of `struct ifreq` that has the name of an interface and its flags."""


def leave_network() -> None:
    """Move this process into a new network namespace, and bring its loopback interface up; OSError if it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"no network namespace: {os.strerror(error)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack(INTERFACE_FLAGS, b"lo", 0))
        name, flags = struct.unpack(INTERFACE_FLAGS, request)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(INTERFACE_FLAGS, name, flags | IFF_UP))


if __name__ == "__main__":
    leave_network()
    os.execvp(sys.argv[1], sys.argv[1:])
