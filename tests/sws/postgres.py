"""A PostgreSQL server for one test, stopped when the test ends."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

INITDB = shutil.which("initdb") or next(
    map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
)


@contextmanager
def server() -> Iterator[str]:
    """Start a server; yield the URL of its database."""
    # Not in pytest's folder, which the user of the server may not enter.
    with TemporaryDirectory() as folder:
        yield from _server(Path(folder))


def _server(folder: Path) -> Iterator[str]:
    programs = Path(INITDB).resolve().parent
    data = folder / "data"
    data.mkdir()
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        folder.chmod(0o711)
        shutil.chown(data, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(name: str, *arguments: str) -> None:
        # Not captured through a pipe, which the server would keep open.
        with open(folder / "log", "a") as log:
            command = [*as_user, programs / name, "-D", data, *arguments]
            done = subprocess.run(command, stdout=log, stderr=log, cwd="/", check=False)
        assert done.returncode == 0, (folder / "log").read_text()

    call("initdb", "-U", "swsjax", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    call("pg_ctl", "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://swsjax@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-w", "-m", "immediate", "stop")
