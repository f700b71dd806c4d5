"""What an endpoint's configuration refuses."""

from pathlib import Path
from typing import Any

import pytest

from vl3.config.endpoint import EndpointConfig, read_endpoint
from vl3.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://me:secret@host/v1"}, r"url 'http://\*\*\*@host/v1' has a password or key"),
        ({"url": "host:8000"}, "is no address. Write it as http"),
        ({"url": "http://host:99999999/v1"}, "is no address"),
        ({"model": " "}, "endpoint.model is empty"),
        ({"api_key_env": "sk-12345"}, "is not the name of an environment variable"),
        ({"extra": {"messages": []}}, "endpoint.extra has messages, which vl3 writes itself"),
        ({"tries": 0}, "endpoint.tries=0 must be greater than 0"),
        ({"temperature": float("nan")}, "endpoint.temperature=nan"),
        ({"spend_limit_usd": 5.0}, "would never be reached, because both prices are 0"),
        ({"spend_limit_usd": 0.0, "usd_per_million_input_tokens": 1.0}, "endpoint.spend_limit_usd=0.0 must be greater"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        EndpointConfig(**{"url": "http://host:8000/v1", "model": "m", "version": "1", **changes})
    assert "secret" not in str(raised.value)
    assert "sk-12345" not in str(raised.value)


def test_an_endpoint_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.yaml"
    priced = "spend_limit_usd: 5\nusd_per_million_output_tokens: 2\n"
    extra = "extra: {mm_processor_kwargs: {max_dynamic_patch: 1}}\n"
    path.write_text(f"url: http://host:8000/v1\nmodel: m\nversion: '1'\n{priced}{extra}")
    config = read_endpoint(path)
    assert (config.spend_limit_usd, config.extra) == (5.0, {"mm_processor_kwargs": {"max_dynamic_patch": 1}})
    path.write_text("url: http://host:8000/v1\nmodell: m\nversion: '1'\n")
    with pytest.raises(ConfigError, match="modell"):
        read_endpoint(path)
    path.write_text("- url\n")
    with pytest.raises(ConfigError, match="has no fields of an endpoint"):
        read_endpoint(path)
