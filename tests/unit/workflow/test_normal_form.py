"""What counts in a module and what does not, rule by rule."""

import ast
import textwrap
from pathlib import Path

import pytest

from vl3.workflow.normal_form import normal_form

SOURCES = sorted((Path(__file__).parents[3] / "src" / "vl3" / "models").glob("*.py"))


def form(text: str) -> str:
    return normal_form(textwrap.dedent(text))


def in_function(line: str) -> str:
    return form(f"def work(log, path, count):\n    {line}\n")


SAME = {
    "comment": ("x = 1  # one", "x = 1"),
    "line breaks and a trailing comma": ("f(\n    a,\n    b,\n)", "f(a, b)"),
    "quotes": ("x = 'a'", 'x = "a"'),
    "parentheses": ("x = (a + b) + c", "x = a + b + c"),
    "implicit concatenation": ('x = "ab"', 'x = "a" "b"'),
    "notation of a number": ("x = 1_000", "x = 1000"),
    "docstring of a module": ('"""What it is."""\nx = 1', "x = 1"),
    "docstring of a class": ('class A(B):\n    """What it is."""', "class A(B):\n    pass"),
    "docstring of a function": ('def f():\n    """What it does."""\n    return 1', "def f():\n    return 1"),
    "sentence under a field": ('class A:\n    x: int\n    """What it is."""', "class A:\n    x: int"),
    "body of a protocol": ("def f(): ...", "def f(): pass"),
    "annotation of an argument": ("def f(a: int, *, b: str = ''): pass", "def f(a, *, b=''): pass"),
    "annotation of a result": ("def f() -> int: return 1", "def f() -> float: return 1"),
    "annotation of a coroutine": ("async def f() -> int: return 1", "async def f(): return 1"),
    "annotation of a variable": ("x: int = 1", "x = 1"),
    "type of a declared variable": ("def f():\n    x: int", "def f():\n    x: str"),
    "annotation inside a method": (
        "class A:\n    def f(self):\n        x: int = 1",
        "class A:\n    def f(self):\n        x = 1",
    ),
    "imports of typing": ("from typing import Any\nfrom collections.abc import Iterator\nx = 1", "x = 1"),
    "imports for type checking": ("if TYPE_CHECKING:\n    import a\nx = 1", "x = 1"),
    "imports for type checking, long": ("if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", "import b"),
    "imports at run time only": ("if not TYPE_CHECKING:\n    import b", "import b"),
    "message of an assertion": ('assert x, "x is missing"', "assert x"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_does_not_count(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


DIFFERENT = {
    "number": ("x = 1", "x = 2"),
    "kind of a number": ("x = 1", "x = 1.0"),
    "truth in place of a number": ("x = 1", "x = True"),
    "bytes in place of text": ("x = 'a'", "x = b'a'"),
    "text": ("x = 'a'", "x = 'b'"),
    "text that looks like a tree": ("x = 'a'", "x = a"),
    "text in a call": ("f('a')", "f('b')"),
    "part of a text": ("x = f'a{y}'", "x = f'b{y}'"),
    "format of a value": ("x = f'{y:.3f}'", "x = f'{y:.2f}'"),
    "order of operations": ("x = (a + b) * c", "x = a + b * c"),
    "operator": ("x = a < b", "x = a <= b"),
    "order of statements": ("a()\nb()", "b()\na()"),
    "statement moved into a block": ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
    "statement moved into the other branch": ("if a:\n    pass\nelse:\n    b()", "if a:\n    b()\nelse:\n    pass"),
    "place of an unpacked dictionary": ("x = {**a, b: c}", "x = {b: a, **c}"),
    "decorator": ("@cache\ndef f(): pass", "def f(): pass"),
    "argument of a decorator": ("@dataclass(frozen=True)\nclass A: pass", "@dataclass\nclass A: pass"),
    "base of a class": ("class A(B): pass", "class A(C): pass"),
    "default of an argument": ("def f(a=1): pass", "def f(a=2): pass"),
    "name of an argument": ("def f(a): pass", "def f(b): pass"),
    "kind of an argument": ("def f(a): pass", "def f(*, a): pass"),
    "field of a dataclass": ("class A:\n    x: int = 1", "class A:\n    x = 1"),
    "field without a value": ("class A:\n    x: int", "class A:\n    pass"),
    "class variable in place of a field": ("class A:\n    x: int = 1", "class A:\n    x: ClassVar[int] = 1"),
    "argument of the constructor in place of a field": ("class A:\n    x: int", "class A:\n    x: InitVar[int]"),
    "type of a field, which makes a column": ("class A:\n    x: int", "class A:\n    x: float"),
    "field below a condition": ("class A:\n    if b:\n        x: int", "class A:\n    if b:\n        x: float"),
    "variable that is declared": ("def f():\n    x: int\n    return x", "def f():\n    return x"),
    "import": ("import a", "import b"),
    "import under another name": ("from a import b", "from a import b as c"),
    "import of typing under another name": ("from typing import Any as X", "from typing import Final as X"),
    "import of a neighbour called typing": ("from typing import Any", "from .typing import Any"),
    "import in place of typing": ("from typing import Any", "from mine import Any"),
    "import under another condition": ("if CHECKING:\n    import a", "if CHECKING:\n    import b"),
    "import in place of type checking": ("if TYPE_CHECKING:\n    pass\nelse:\n    import a", "import b"),
    "condition of an assertion": ("assert x", "assert y"),
    "name": ("x = a", "x = b"),
    "attribute": ("x = a.b", "x = a.c"),
    "call in place of a name": ("x = a", "x = a()"),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_counts(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


WORDS = [
    '"gone"',
    '"it is " "gone"',
    'f"{path} is gone"',
    'f"{path}" "is gone"',
    '"gone: " + str(path)',
    'str(path) + " is gone"',
    '"%s is gone" % path',
    '"{} is gone".format(path)',
    '", ".join(sorted(path))',
    '"gone" if path else f"{path} is gone"',
]


@pytest.mark.parametrize("words", WORDS)
def test_words_of_a_raised_error_do_not_count(words: str) -> None:
    assert in_function(f"raise Gone({words}, count)") == in_function('raise Gone("away", count)')
    assert in_function(f"raise Gone(kind, reason={words})") == in_function('raise Gone(kind, reason="away")')
    assert in_function(f"raise Gone(hint({words})) from log") == in_function('raise Gone(hint("away")) from log')


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("name", ["log", "logger", "logging", "self._log", "self.logger", "_LOG", "build_log"])
def test_words_of_a_log_call_do_not_count(words: str, name: str) -> None:
    assert in_function(f"{name}.warning({words}, count)") == in_function(f'{name}.warning("away", count)')


@pytest.mark.parametrize("method", ["debug", "info", "warning", "error", "exception", "critical"])
def test_words_of_every_level_do_not_count(method: str) -> None:
    assert in_function(f"log.{method}('a')") == in_function(f"log.{method}('b')")
    assert in_function("log.log(10, 'a')") == in_function("log.log(10, 'b')")


CALLS = {
    "class of the error": ("raise Gone('a')", "raise Away('a')"),
    "error without words": ("raise Gone('a')", "raise Gone"),
    "number in the error": ("raise Gone('a', 1)", "raise Gone('a', 2)"),
    "bytes in the error": ("raise Gone(b'a')", "raise Gone(b'b')"),
    "name in the error": ("raise Gone('a', kind)", "raise Gone('a', Kind.OTHER)"),
    "keyword of the error": ("raise Gone(reason='a')", "raise Gone(where='a')"),
    "number of texts": ("raise Gone('a')", "raise Gone('a', 'b')"),
    "cause": ("raise Gone('a') from error", "raise Gone('a') from None"),
    "raise in place of a call": ("raise Gone('a')", "Gone('a')"),
    "text that chooses the error": ("raise errors['a']('x')", "raise errors['b']('x')"),
    "message made before": ("reason = 'a'\n    raise Gone(reason)", "reason = 'b'\n    raise Gone(reason)"),
    "text after the error": ("raise Gone('a')\n    return 'x'", "raise Gone('a')\n    return 'y'"),
    "effect of an argument of a log call": ("log.info('a', take())", "log.info('a', peek())"),
    "level of a log call": ("log.info('a')", "log.warning('a')"),
    "level as a number": ("log.log(10, 'a')", "log.log(20, 'a')"),
    "text of a method that is no log": ("catalog.info('a')", "catalog.info('b')"),
    "text of a log that is no message": ("log.write('a')", "log.write('b')"),
    "text of a log call that is read": ("x = log.info('a')", "x = log.info('b')"),
    "text after a log call": ("log.info('a')\n    return 'x'", "log.info('a')\n    return 'y'"),
}


@pytest.mark.parametrize(("one", "other"), CALLS.values(), ids=CALLS)
def test_of_errors_and_logs_the_rest_counts(one: str, other: str) -> None:
    assert in_function(one) != in_function(other)


def test_field_after_a_method_is_still_a_field() -> None:
    class_text = "class A:\n    def f(self): pass\n    x: {}\n"
    assert form(class_text.format("int")) != form(class_text.format("float"))
    inside = "def f():\n    class A:\n        x: int\n    y: {} = 1\n"
    assert form(inside.format("int")) == form(inside.format("float"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_reformatted_module_has_the_same_form(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert normal_form(ast.unparse(ast.parse(source))) == normal_form(source)


def test_form_is_the_same_under_every_version() -> None:
    """Compared with the output of Python 3.11, 3.12 and 3.13, whose trees differ in the marked places."""
    source = """
    def f(a, /, b=1, *c, d, e=None, **g):  # type_params since 3.12
        return f"{a!r:>{b}.{d}}", u"é\\u0378", {**g, a: [...]}  # 3.12: an empty text at the end of the format
    """
    assert form(source) == (
        "Module(body=[FunctionDef(name='f' args=arguments(posonlyargs=[arg(arg='a' )]args=[arg(arg='b' )]"
        "vararg=arg(arg='c' )kwonlyargs=[arg(arg='d' )arg(arg='e' )]kw_defaults=[None Constant(None)]"
        "kwarg=arg(arg='g' )defaults=[Constant(1)])body=[Return(value=Tuple(elts=["
        "JoinedStr([FormattedValue(value=Name(id='a' )conversion=114 format_spec=JoinedStr([Constant('>')"
        "FormattedValue(value=Name(id='b' )conversion=-1 )Constant('.')FormattedValue(value=Name(id='d' )"
        "conversion=-1 )]))])Constant('\\xe9\\u0378')Dict(keys=[None Name(id='a' )]values=[Name(id='g' )"
        "List(elts=[Constant(Ellipsis)])])]))])])"
    )
