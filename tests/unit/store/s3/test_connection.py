"""The connection that the environment describes."""

import pytest

from vl3.errors import ConfigError
from vl3.store.s3.connection import S3Connection, connection_from_environment
from vl3.store.uris import split_s3


def test_the_names_of_the_environment() -> None:
    environment = {
        "AWS_ENDPOINT_URL": "http://seaweedfs:8333/",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }
    assert connection_from_environment(environment) == S3Connection(
        endpoint="http://seaweedfs:8333",
        access_key="key",
        secret_key="secret",
        session_token="token",
        region="eu-north-1",
    )
    assert connection_from_environment(environment | {"AWS_REGION": "x"}).region == "x"
    assert connection_from_environment(environment | {"AWS_ENDPOINT_URL_S3": "https://s3:1"}).endpoint == "https://s3:1"
    assert connection_from_environment({}).is_aws


@pytest.mark.parametrize(
    "endpoint",
    [
        "seaweedfs:8333",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host/path",
        "http://u:pw@host",
        "http://a b",
    ],
)
def test_a_malformed_endpoint_is_refused_without_showing_an_account(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"is malformed. Write AWS_ENDPOINT_URL as http://host:port") as caught:
        connection_from_environment({"AWS_ENDPOINT_URL": endpoint})
    assert "pw" not in str(caught.value)


def test_half_an_account_is_refused() -> None:
    with pytest.raises(ConfigError, match="only one of the S3 access key and its secret is set"):
        connection_from_environment({"AWS_ACCESS_KEY_ID": "key"})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://ab/x", "'ab' is not a valid bucket name"),
        ("s3://Bucket/x", "is not a valid bucket name"),
        ("s3://key:secret@bucket/x", "s3://bucket/x: .* without an account"),
        ("s3://bucket/a/../b", r"has an empty part, '\.' or '\.\.'"),
        ("s3://bucket/a//b", "has an empty part"),
        ("s3://bucket/a\nb", "has control characters"),
        ("s3:///a", "names no bucket"),
    ],
)
def test_a_malformed_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        split_s3(uri)
    assert "secret" not in str(caught.value)


def test_keys_are_taken_as_they_are() -> None:
    assert split_s3("s3://bucket/a b#c?d%20/") == ("bucket", "a b#c?d%20")
    assert split_s3("s3://bucket") == ("bucket", "")
