"""Sets of operator types by what they mean for training. Names as `operator_name` writes them."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

SEQUENCES_AND_OPTIONALS = frozenset(
    {
        "ConcatFromSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SequenceMap",
        "SplitToSequence",
    }
)

TEXT_AND_FILES = frozenset(
    {"ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"}
)

INTEGER_QUANTIZED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)

# What ONNX Runtime's offline optimizers make of float operators: each has a formula that can be differentiated.
FUSED = frozenset(
    f"com.microsoft.{name}"
    for name in (
        "Attention",
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "BiasSplitGelu",
        "EmbedLayerNormalization",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "GroupNorm",
        "MultiHeadAttention",
        "QuickGelu",
        "RotaryEmbedding",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "TransposeMatMul",
    )
)

UNTRAINABLE = CONTROL_FLOW | SEQUENCES_AND_OPTIONALS | TEXT_AND_FILES | INTEGER_QUANTIZED


def training_blockers(operators: dict[str, int]) -> list[str]:
    """Those of the operators that prevent training, in alphabetical order.

    A name with a dot belongs to a foreign domain: only the fused operators are known there.
    """
    return sorted(name for name in operators if name in UNTRAINABLE or ("." in name and name not in FUSED))
