"""The rules by which a reply is an answer, and the words of servers in messages."""

import pytest

from vl3.endpoint.answer import Outcome, Reply, plain, read_answer_rules, repeated_share

RULES = read_answer_rules()
CAPTION = (
    "A brown dog with a red collar runs over a wet lawn towards a child in a yellow raincoat, who holds a ball in the "
    "left hand. Behind them stands a white fence, and beyond it three birch trees without leaves under a grey sky."
)


def reply(text: str, finish_reason: str = "stop", refusal: str = "") -> Reply:
    return Reply(text=text, refusal=refusal, finish_reason=finish_reason, input_tokens=1, output_tokens=1)


@pytest.mark.parametrize(
    "text",
    [
        CAPTION,
        "Yes",
        "same",
        "A sign reads: I'm sorry, we are closed.",
        "A man says that he cannot help and walks away from the two others at the table.",
        "棕色的狗在草地上奔跑。",
    ],
)
def test_answers(text: str) -> None:
    assert RULES.judge(reply(text)) == (Outcome.ANSWERED, "")


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I cannot describe this image.",
        "As an AI, I do not see pictures.",
        "Sorry, I am unable to view the picture.",
        "抱歉,我无法描述这张图片。",
    ],
)
def test_refusals(text: str) -> None:
    assert RULES.judge(reply(text))[0] is Outcome.REFUSED


@pytest.mark.parametrize("text", ["the the the the the the the the the the", CAPTION * 2, CAPTION + " and so on" * 30])
def test_repeats(text: str) -> None:
    outcome, reason = RULES.judge(reply(text))
    assert outcome is Outcome.REPEATED
    assert "of the answer stood in it before" in reason


def test_the_share_of_repeats() -> None:
    assert repeated_share("abcabcabca", 3) == pytest.approx(5 / 8)
    assert repeated_share("aaaaaaaaa", 3) == 0.0  # seven pieces say too little
    assert repeated_share(CAPTION, RULES.repeat_window_characters) < 0.02


def test_the_words_of_a_server_are_short_and_printable() -> None:
    assert plain("a\x1b[2J\n b http://me:secret@host/x") == "a [2J b http://***@host/x"
    assert len(plain("x" * 10_000)) == 400
