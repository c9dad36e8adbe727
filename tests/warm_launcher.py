"""What Ray is given in the place of Python, see `warm`: `PYTHON SOCKET SCRIPT [ARGUMENT ...]`.

It hands a worker's arguments, environment and files on, and becomes anything else itself. It knows
nothing but the standard library, so that it takes a hundredth of a second.
"""

import json
import os
import socket
import sys

WORKER = "default_worker.py"
STREAMS = (0, 1, 2)


def main(python: str, server: str, *arguments: str) -> None:
    if not any(argument.endswith(WORKER) for argument in arguments[:4]):
        os.execv(python, [python, *arguments])
    told = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        socket.send_fds(connection, [b"."], STREAMS)
        connection.sendall(json.dumps(told).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
