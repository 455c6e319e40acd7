"""Architectures of transformers, each made small by its configuration: for what they compute, not for how fast."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

SIDE = 64
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
IMAGE = {"image_size": SIDE, **WIDTH}
TEXT = {"vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 0, **WIDTH}
RESNET = {"embedding_size": 8, "layer_type": "basic", **STAGES}
DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2} | {
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 5,
    "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
}  # fmt: skip
RT_DETR = {"encoder_in_channels": [16, 16, 32], "encoder_hidden_dim": 32, "d_model": 32, "encoder_ffn_dim": 32} | {
    "num_queries": 10, "decoder_layers": 1, "decoder_attention_heads": 2, "encoder_attention_heads": 2,
    "decoder_ffn_dim": 32, "decoder_in_channels": [32, 32, 32], "feat_strides": [8, 16, 32], "anchor_image_size": None,
}  # fmt: skip

IMAGES: dict[str, Callable[[], nn.Module]] = {
    "ResNet": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(**RESNET)),
    "RegNet": lambda: hf.RegNetForImageClassification(hf.RegNetConfig(embedding_size=8, groups_width=8, **STAGES)),
    "MobileNetV1": lambda: hf.MobileNetV1ForImageClassification(hf.MobileNetV1Config(depth_multiplier=0.25)),
    "MobileNetV2": lambda: hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(depth_multiplier=0.35)),
    "EfficientNet": lambda: hf.EfficientNetForImageClassification(
        hf.EfficientNetConfig(width_coefficient=0.3, depth_coefficient=0.2, hidden_dim=384)
    ),
    "ConvNeXt": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**STAGES)),
    "ConvNeXt V2": lambda: hf.ConvNextV2ForImageClassification(hf.ConvNextV2Config(**STAGES)),
    "PoolFormer": lambda: hf.PoolFormerForImageClassification(hf.PoolFormerConfig(**STAGES)),
    "FocalNet": lambda: hf.FocalNetForImageClassification(
        hf.FocalNetConfig(image_size=SIDE, embed_dim=16, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3])
    ),
    "ViT": lambda: hf.ViTForImageClassification(hf.ViTConfig(**IMAGE)),
    "DeiT": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**IMAGE)),
    "BEiT": lambda: hf.BeitForImageClassification(hf.BeitConfig(use_relative_position_bias=True, **IMAGE)),
    "DINOv2": lambda: hf.Dinov2ForImageClassification(
        hf.Dinov2Config(image_size=SIDE, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    ),
    "Swin": lambda: hf.SwinForImageClassification(_swin(hf.SwinConfig)),
    "Swin V2": lambda: hf.Swinv2ForImageClassification(_swin(hf.Swinv2Config)),
    "PVT": lambda: hf.PvtForImageClassification(
        hf.PvtConfig(image_size=SIDE, num_attention_heads=[1, 2, 4, 4], **STAGES | {"hidden_sizes": [8, 16, 32, 32]})
    ),
    "MobileViT": lambda: hf.MobileViTForImageClassification(
        hf.MobileViTConfig(image_size=SIDE, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32])
    ),
    "LeViT": lambda: hf.LevitForImageClassification(
        hf.LevitConfig(
            image_size=SIDE, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8] * 3
        )
    ),
    "CLIP vision": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(patch_size=16, **IMAGE)),
    "SigLIP vision": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(patch_size=16, **IMAGE)),
    "SegFormer": lambda: hf.SegformerForSemanticSegmentation(
        hf.SegformerConfig(
            num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16, **STAGES | {"hidden_sizes": [8, 16, 24, 32]}
        )
    ),
    "DPT": lambda: hf.DPTForDepthEstimation(
        hf.DPTConfig(
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 16, 16, 16],
            fusion_hidden_size=16,
            **IMAGE | {"num_hidden_layers": 4},
        )
    ),
    "YOLOS": lambda: hf.YolosForObjectDetection(
        hf.YolosConfig(num_detection_tokens=5, **IMAGE | {"image_size": [SIDE, SIDE]})
    ),
    "DETR": lambda: hf.DetrForObjectDetection(
        hf.DetrConfig(backbone_config=hf.ResNetConfig(out_features=["stage4"], **RESNET), **DETR)
    ),
    "RT-DETR": lambda: hf.RTDetrForObjectDetection(
        hf.RTDetrConfig(
            backbone_config=hf.RTDetrResNetConfig(out_features=["stage2", "stage3", "stage4"], **RESNET), **RT_DETR
        )
    ),
}
TEXTS: dict[str, Callable[[], nn.Module]] = {
    "BERT": lambda: hf.BertModel(hf.BertConfig(**TEXT)),
    "RoBERTa": lambda: hf.RobertaModel(hf.RobertaConfig(**TEXT)),
    "ELECTRA": lambda: hf.ElectraModel(hf.ElectraConfig(embedding_size=16, **TEXT)),
    "ALBERT": lambda: hf.AlbertModel(hf.AlbertConfig(embedding_size=16, **TEXT)),
    "MPNet": lambda: hf.MPNetModel(hf.MPNetConfig(**TEXT)),
    "DeBERTa V2": lambda: hf.DebertaV2Model(
        hf.DebertaV2Config(relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], **TEXT)
    ),
    "ModernBERT": lambda: hf.ModernBertModel(hf.ModernBertConfig(**TEXT)),
    "DistilBERT": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(vocab_size=100, max_position_embeddings=64, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    ),
    "T5 encoder": lambda: hf.T5EncoderModel(
        hf.T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    ),
}


def _swin(config: Any) -> Any:
    return config(image_size=SIDE, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, patch_size=4)


class Tensors(nn.Module):
    """A model of transformers that returns its first two tensors, from inputs by position."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True).to_tuple()
        return tuple(one for one in found if isinstance(one, torch.Tensor))[:2]
