"""On PYTHONPATH of a command, this refuses every connection but local pipes, in its child processes too."""

import socket


def _refuse(*args, **kwargs):
    raise OSError("the network is switched off in this test")


def _connect_locally_only(self, address, connect=socket.socket.connect):
    if self.family != socket.AF_UNIX:
        _refuse()
    return connect(self, address)


socket.socket.connect = _connect_locally_only
socket.getaddrinfo = _refuse
