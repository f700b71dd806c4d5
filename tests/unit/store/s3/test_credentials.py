"""Where the credentials come from, what happens when they change while running, and that no secret is shown."""

import http.server
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.weed_server import WeedServer
from tests.unit.store.conftest import PART_BYTES, connection_to
from vl3.errors import StorageError
from vl3.store.objects import open_s3, open_store
from vl3.store.s3.connection import S3Connection

AWS_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any account."""
    for name in (*AWS_NAMES, "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ENDPOINT_URL_STS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return monkeypatch


@pytest.fixture
def mounted(bare: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A credentials file like a mounted secret: a link that is switched."""
    write_profile(tmp_path / "credentials", "admin")
    bare.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def write_profile(path: Path, account: str, profile: str = "default") -> None:
    target = path.with_name(f"..{os.urandom(4).hex()}")
    text = f"[{profile}]\naws_access_key_id = {account}\naws_secret_access_key = {account}-secret\n"
    target.write_text(text)
    link = path.with_name(f"{path.name}.new")
    link.symlink_to(target)
    link.replace(path)


def without_account(endpoint: str) -> S3Connection:
    return replace(connection_to(endpoint), access_key=None, secret_key=None)


def test_a_changed_file_is_used_from_the_next_request_on(mounted, proxy: FaultProxy, quick, root_uri: str) -> None:
    store = open_s3(root_uri, without_account(proxy.endpoint))
    assert not store.exists("x")
    write_profile(mounted, "second")
    with proxy.fault(Fault("refuse", account="admin", value="403 ExpiredToken", times=99)):
        assert not store.exists("x")
        assert len(proxy.requests) == 1


def test_credentials_that_expire_during_a_transfer_are_renewed(
    mounted, proxy: FaultProxy, quick, root_uri: str, tmp_path: Path
) -> None:
    """The old account is refused from the third part on; the file changes at that moment."""
    data = os.urandom(8 * PART_BYTES)
    (tmp_path / "f").write_bytes(data)
    store = open_s3(root_uri, without_account(proxy.endpoint))
    rotated = threading.Event()

    class Rotating(Fault):
        def takes(self, request) -> bool:
            taken = super().takes(request)
            if taken and not rotated.is_set():
                rotated.set()
                write_profile(mounted, "second")
            return taken

    for method, move in (
        ("PUT", lambda: store.put_file(tmp_path / "f", "f")),
        ("GET", lambda: store.get_file("f", tmp_path / "copy")),
    ):
        rotated.clear()
        write_profile(mounted, "admin")
        fault = Rotating("refuse", method, account="admin", value="403 ExpiredToken", times=99, after=2)
        with proxy.fault(fault):
            move()
        assert 1 <= fault.hits <= 5
    assert (tmp_path / "copy").read_bytes() == data
    assert store.client.num_retries == 0


def test_an_expired_token_without_a_new_one_is_reported(mounted, proxy: FaultProxy, quick, root_uri: str) -> None:
    store = open_s3(root_uri, without_account(proxy.endpoint))
    with (
        proxy.fault(Fault("refuse", value="400 ExpiredToken", times=99)),
        pytest.raises(
            StorageError, match=r"from profile 'default' in .*credentials has expired .* Renew it: a changed"
        ),
    ):
        store.exists("x")
    assert len(proxy.requests) == 1


def test_a_file_that_is_half_written_keeps_the_account(mounted, weed: WeedServer, quick, root_uri: str) -> None:
    store = open_s3(root_uri, without_account(weed.endpoint))
    assert not store.exists("x")
    mounted.unlink()
    mounted.write_text("[default]\naws_access_key_id = adm")
    assert not store.exists("x")
    mounted.unlink()
    assert not store.exists("x")


def test_a_profile_is_chosen_and_a_missing_one_is_named(mounted, bare, weed: WeedServer, quick, root_uri: str) -> None:
    write_profile(mounted, "admin", profile="store")
    bare.setenv("AWS_PROFILE", "store")
    assert not open_store(root_uri, without_account(weed.endpoint)).exists("x")
    bare.setenv("AWS_PROFILE", "nothing")
    with pytest.raises(
        StorageError, match=r"no S3 credentials from profile 'nothing' in .*credentials \(aws_access_key_id or aws_"
    ):
        open_store(root_uri, without_account(weed.endpoint)).exists("x")


def test_a_file_that_is_named_and_missing_is_reported(mounted, weed: WeedServer, quick, root_uri: str) -> None:
    mounted.unlink()
    with pytest.raises(
        StorageError, match=r"no S3 credentials from profile 'default' in .*credentials \(.*No such file"
    ):
        open_store(root_uri, without_account(weed.endpoint)).exists("x")


def test_the_home_folder_is_looked_into(bare, weed: WeedServer, quick, root_uri: str, tmp_path: Path) -> None:
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    write_profile(tmp_path / "home" / ".aws" / "credentials", "admin")
    assert not open_store(root_uri, without_account(weed.endpoint)).exists("x")


def test_no_account_at_all_is_reported(bare, weed: WeedServer, quick, root_uri: str) -> None:
    with pytest.raises(
        StorageError, match=r"http://.*: no credentials for this S3 server were found. Set AWS_ACCESS_KEY"
    ):
        open_store(root_uri, without_account(weed.endpoint))


