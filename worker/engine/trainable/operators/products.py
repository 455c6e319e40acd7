"""Matrix products."""

import string

import torch

from worker.engine.trainable.registry import Call, operator


@operator("MatMul")
def matmul(_call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(call: Call, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    """`alpha` A B + `beta` C, `a` and `b` two-dimensional, either transposed where asked."""
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    made = a @ b
    made = made if alpha == 1 else made * alpha
    if c is None:
        return made
    return (made + (c if beta == 1 else c * beta)).to(a.dtype)


@operator("Einsum")
def einsum(call: Call, *tensors: torch.Tensor) -> torch.Tensor:
    """Letters that ONNX allows and torch reads otherwise do not exist; blanks are dropped, no arrow means sorted."""
    equation = "".join(call.get("equation", "").split())
    if "->" not in equation:
        letters = [one for one in string.ascii_letters if equation.count(one) == 1]
        equation += "->" + ("..." if "..." in equation else "") + "".join(sorted(letters))
    return torch.einsum(equation, *tensors)


@operator("Det")
def det(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.det(x)
