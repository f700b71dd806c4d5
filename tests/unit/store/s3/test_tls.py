"""TLS with a private CA: trusted where AWS_CA_BUNDLE names it, refused at once where not."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import make_ca
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.weed_server import WeedServer
from tests.unit.store.conftest import PART_BYTES, connection_to
from vl3.errors import ConfigError, StorageError
from vl3.store.objects import open_s3
from vl3.store.s3.connection import connection_from_environment


@pytest.fixture(scope="module")
def tls(weed: WeedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultProxy, Path]]:
    """The server behind TLS, and the CA that signed its certificate."""
    bundle, context = make_ca(tmp_path_factory.mktemp("ca"))
    proxy = FaultProxy(weed.port, context)
    yield proxy, bundle
    proxy.close()


def test_a_private_ca_is_trusted_by_its_bundle(tls, quick: None, root_uri: str, tmp_path: Path, monkeypatch) -> None:
    proxy, bundle = tls
    environment = {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_CA_BUNDLE": str(bundle),
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "admin-secret",
        "AWS_REGION": "us-east-1",
    }
    store = open_s3(root_uri, connection_from_environment(environment))
    data = os.urandom(PART_BYTES + 5)
    (tmp_path / "f").write_bytes(data)
    with proxy.fault(Fault("flip_sent", "PUT"), Fault("cut", "GET .*f$", value=99_999)):
        store.put_file(tmp_path / "f", "f")
        store.get_file("f", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert store.client.num_retries == 2


def test_an_unknown_ca_is_refused_at_once(tls, quick: None, root_uri: str, tmp_path: Path) -> None:
    proxy, _ = tls
    other, _ = make_ca(tmp_path / "other", "another CA")
    for bundle, trusted in ((None, "the system's certificates"), (other, f"{other} and the system's certificates")):
        connection = replace(connection_to(proxy.endpoint), ca_bundle=bundle)
        store = open_s3(root_uri, connection)
        with pytest.raises(
            StorageError, match=rf"the certificate of https://127.* is not trusted by {trusted}"
        ) as caught:
            store.exists("x")
        assert "Add the server's CA certificate to the file that AWS_CA_BUNDLE names" in str(caught.value)
        assert store.client.num_retries == 0


def test_plain_http_to_a_tls_port_and_back_are_explained(tls, weed: WeedServer, quick: None, root_uri: str) -> None:
    proxy, bundle = tls
    wrong = (
        connection_to(proxy.endpoint.replace("https", "http")),
        replace(connection_to(weed.endpoint.replace("http", "https")), ca_bundle=bundle),
    )
    for connection in wrong:
        with pytest.raises(StorageError, match=rf"the S3 server at {connection.endpoint} does not answer"):
            open_s3(root_uri, connection).exists("x")


def test_a_bundle_that_is_none_is_refused(tmp_path: Path, quick: None) -> None:
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE: the file .*gone.pem does not exist"):
        connection_from_environment({"AWS_CA_BUNDLE": str(tmp_path / "gone.pem")})
    (tmp_path / "text.pem").write_text("no certificate")
    connection = replace(connection_to("https://127.0.0.1:1"), ca_bundle=tmp_path / "text.pem")
    with pytest.raises(ConfigError, match=r"text.pem has no readable certificates"):
        open_s3("s3://bucket/x", connection)
