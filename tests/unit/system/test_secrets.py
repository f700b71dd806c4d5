"""Secrets in addresses are found and hidden; addresses without one stay as they are."""

import pytest

from vl3.system.secrets import holds_secret, masked, without_account

SECRET = {
    "http://me:hunter2@host:5000/x": "http://***@host:5000/x",
    "https://hunter2@host": "https://***@host",
    "http://me:hunter2/@2#?@host/x": "http://***@host/x",
    "http://me:hunter2@[::1]:5000": "http://***@[::1]:5000",
    "http://me:@host": "http://***@host",
    "s3://AKIA1:hunter2@bucket/key": "s3://***@bucket/key",
    "s3://bucket/key?X-Amz-Signature=hunter2&x=1": "s3://bucket/key?X-Amz-Signature=***&x=1",
    "https://host/?a=1&access_token=hunter2": "https://host/?a=1&access_token=***",
    "https://host/?API-Key=hunter2": "https://host/?API-Key=***",
    "postgresql://me:hunter2@db/mlflow": "postgresql://me:***@db/mlflow",
    "postgresql+psycopg2://db/mlflow?user=me&password=hunter2": "postgresql+psycopg2://db/mlflow?user=me&password=***",
    "model.vision_base=s3://me:hunter2@bucket/base": "model.vision_base=s3://***@bucket/base",
    '{"uri": "http://me:hunter2@host", "n": 1}': '{"uri": "http://***@host", "n": 1}',
}
PLAIN = [
    "",
    "sqlite:////runs/mlflow.db",
    "s3://bucket/key@v1/a:b@c",
    "https://host:8080/a@b?tokenizer=x&max_tokens=3&author=y",
    "postgresql://me@db/mlflow",
    "http://[::1]:5000/x",
    "stages.video.mixture.scene_image:caption=1.0",
    "file:///data/a:b@c",
]


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_is_found_and_hidden(text: str) -> None:
    assert holds_secret(text)
    assert masked(text) == SECRET[text]
    assert "hunter2" not in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("text", PLAIN)
def test_what_has_no_secret_stays(text: str) -> None:
    assert not holds_secret(text)
    assert masked(text) == text


def test_an_address_without_a_scheme_counts_where_an_address_is_meant() -> None:
    assert holds_secret("me:hunter2@host:5000", is_address=True)
    assert not holds_secret("me:hunter2@host:5000")
    assert masked("cannot open me:hunter2@host:5000 now") == "cannot open ***@host:5000 now"


def test_without_account_names_the_server() -> None:
    assert without_account("http://me:hunter2@host:5000/x") == "http://host:5000/x"
    assert without_account("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"
