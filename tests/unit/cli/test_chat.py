"""`vl3 chat`: one question, a conversation, a stream, and how each ends."""

import io
import sys

import numpy as np
import pytest
import torch

from tests.support.models import text_config, vision_config
from tests.support.samples import image_bytes, video_bytes
from vl3.cli.main import run
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.models.config import VideoLlama3Config
from vl3.models.model import VideoLlama3
from vl3.models.weights import save_model
from vl3.toy.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words, out = tmp_path_factory.mktemp("words"), tmp_path_factory.mktemp("model")
    build_tokenizer(words)
    tokenizer = ChatTokenizer.from_folder(words)
    torch.manual_seed(0)
    text = text_config(vocab_size=tokenizer.vocab_size, max_position_embeddings=16384)
    vision = vision_config()
    model = VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=tokenizer.image_id))
    save_model(model, words, out)
    return out


@pytest.fixture
def media(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "a.png").write_bytes(image_bytes(56, 70))
    frames = [np.full((56, 56, 3), 40 * index, dtype=np.uint8) for index in range(4)]
    (tmp_path / "v.mp4").write_bytes(video_bytes(frames, fps=1))
    return tmp_path


@pytest.fixture
def ask(folder, media, capsys):
    """Runs `vl3 chat`; a word with a dot and no slash is a file of the media folder."""

    def command(*words):
        paths = [str(media / word) if word in ("a.png", "v.mp4", "gone.png", "bad.png") else word for word in words]
        code = run(["chat", "--model", str(folder), "--max-new-tokens", "6", *paths])
        return code, *capsys.readouterr()

    return command


def test_one_question_with_images_and_a_cut_of_a_video(ask):
    code, out, err = ask("What?", "--image", "a.png", "--image", "a.png", "--temperature", "1", "--seed", "2")
    assert (code, err) == (0, "")
    assert out.endswith("\n")
    assert ask("What?", "--image", "a.png", "--image", "a.png", "--temperature", "1", "--seed", "2")[1] == out
    assert ask("What?", "--video", "v.mp4", "--start", "1", "--end", "3", "--fps", "1", "--max-frames", "2")[0] == 0


def test_a_conversation_from_a_pipe_goes_on_after_an_error_and_ends_with_its_input(ask, monkeypatch, media):
    lines = ["What?", "/image nowhere.png", "/frob", f"/image {media / 'a.png'}", "And this?", "/reset", "Again?"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    code, out, err = ask()
    assert code == 0
    assert out.count("\n") >= 3
    assert "ConfigError: nowhere.png is not a file" in err
    assert "ConfigError: /frob is unknown" in err


def test_quit_ends_a_conversation(ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/quit\nWhat?\n"))
    assert ask() == (0, "", "")


def test_ctrl_c_ends_the_answer_and_the_next_question_is_answered(ask, monkeypatch):
    from vl3.inference import chat

    spoken = chat.Conversation.stream
    calls = []

    def stream(self, question, **options):
        calls.append(question.text)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return spoken(self, question, **options)

    monkeypatch.setattr(chat.Conversation, "stream", stream)
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\nsecond\n"))
    code, _, err = ask()
    assert (code, calls) == (0, ["first", "second"])
    assert err == " (stopped)\n"


def test_ctrl_c_in_a_single_question_ends_with_130(ask, monkeypatch):
    from vl3.inference import chat

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.Conversation, "stream", interrupted)
    code, _, err = ask("What?")
    assert code == 130
    assert err.strip().endswith("interrupted")


def test_a_stream_is_watched_to_its_end(ask):
    code, out, err = ask("Say when it changes", "--video", "v.mp4", "--stream")
    assert code == 0
    assert "the model said nothing in 4 frames" in err or out.startswith("[")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["What?", "--image", "gone.png"], 3, "gone.png: no such file or directory. Check the path."),
        (["What?", "--image", "v.mp4"], 3, "v.mp4: the image"),
        (["What?", "--video", "a.png", "--start", "5", "--end", "2"], 2, "start 5 s is not before end 2 s"),
        (["What?", "--video", "v.mp4", "--start", "60"], 3, "has no frame between 60.0 s and the end"),
        (["What?", "--start", "3"], 2, "--video is missing"),
        (["--stream"], 2, "--stream needs a video, but --video is missing"),
        ([" "], 2, "the question is empty"),
        (["What?", "--top-p", "2"], 2, "top_p=2.0"),
        (["What?", "--device", "abacus"], 2, "device 'abacus' is unknown"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_the_familys_exit_code(ask, words, code, message):
    found, out, err = ask(*words)
    assert (found, out) == (code, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_a_model_that_is_not_there_is_named(media, capsys):
    assert run(["chat", "--model", str(media / "none"), "What?"]) == 2
    assert "none is not a folder. Set --model to the folder of a model" in capsys.readouterr().err
    assert run(["chat", "--model", str(media), "What?"]) == 2
    assert "config.json does not exist. Give the folder of a model" in capsys.readouterr().err
