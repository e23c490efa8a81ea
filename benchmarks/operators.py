"""Which operators of its framework a lowering calls, read off its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

__all__ = ["operators"]

ROOTS = {"F", "torch", "jax", "jnp"}
ARITHMETIC: dict[type, str] = {ast.MatMult: "@", ast.Mult: "*", ast.Add: "+", ast.Sub: "-"}
PLUMBING = frozenset((
    "arange", "array", "asarray", "astype", "bfloat16", "bool", "broadcast_to", "cat", "chunk", "clamp", "concatenate",
    "contiguous", "device", "dtype", "enable_x64", "finfo", "flatten", "flip", "float32", "float64", "full", "indices", "inf",
    "moveaxis", "movedim", "new_zeros", "ones", "ones_like", "pad", "promote_types", "repeat", "reshape", "roll", "split", "stack",
    "swapaxes", "tensor", "to", "transpose", "tril", "triu", "type", "unbind", "zeros", "zeros_like", "append", "get", "upper",
))


class _Operators(ast.NodeVisitor):
    """Collects the operators that a lowering calls for one configuration: branches that this does not take are left out."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.dotted, self.other = layer, dict[str, None](), dict[str, None]()

    def _truth(self, test: ast.expr) -> bool | None:
        try:
            return bool(eval(compile(ast.Expression(test), "lowering", "eval"), {"layer": self.layer}))  # noqa: S307  (our own source)
        except Exception:  # noqa: BLE001  (a test of arrays is left open)
            return None

    def body(self, statements: list[ast.stmt]) -> bool:
        """Visit statements up to a return; say whether there was one."""
        for statement in statements:
            truth = self._truth(statement.test) if isinstance(statement, ast.If) else None
            if isinstance(statement, ast.If) and truth is not None:
                if self.body(statement.body if truth else statement.orelse):
                    return True
                continue
            self.visit(statement)
            if isinstance(statement, ast.Return):
                return True
        return False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.body(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        truth = self._truth(node.test)
        for branch in [node.body] * (truth is not False) + [node.orelse] * (truth is not True):
            self.visit(branch)

    def visit_Dict(self, node: ast.Dict) -> None:
        values = {getattr(self.layer, f.name) for f in fields(self.layer)}
        chosen = [v for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant) and k.value in values]
        for value in chosen or node.values:
            self.visit(value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if _root(node) in ROOTS:
            self.dotted[ast.unparse(node)] = None
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and _root(node.func) not in {*ROOTS, "np"}:
            self.other[f".{node.func.attr}"] = None
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sides = ast.unparse(node.left), ast.unparse(node.right)
        if type(node.op) in ARITHMETIC and not any("layer." in side or side.isdigit() for side in sides):
            self.other[ARITHMETIC[type(node.op)]] = None
        self.generic_visit(node)


def _root(node: ast.expr) -> str:
    """Return the name that a chain of attributes hangs on, an empty string for the attribute of something computed."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def operators(lowering: Callable[..., Any], layers: Sequence[Any]) -> list[str]:
    """Return the operators that a lowering calls for these configurations; what only moves numbers about, if there is no more."""
    dotted, other = dict[str, None](), dict[str, None]()
    tree = ast.parse(textwrap.dedent(inspect.getsource(lowering))).body[0]
    for layer in layers:
        visitor = _Operators(layer)
        visitor.visit(tree)
        dotted |= visitor.dotted
        other |= visitor.other

    def some(names: dict[str, None]) -> list[str]:
        return [name for name in names if name.rpartition(".")[2] not in PLUMBING]

    return some(dotted) or some(other) or list(dotted) or list(other) or ["no operator"]