def test_variables_win_over_files_and_are_read_when_a_client_is_made(
    mounted, bare, weed: WeedServer, quick, root_uri: str
) -> None:
    write_profile(mounted, "ghost")
    bare.setenv("AWS_ENDPOINT_URL", weed.endpoint)
    bare.setenv("AWS_REGION", "us-east-1")
    bare.setenv("AWS_ACCESS_KEY_ID", "admin")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")
    first = open_s3(root_uri)
    assert not first.exists("x")
    assert open_s3(root_uri).client is first.client
    bare.setenv("AWS_SECRET_ACCESS_KEY", "other")
    with pytest.raises(StorageError, match="the secret of the account from AWS_ACCESS_KEY_ID is wrong"):
        open_s3(root_uri).exists("x")
    bare.setenv("AWS_ENDPOINT_URL_S3", weed.endpoint)
    bare.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")
    assert open_s3(root_uri).client is first.client


class TokenService:
    """Exchanges tokens for keys, as an STS does, or serves a container's keys; records its requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, list[str]]] = []
        self.paths: list[str] = []
        self.account, self.status = "admin", 200
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.requests.append(parse_qs(body))
                service.paths.append(self.path)
                self.send_response(service.status)
                self.end_headers()
                self.wfile.write(service.answer().encode())

            def do_GET(self) -> None:
                keys = {"AccessKeyId": service.account, "SecretAccessKey": f"{service.account}-secret"}
                service.paths.append(self.path)
                self.send_response(service.status)
                self.end_headers()
                self.wfile.write(json.dumps(keys | {"Token": None, "Expiration": "2099-01-01T00:00:00Z"}).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self) -> str:
        if self.status != 200:
            return "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"
        keys = (
            f"<AccessKeyId>{self.account}</AccessKeyId><SecretAccessKey>{self.account}-secret</SecretAccessKey>"
            "<SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        )
        result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        return f'<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{result}</R>'


@pytest.fixture
def token_service() -> Iterator[TokenService]:
    service = TokenService()
    yield service
    service.server.shutdown()
    service.server.server_close()


def test_a_web_identity_token_becomes_an_account_and_a_new_token_a_new_one(
    bare, token_service: TokenService, proxy: FaultProxy, quick, root_uri: str, tmp_path: Path, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text("secret-token-1\n")
    bare.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    bare.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/vl3")
    bare.setenv("AWS_ENDPOINT_URL_STS", token_service.endpoint)
    store = open_s3(root_uri, without_account(proxy.endpoint))
    assert (store.exists("x"), store.exists("y")) == (False, False)
    assert [request["WebIdentityToken"] for request in token_service.requests] == [["secret-token-1"]]
    assert token_service.requests[0]["RoleArn"] == ["arn:aws:iam::1:role/vl3"]
    token_service.account = "second"
    with proxy.fault(Fault("refuse", account="admin", value="403 ExpiredToken", times=99)):
        assert not store.exists("x")  # refused once: the token is exchanged again, at once
    (tmp_path / "token").write_text("secret-token-22\n")
    assert not store.exists("x")
    assert token_service.requests[-1]["WebIdentityToken"] == ["secret-token-22"]
    assert len(token_service.requests) == 3
    assert token_service.paths == ["/"] * 3
    assert "secret-token" not in caplog.text
    assert "-secret" not in caplog.text
    token_service.status = 400
    (tmp_path / "token").write_text("secret-token-333\n")
    fresh = open_s3(root_uri, replace(without_account(proxy.endpoint), deadline_seconds=14.5))
    with pytest.raises(
        StorageError, match=r"no S3 credentials from the web identity token in .*token \(the token service refused the"
    ) as caught:
        fresh.exists("x")
    assert "400 InvalidIdentityToken" in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_an_answer_of_the_token_service_without_keys_names_what_is_missing(
    bare, token_service: TokenService, quick, tmp_path: Path
) -> None:
    incomplete = "<R><AccessKeyId>first</AccessKeyId><Expiration></Expiration></R>"
    bare.setattr(token_service, "answer", lambda: incomplete)
    (tmp_path / "token").write_text("secret-token-1")
    bare.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    bare.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/vl3")
    bare.setenv("AWS_ENDPOINT_URL_STS", token_service.endpoint)
    store = open_s3("s3://bucket/x", without_account("http://127.0.0.1:1"))
    with pytest.raises(StorageError, match="the token service answered without SecretAccessKey, Expiration"):
        store.exists("x")


def test_the_role_of_a_container_is_asked_and_asked_again_when_refused(
    bare, token_service: TokenService, proxy: FaultProxy, quick, root_uri: str
) -> None:
    bare.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{token_service.endpoint}/account")
    store = open_s3(root_uri, without_account(proxy.endpoint))
    assert (store.exists("x"), store.exists("x")) == (False, False)
    assert token_service.paths == ["/account"]
    token_service.account = "second"
    with proxy.fault(Fault("refuse", account="admin", value="403 ExpiredToken", times=99)):
        assert not store.exists("x")
    token_service.status = 403
    silent = open_s3(root_uri, replace(without_account(proxy.endpoint), deadline_seconds=13.0))
    with pytest.raises(StorageError, match=r"no S3 credentials: none are set, and the role of this machine gave none"):
        silent.exists("x")


def test_no_secret_is_shown(weed: WeedServer, quick, root_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection = replace(connection_to(weed.endpoint, "admin", "very-hidden"), session_token="hidden-token")
    assert "hidden" not in repr(connection)
    store = open_s3(root_uri, connection)
    with pytest.raises(StorageError) as caught:
        store.exists("x")
    chain, error = [], caught.value
    while error is not None:
        chain.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    assert "hidden" not in " ".join([*chain, caplog.text, repr(store), repr(store.client)])
