"""Which operators a model uses, and whether ONNX Runtime has them."""

from collections import Counter

from onnx import ModelProto, NodeProto
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from worker.engine.graph import qualified
from worker.engine.inspection import walk
from worker.engine.inspection.reading import DEFAULT_DOMAINS
from worker.engine.model_faults import ExcessiveExpansion, ExcessiveNesting, UnknownOperators

# The largest exports known have some ten thousand nodes; ten functions that call each other ten times have 10^10.
MAX_EXPANDED_NODES = 1_000_000
FunctionKey = tuple[str, str, str]


def count_operators(model: ModelProto) -> dict[str, int]:
    """Nodes by operator, subgraphs included, most frequent first."""
    return dict(Counter(qualified(node) for node in walk.nodes(model)).most_common())


def check_operators(model: ModelProto) -> None:
    """For a model that ONNX Runtime did not load: whether that is because it lacks operators.

    It is asked afterwards, because the runtime also takes operators that it only knows how to expand into others.

    Raises:
        UnknownOperators: naming them.

    """
    known = {(schema.domain, schema.name) for schema in get_all_operator_schema()}
    known |= {(function.domain, function.name) for function in model.functions}
    used = Counter(("" if node.domain in DEFAULT_DOMAINS else node.domain, node.op_type) for node in walk.nodes(model))
    unknown = {key: count for key, count in used.items() if key not in known}
    if not unknown:
        return
    domains: dict[str, list[str]] = {}
    for (domain, operator), count in sorted(unknown.items()):
        domains.setdefault(domain or "ai.onnx", []).append(f"{operator} ({count} node{'s' if count > 1 else ''})")
    names = "; ".join(f"domain {domain!r}: {', '.join(operators)}" for domain, operators in domains.items())
    raise UnknownOperators(
        f"ONNX Runtime has no operator of these names: {names}.",
        "Custom operators need a library that this service does not load. Export without them, for example with the "
        "standard operators of a newer opset, or as ONNX functions.",
    )


def check_functions(model: ModelProto) -> None:
    """Check that functions call each other neither in circles nor into millions of nodes, before anything inlines them.

    Raises:
        ExcessiveNesting: a function calls itself.
        ExcessiveExpansion: the graph is too large once every call is replaced.

    """
    calls = {
        (function.domain, function.name, function.overload): Counter(
            _key(node) for node in walk.nodes_within(function.node)
        )
        for function in model.functions
    }
    sizes: dict[FunctionKey, int] = {}
    for key in calls:
        _measure(key, calls, sizes)
    total = sum(sizes.get(_key(node), 1) for node in walk.nodes_within(model.graph.node))
    if total > MAX_EXPANDED_NODES:
        raise ExcessiveExpansion(
            f"The graph has {total:,} nodes once functions are inlined; {MAX_EXPANDED_NODES:,} is the most accepted.",
            "Inline the functions with onnx.inliner and check the result.",
        )


def _key(node: NodeProto) -> FunctionKey:
    return (node.domain, node.op_type, node.overload)


def _measure(root: FunctionKey, calls: dict[FunctionKey, Counter[FunctionKey]], sizes: dict[FunctionKey, int]) -> None:
    """Fill `sizes` with the nodes each function unfolds to: depth first, on a stack of our own."""
    stack = [root]
    open_keys: set[FunctionKey] = set()
    while stack:
        key = stack[-1]
        pending = next((called for called in calls[key] if called in calls and called not in sizes), None)
        if pending is None:
            sizes[key] = 1 + sum(count * sizes.get(called, 1) for called, count in calls[key].items())
            open_keys.discard(key)
            stack.pop()
            continue
        open_keys.add(key)
        if pending in open_keys:
            raise ExcessiveNesting(
                f"Function {pending[0]}.{pending[1]} calls itself, which ONNX does not allow.",
                "Export recursion as a Loop.",
            )
        stack.append(pending)
