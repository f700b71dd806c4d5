"""The first contact: every way of not being reached has its own message, within the time."""

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vl3.errors import ClusterError
from vl3.launch.check import reach
from vl3.launch.check.reach import server_version
from vl3.launch.kube.connection import Connection, connect


def connection_to(server: str, folder: Path, *, ca: Path | None = None) -> Connection:
    path = folder / "kubeconfig"
    authority = f", certificate-authority: {ca}" if ca else ""
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: c, cluster: {{server: "{server}"{authority}}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{token: abc}}}}]
"""
    )
    return connect(kubeconfig=path)


class Handler(http.server.BaseHTTPRequestHandler):
    status, body = 200, b'{"gitVersion": "v1.36.3"}'

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[http.server.HTTPServer]:
    status, body = getattr(request, "param", (Handler.status, Handler.body))
    handler = type("Answer", (Handler,), {"status": status, "body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_the_version_of_a_server_that_answers(server: http.server.HTTPServer, tmp_path: Path) -> None:
    assert server_version(connection_to(f"http://127.0.0.1:{server.server_port}", tmp_path)) == "v1.36.3"


@pytest.mark.parametrize("server", [(401, b"{}"), (403, b"{}")], indirect=True)
def test_a_server_that_does_not_tell_its_version_is_there(server: http.server.HTTPServer, tmp_path: Path) -> None:
    assert server_version(connection_to(f"http://127.0.0.1:{server.server_port}", tmp_path)) == "unknown version"


@pytest.mark.parametrize("server", [(502, b"<html>Bad gateway</html>")], indirect=True)
def test_something_else_answers(server: http.server.HTTPServer, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(ClusterError) as caught:
        server_version(connection_to(address, tmp_path))
    assert str(caught.value) == (
        f"{address} answers, but not like an API server (502: '<html>Bad gateway</html>'). Correct the address in "
        f"{tmp_path}/kubeconfig, or start the API server behind that proxy."
    )


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        server_version(connection_to("https://127.0.0.1:1", tmp_path))
    assert str(caught.value) == (
        "the API server https://127.0.0.1:1 cannot be reached (Connection refused). Start the cluster (`make kind-up` "
        f"for the one of this repository), or correct the address in {tmp_path}/kubeconfig."
    )


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        server_version(connection_to("https://nowhere.invalid:6443", tmp_path))
    assert str(caught.value) == (
        "the API server https://nowhere.invalid:6443 has a name that cannot be resolved. Correct the address in "
        f"{tmp_path}/kubeconfig, or join the network (VPN) whose DNS knows it."
    )


def test_no_answer_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PROBE_SECONDS", 0.5)
    said = r"gave no answer within 0\.5 s\. Check the network between here and it"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ClusterError, match=said):
        server_version(connection_to(f"https://127.0.0.1:{silent.getsockname()[1]}", tmp_path))


def test_a_certificate_of_another_authority(server: http.server.HTTPServer, tmp_path: Path) -> None:
    for name in ("server", "other"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"),
                *("-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = f"https://127.0.0.1:{server.server_port}"
    with pytest.raises(ClusterError) as caught:
        server_version(connection_to(address, tmp_path, ca=tmp_path / "other.crt"))
    assert str(caught.value).startswith(f"the API server {address} shows a certificate that is not trusted (self")
    assert str(caught.value).endswith("Fetch the cluster's kubeconfig again.")
    assert server_version(connection_to(address, tmp_path, ca=tmp_path / "server.crt")) == "v1.36.3"
