"""The normal form of a module: its syntax tree without the parts that only people read.

Two sources with the same normal form do the same work, so a result made by one is valid for the other.
"""

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

_LOG_NAME = re.compile(r"(^|_)(log|logger|logging)$", re.IGNORECASE)
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
_TEXT_METHODS = frozenset({"format", "join"})
# Names from here are used in annotations, or are in the tree where they are used; importing them has no effect.
_TYPING_MODULES = frozenset({"typing", "collections.abc"})

# Only in some versions of Python, or implied by the place in the tree (ctx).
_SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DROPPED_FIELDS: dict[type[ast.AST], frozenset[str]] = {
    ast.FunctionDef: frozenset({"returns"}),  # nothing reads the types of a function's signature
    ast.AsyncFunctionDef: frozenset({"returns"}),
    ast.arg: frozenset({"annotation"}),
    ast.Assert: frozenset({"msg"}),  # text of an error like any other
}


def normal_form(source: str) -> str:
    """The syntax tree of a module as one line of ASCII, the same in every version of Python.

    Left out: comments and formatting, docstrings and other statements that are only a constant, `pass`, annotations
    of arguments, results and variables, blocks under `if TYPE_CHECKING`, imports from `typing`, the message of an
    `assert`, and all text in the arguments of `raise X(...)` and of a log call. Annotations in a class are kept,
    because dataclasses and other code (the columns of the dataset index) read them.

    These lines have the same normal form; with a 3 instead of the 2 it is another:

        raise DataError(f"{where}: no such frame", 2) from error  # the frame was cut off
        raise DataError("frame {} is missing".format(number), 2) from error
        raise DataError(where + ": not there", 2) from error

    A message that is built before it is raised (`reason = "..."; raise X(reason)`) is a value like any other and
    counts: at worst, too much work is repeated, never too little. The reason of a refused sample is the only message
    that is stored, in the dataset's index: after a change of its text, existing indexes keep the old one.
    """
    writer = _Writer()
    writer.write(ast.parse(source))
    return "".join(writer.parts)


class _Writer:
    """Writes a tree into `parts`: `Name(id='x')`, fields by name, so that a missing field does not shift others."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._special: dict[type, Callable[[Any], None]] = {
            ast.AnnAssign: self._write_annotated,
            ast.AsyncFunctionDef: self._write_function,
            ast.ClassDef: self._write_class,
            ast.Constant: self._write_constant,
            ast.Expr: self._write_statement,
            ast.FunctionDef: self._write_function,
            ast.JoinedStr: self._write_joined,
            ast.Raise: self._write_raise,
        }
        self._is_class_body = False
        self._is_message = False

    def write(self, value: Any) -> None:
        """Write a node, a list of nodes or a plain value."""
        if isinstance(value, ast.AST):
            if self._is_message and _is_text(value):
                self.parts.append("WORDS ")
            else:
                self._special.get(type(value), self._write_fields)(value)
        elif isinstance(value, list):
            self.parts.append("[")
            for item in value:
                self.write(item)
            self.parts.append("]")
        else:
            # !a and not !r: which characters !r escapes depends on the Unicode tables of the Python version.
            self.parts.append(f"{value!a} ")

    def _write_fields(self, node: ast.AST) -> None:
        kind = type(node)
        self.parts.append(f"{kind.__name__}(")
        for name in _fields(kind):
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = list(_kept(value))
            if value is not None and value != []:  # an empty list may be a field that older versions lack
                self.parts.append(f"{name}=")
                self.write(value)
        self.parts.append(")")

    def _write_constant(self, node: ast.Constant) -> None:
        self.parts.append(f"Constant({node.value!a})")

    def _write_joined(self, node: ast.JoinedStr) -> None:
        # Python 3.12 ends a format such as `{x:>{width}}` with an empty text, which other versions omit.
        values = [value for value in node.values if not (isinstance(value, ast.Constant) and value.value == "")]
        self.parts.append("JoinedStr(")
        self.write(values)
        self.parts.append(")")

    def _write_annotated(self, node: ast.AnnAssign) -> None:
        if self._is_class_body:
            self._write_fields(node)  # a field of a dataclass, whose type may be read
        elif node.value is not None:
            self.write(ast.Assign(targets=[node.target], value=node.value))
        else:
            self.parts.append("Declared")  # it has no value, but makes the name local to its function
            self.write([node.target])

    def _write_class(self, node: ast.ClassDef) -> None:
        self._write_scope(node, is_class=True)

    def _write_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._write_scope(node, is_class=False)

    def _write_scope(self, node: ast.AST, *, is_class: bool) -> None:
        outer, self._is_class_body = self._is_class_body, is_class
        self._write_fields(node)
        self._is_class_body = outer

    def _write_raise(self, node: ast.Raise) -> None:
        self.parts.append("Raise(")
        if isinstance(node.exc, ast.Call):
            self._write_message(node.exc)
        elif node.exc is not None:
            self.write(node.exc)
        if node.cause is not None:
            self.parts.append("from=")
            self.write(node.cause)
        self.parts.append(")")

    def _write_statement(self, node: ast.Expr) -> None:
        if _is_log_call(node.value):
            self._write_message(node.value)
        else:
            self._write_fields(node)

    def _write_message(self, call: Any) -> None:
        """Write a call without its text. Other arguments may have an effect or belong to the error: they are kept."""
        self.parts.append("Message(")
        self.write(call.func)
        self._is_message = True
        self.write(call.args)
        self.write(call.keywords)
        self._is_message = False
        self.parts.append(")")


_fields_by_kind: dict[type[ast.AST], tuple[str, ...]] = {}


def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    """Fields of a kind of node that count."""
    if kind not in _fields_by_kind:
        dropped = _SILENT_FIELDS | _DROPPED_FIELDS.get(kind, frozenset())
        _fields_by_kind[kind] = tuple(name for name in kind._fields if name not in dropped)
    return _fields_by_kind[kind]


def _kept(nodes: list[Any]) -> Iterator[Any]:
    """The nodes of a list without statements that do nothing; of a type-checking `if` only the branch that runs."""
    for node in nodes:
        if isinstance(node, ast.If) and (branch := _running_branch(node)) is not None:
            yield from _kept(branch)
        elif not (isinstance(node, ast.stmt) and _does_nothing(node)):
            yield node


def _running_branch(node: ast.If) -> list[ast.stmt] | None:
    """The branch of `if TYPE_CHECKING` that runs; None for another condition."""
    if _last_name(node.test) == "TYPE_CHECKING":
        return node.orelse
    if isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not):
        return node.body if _last_name(node.test.operand) == "TYPE_CHECKING" else None
    return None


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # docstrings, texts under a field, `...`
    if isinstance(node, ast.ImportFrom):
        # With `as` the import decides what a name in the tree means.
        return node.module in _TYPING_MODULES and not node.level and all(alias.asname is None for alias in node.names)
    return isinstance(node, ast.Pass)


def _is_log_call(node: ast.expr) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOG_METHODS):
        return False
    return bool(_LOG_NAME.search(_last_name(node.func.value)))


def _last_name(node: ast.AST) -> str:
    """The last part of a name: `log` for both `log` and `self.log`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.AST) -> bool:
    """Whether an expression is text, built from a literal in it."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_text(left) or _is_text(right)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _is_text(left)
        case ast.IfExp(body=body, orelse=orelse):
            return _is_text(body) and _is_text(orelse)
        case ast.Call(func=ast.Attribute(value=value, attr=method)):
            return method in _TEXT_METHODS and _is_text(value)
    return False
