"""Models of the hub, from a server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import ReadTimeout
from huggingface_hub import constants

from tests.support.hub_server import HubServer, hub_server
from vl3.errors import ConfigError, StorageError
from vl3.store.bases import base_folder
from vl3.store.hub import hub_folder
from vl3.system.retry import Pauses


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one model of two revisions, as HF_ENDPOINT names it before the process starts."""
    with hub_server() as server:
        _point_to(server.endpoint, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("vl3.store.hub._PAUSES", Pauses(first_seconds=0.01, longest_seconds=0.01))
        for revision in ("main", "v1"):
            folder = tmp_path / revision
            folder.mkdir()
            (folder / "config.json").write_text(f'{{"made": "{revision}"}}')
            (folder / "model.safetensors").write_bytes(b"weights")
            (folder / "pytorch_model.bin").write_bytes(b"a pickle")
            server.models["vl3/small", revision] = folder
        yield server


def _point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does before the library is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


def test_a_revision_is_downloaded_without_its_pickles(hub: HubServer) -> None:
    folder = hub_folder("vl3/small", "v1")
    assert folder.name == hub.commit("vl3/small", "v1"), "the commit, by which the download is named"
    assert (folder / "config.json").read_text() == '{"made": "v1"}'
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not [path for path in hub.requests if path.endswith(".bin")]


def test_bases_have_revisions_too(hub: HubServer) -> None:
    assert (base_folder("hf://vl3/small") / "config.json").read_text() == '{"made": "main"}'
    assert (base_folder("hf://vl3/small@v1") / "config.json").read_text() == '{"made": "v1"}'
    with pytest.raises(ConfigError, match="does not name a model of the hub"):
        base_folder("hf://vl3/small@")


@pytest.mark.parametrize(
    ("name", "revision", "what"), [("vl3/large", "", "model"), ("vl3/small", "v2", "revision"), ("../up", "", "model")]
)
def test_what_the_hub_does_not_have_is_the_callers_mistake(hub: HubServer, name: str, revision: str, what: str) -> None:
    uri = f"hf://{name}{'@' if revision else ''}{revision}"
    with pytest.raises(ConfigError) as caught:
        hub_folder(name, revision)
    assert str(caught.value) == (
        f"{uri}: {hub.endpoint} has no such {what}, or does not show it to this account. Correct the name, or set "
        "HF_TOKEN."
    )


def test_a_hub_that_is_not_there_is_said_in_one_sentence(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    _point_to("http://somebody:secret@127.0.0.1:1", monkeypatch)
    with pytest.raises(StorageError) as caught:
        hub_folder("vl3/small")
    message = str(caught.value)
    assert message.startswith("hf://vl3/small: the model cannot be downloaded from http://127.0.0.1:1 (")
    assert "Check the network and HF_ENDPOINT" in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_hub_that_fails_is_a_problem_of_storage(hub: HubServer) -> None:
    hub.status = 500
    with pytest.raises(StorageError, match=r"hf://vl3/small: the model cannot be downloaded from"):
        hub_folder("vl3/small")


def test_what_was_downloaded_serves_without_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub_folder("vl3/small", "v1")
    _point_to("http://127.0.0.1:1", monkeypatch)
    assert hub_folder("vl3/small", "v1") == folder


def test_a_hub_that_hangs_is_a_problem_of_storage(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> str:
        raise ReadTimeout("timed out")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hang)
    with pytest.raises(StorageError, match=r"cannot be downloaded from http://127\.0\.0\.1:\d+ \(timed out\)"):
        hub_folder("vl3/small")


def test_a_model_for_known_accounts_says_what_to_set(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "a-token"
    with pytest.raises(ConfigError, match=r"hf://vl3/small: http://.* does not show it to this account.*HF_TOKEN") as e:
        hub_folder("vl3/small")
    assert "a-token" not in str(e.value)
    monkeypatch.setenv("HF_TOKEN", "a-token")
    assert (hub_folder("vl3/small") / "model.safetensors").read_bytes() == b"weights"
    hub.gated = True
    with pytest.raises(ConfigError, match=r"only to accounts that have accepted its terms\. Accept them"):
        hub_folder("vl3/small", "v1")


def test_a_transfer_that_was_cut_goes_on_where_it_was(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 12)  # what is kept of a transfer: 10 MB by default
    content = bytes(range(256)) * 1000
    (hub.models["vl3/small", "main"] / "model.safetensors").write_bytes(content)
    hub.cut_after["model.safetensors"] = 100_000
    assert (hub_folder("vl3/small") / "model.safetensors").read_bytes() == content
    places = [first for name, first in hub.ranges if name == "model.safetensors"]
    assert places[0] == 0
    assert 0 < places[-1] <= 100_000


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("model.safetensors", b"weighty"),
        ("model.safetensors", b"weights and more, since it grows"),
        ("config.json", b'{"made": "Main"}'),
    ],
)
def test_other_bytes_than_the_hub_describes_are_refused_and_fetched_again(
    hub: HubServer, name: str, sent: bytes
) -> None:
    hub.other[name] = sent
    with pytest.raises(StorageError, match=r"hf://vl3/small: .*") as caught:
        hub_folder("vl3/small")
    assert name in str(caught.value) or "Consistency check failed" in str(caught.value)
    hub.other.clear()
    folder = hub_folder("vl3/small")
    assert (folder / name).read_bytes() == (hub.models["vl3/small", "main"] / name).read_bytes()


def test_a_slow_hub_is_waited_for(hub: HubServer) -> None:
    content = b"x" * 300_000
    (hub.models["vl3/small", "main"] / "model.safetensors").write_bytes(content)
    hub.delay_seconds = 0.1
    assert (hub_folder("vl3/small") / "model.safetensors").read_bytes() == content


def test_a_hub_that_is_overloaded_for_a_moment_is_asked_again(hub: HubServer) -> None:
    hub.status, hub.failures = 503, 2
    assert (hub_folder("vl3/small") / "config.json").is_file()


def test_a_model_of_pickles_alone_is_refused_before_anything_is_fetched(hub: HubServer) -> None:
    (hub.models["vl3/small", "main"] / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"hf://vl3/small has its weights only as pytorch_model\.bin, a format whose"):
        hub_folder("vl3/small")
    assert hub.ranges == []
