"""Rules of cleaning: what each drops and what it leaves, and which rules are refused."""

from pathlib import Path

import pytest

from vl3.data.derive.rules import LineRule, Texts, read_rules
from vl3.errors import ConfigError

RULES = {rule.name: rule for rule in read_rules().of_line}


def finding(rule: str, answer: str) -> str | None:
    line_rule: LineRule = RULES[rule]
    return line_rule.finding(Texts(questions=("?!",), answers=(answer,)))


@pytest.mark.parametrize(
    ("rule", "answer", "found"),
    [
        ("language", "Это кот, и он спит.", "0% of 13 letters are latin or greek or han"),
        ("language", "これはねこです", "0% of 7 letters are latin or greek or han"),
        ("answer length", "", "0 characters"),
        ("broken characters", "caf\ufffd", "'�'"),
        ("broken characters", "cafÃ© au lait", "'Ã©'"),
        ("broken markup", "a&nbsp;b", "'&nbsp;'"),
        ("broken markup", '<div class="x">a', "'<div class=\"x\">'"),
        ("broken markup", "Yes<|im_end|>", "'<|im_end|>'"),
        ("unbalanced markup", "```py\nx", "'```' stands 1 times"),
        ("unbalanced markup", r"\begin{align} x", r"'\\begin{' stands 1 times and '\\end{' 0 times"),
        ("refusals", "I'm sorry, but I can't help with that.", "\"I'm sorry, but I can't help\""),
        ("refusals", "I\u2019m sorry, I cannot see it.", "'I\u2019m sorry, I cannot'"),
        ("refusals", "As an AI language model, I have no eyes.", "'As an AI language model'"),
        ("refusals", "抱歉\uff0c我无法看到图片。", "'抱歉\uff0c我无法'"),
    ],
)
def test_a_rule_says_what_it_found(rule: str, answer: str, found: str) -> None:
    assert finding(rule, answer) == found


@pytest.mark.parametrize(
    "answer",
    [
        "A cat sleeps on a sofa.",
        "Die Straße führt über die Brücke nach Orléans.",
        "这只猫在睡觉。",
        "The angle β is 90°, so $$a^2 + b^2 = c^2$$ holds.",
        "```py\nprint(1)\n``` prints 1.",
        r"\begin{align} x &= 1 \end{align}",
        "a < b and b > c",
        "42",
        "The sign says: SORRY, WE ARE CLOSED.",
        "He paints an airy landscape.",
        "NÃO FUMAR means no smoking.",
    ],
)
def test_good_answers_pass_all_rules(answer: str) -> None:
    assert {name: finding(name, answer) for name in RULES} == dict.fromkeys(RULES)


def test_a_refusal_far_into_an_answer_is_a_quotation() -> None:
    assert finding("refusals", "x" * 400 + " I'm sorry, but I can't") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("- a", "no names with values"),
        ("rules: []", "no list `rules`"),
        ("rules: [{name: a, kind: x, reason: r}]", "rule 1 has the kind 'x', which is unknown. Use one of scripts"),
        ("rules: [7]", "rule 1 has the kind 'none'"),
        ("rules: [{name: a, kind: [x], reason: r}]", "which is unknown"),
        ("rules: [{name: a, kind: length, reason: r, of: answers, min_characters: 9, max_characters: 1}]", "no range"),
        ("rules: [{name: a, kind: length, reason: r, of: answer, min_characters: 0, max_characters: 1}]", "answer"),
        ("rules: [{name: a, kind: patterns, reason: r, of: all, patterns: ['(']}]", "no regular expression"),
        ("rules: [{name: a, kind: scripts, reason: r, of: all, scripts: [elvish], min_share: 0.5}]", "elvish"),
        ("rules: [{name: a, kind: duplicates}]", "reason"),
        (
            "rules: [{name: a, kind: duplicates, reason: r}, {name: b, kind: balance, reason: r, of: all, pairs: []}]",
            "rule 2 stands after one that looks at all lines",
        ),
        ("rules: [{name: a, kind: duplicates, reason: r}, {name: a, kind: duplicates, reason: r}]", "have one name"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("(", r"\(")):
        read_rules(path)
