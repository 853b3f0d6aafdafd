"""What files call the arrays of a vision transformer, by layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_gen.networks.pretrained import rotary
from ssl_gen.networks.pretrained.names import Place, Table, built_in, dense, kept, norm, of_classes, where
from ssl_gen.networks.pretrained.weight_files import Weights

THIRDS = ("query", "key", "value")
HALVES = ("gate", "first")  # of an array that holds both: DINOv2's swiglu_ffn.py, transformers' Dinov2SwiGLUFFN, timm
FEED = ("fc1", "fc2")
# Width -> heads of attention, where they are not of 64 numbers
HUGE = {1152: 16, 1280: 16, 1408: 16, 1664: 16}  # so400m, ViT-H, g and G: timm; of CLIP, open_clip's head_width
SIGLIP = {1152: 16, 1536: 16}  # so400m, giant-opt: timm
DINOV3 = {4096: 32}  # 7B: Simeoni et al. 2025, table of the family; H+, as wide as ViT-H, has 20 of 64 numbers


def heads(width: int, others: Mapping[int, int]) -> int:
    """Of attention, which no array tells."""
    return others.get(width, max(width // 64, 1))


def depth(weights: Weights, pattern: str) -> int:
    """How many blocks a file has, by the greatest number in its names; at least one, which may then be missing."""
    found = [int(match[1]) for name in weights if (match := re.match(pattern, name))]
    return max(found, default=0) + 1


def fused(weight: str, bias: str, path: str, parts: Sequence[str] = THIRDS) -> Table:
    """Linear layers, by default of queries, keys and values, as one array."""
    return {
        weight: Place(tuple(f"params/{path}/{part}/kernel" for part in parts)),
        bias: Place(tuple(f"params/{path}/{part}/bias" for part in parts)),
    }


class Feed(NamedTuple):
    """What the two layers of every block's MLP are called."""

    first: str
    second: str
    gated: bool  # the first is twice as wide as the second sees: its units' gates come before the units

    def table(self, name: str, path: str) -> Table:
        """Of one block."""
        first = f"{name}.{self.first}"
        gates = fused(f"{first}.weight", f"{first}.bias", path, HALVES) if self.gated else dense(first, f"{path}/first")
        return gates | dense(f"{name}.{self.second}", f"{path}/second")


def feed(weights: Weights, name: str, gated: tuple[str, str], blocks: int) -> Feed:
    """Of MLPs `name`, with {} for the block's number; `gated`: what layers are called where there are gates.

    In timm's files they are called `fc1` and `fc2` then, too, and the shapes of most blocks tell.
    """
    mlps = [name.format(i) for i in range(blocks)]
    if any(f"{mlp}.{layer}.weight" in weights for mlp in mlps for layer in gated):
        return Feed(*gated, True)
    shapes = [[np.shape(weights.get(f"{mlp}.{layer}.weight", 0)) for layer in FEED] for mlp in mlps]
    wide = [first[:1] == (2 * second[1],) for first, second in shapes if len(second) == 2]
    return Feed(*FEED, bool(wide) and 2 * sum(wide) >= len(wide))


def timm_blocks(weights: Weights) -> Table:
    """What all transformers of timm, and of the authors of DINO and DINOv2, have in common."""
    table = kept("pos_embed", "positions", 2) | norm("norm", "norm")
    blocks = depth(weights, r"blocks\.(\d+)\.")
    mlp = feed(weights, "blocks.{}.mlp", ("w12", "w3"), blocks)
    for i in range(blocks):
        name, path = f"blocks.{i}", f"block_{i}"
        table |= norm(f"{name}.norm1", f"{path}/norm_1") | norm(f"{name}.norm2", f"{path}/norm_2")
        table |= fused(f"{name}.attn.qkv.weight", f"{name}.attn.qkv.bias", f"{path}/attention")
        table |= dense(f"{name}.attn.proj", f"{path}/attention/out") | mlp.table(f"{name}.mlp", f"{path}/mlp")
        scales = kept(f"{name}.ls1.gamma", f"{path}/scale_1", 1) | kept(f"{name}.ls2.gamma", f"{path}/scale_2", 1)
        table |= where(weights, scales)
    return table


def timm(weights: Weights) -> Table:
    """timm, and the authors of DINO and DINOv2."""
    table = kept("cls_token", "class", 1) | dense("patch_embed.proj", "patches") | of_classes(weights, "head")
    table |= where(weights, kept("reg_token", "registers", 2) | kept("register_tokens", "registers", 2))
    return timm_blocks(weights) | table


def clip_timm(weights: Weights) -> Table:
    """timm's CLIP: the vision tower. Its last layer is the projection where all biases, which CLIP's has not, are 0."""
    table = timm_blocks(weights) | kept("cls_token", "class", 1) | norm("norm_pre", "before")
    table |= dense("patch_embed.proj", "patches", bias=False)
    biases = weights.get("head.bias")
    if biases is None or biases.any():
        return table | of_classes(weights, "head")
    return table | dense("head", "projection", bias=False) | built_in("head.bias", np.zeros(biases.shape))


def siglip_timm(weights: Weights) -> Table:
    """timm's SigLIP: the vision tower with its pooling."""
    table = timm_blocks(weights) | dense("patch_embed.proj", "patches") | of_classes(weights, "head")
    table |= kept("attn_pool.latent", "pool/probe", 1) | dense("attn_pool.q", "pool/attention/query")
    table |= fused("attn_pool.kv.weight", "attn_pool.kv.bias", "pool/attention", THIRDS[1:])
    table |= dense("attn_pool.proj", "pool/attention/out") | norm("attn_pool.norm", "pool/norm")
    return table | dense("attn_pool.mlp.fc1", "pool/mlp/first") | dense("attn_pool.mlp.fc2", "pool/mlp/second")


def embeddings_hugging_face(whole: str) -> Table:
    """What stands before and behind the blocks of ViT and DINOv2; `whole`: what their names begin with."""
    inside = f"{whole}embeddings."
    table = kept(f"{inside}cls_token", "class", 1) | kept(f"{inside}position_embeddings", "positions", 2)
    return table | dense(f"{inside}patch_embeddings.projection", "patches") | norm(f"{whole}layernorm", "norm")


def attention_hugging_face(name: str, path: str) -> Table:
    """Of one block of ViT and DINOv2."""
    table = dense(f"{name}.attention.output.dense", f"{path}/attention/out")
    for third in THIRDS:
        table |= dense(f"{name}.attention.attention.{third}", f"{path}/attention/{third}")
    return table


def dinov2_hugging_face(weights: Weights) -> Table:
    """Hugging Face's DINOv2, with and without registers."""
    table = embeddings_hugging_face("") | where(weights, kept("embeddings.register_tokens", "registers", 2))
    blocks = depth(weights, r"encoder\.layer\.(\d+)\.")
    mlp = feed(weights, "encoder.layer.{}.mlp", ("weights_in", "weights_out"), blocks)
    for i in range(blocks):
        name, path = f"encoder.layer.{i}", f"block_{i}"
        table |= norm(f"{name}.norm1", f"{path}/norm_1") | norm(f"{name}.norm2", f"{path}/norm_2")
        table |= attention_hugging_face(name, path) | mlp.table(f"{name}.mlp", f"{path}/mlp")
        table |= kept(f"{name}.layer_scale1.lambda1", f"{path}/scale_1", 1)
        table |= kept(f"{name}.layer_scale2.lambda1", f"{path}/scale_2", 1)
    return table


def vit_hugging_face(weights: Weights) -> Table:
    """Hugging Face's ViT, also with the weights of DINO, DeiT (without distillation), MSN, and MAE's encoder."""
    whole = "vit." if any(name.startswith("vit.") for name in weights) else ""  # with a last layer, or a decoder
    table = embeddings_hugging_face(whole) | of_classes(weights, "classifier")
    for i in range(depth(weights, rf"{re.escape(whole)}encoder\.layer\.(\d+)\.")):
        name, path = f"{whole}encoder.layer.{i}", f"block_{i}"
        table |= norm(f"{name}.layernorm_before", f"{path}/norm_1") | norm(f"{name}.layernorm_after", f"{path}/norm_2")
        table |= attention_hugging_face(name, path) | dense(f"{name}.intermediate.dense", f"{path}/mlp/first")
        table |= dense(f"{name}.output.dense", f"{path}/mlp/second")
    return table


def dinov3_authors(weights: Weights) -> Table:
    """DINOv3 of its authors, whose files mask the biases of the keys and keep the periods of `rotary`."""
    table = kept("cls_token", "class", 1) | kept("storage_tokens", "registers", 2) | norm("norm", "norm")
    table |= dense("patch_embed.proj", "patches")
    width = weights["cls_token"].size if "cls_token" in weights else 0
    table |= built_in("rope_embed.periods", rotary.periods(width // heads(width, DINOV3)))
    biased, gated = ("blocks.0.attn.qkv.bias" in weights), ("blocks.0.mlp.w1.weight" in weights)
    for i in range(depth(weights, r"blocks\.(\d+)\.")):
        name, path = f"blocks.{i}", f"block_{i}"
        table |= norm(f"{name}.norm1", f"{path}/norm_1") | norm(f"{name}.norm2", f"{path}/norm_2")
        qkv, attention = f"{name}.attn.qkv", f"params/{path}/attention"
        table[f"{qkv}.weight"] = Place(tuple(f"{attention}/{third}/kernel" for third in THIRDS))
        if biased:
            table[f"{qkv}.bias"] = Place((f"{attention}/query/bias", None, f"{attention}/value/bias"))
            table |= built_in(f"{qkv}.bias_mask", np.repeat([1.0, 0.0, 1.0], width))
        table |= dense(f"{name}.attn.proj", f"{path}/attention/out")
        table |= kept(f"{name}.ls1.gamma", f"{path}/scale_1", 1) | kept(f"{name}.ls2.gamma", f"{path}/scale_2", 1)
        first, second = ("w2", "w3") if gated else ("fc1", "fc2")
        table |= dense(f"{name}.mlp.{first}", f"{path}/mlp/first") | dense(f"{name}.mlp.{second}", f"{path}/mlp/second")
        table |= dense(f"{name}.mlp.w1", f"{path}/mlp/gate") if gated else {}
    return table


def dinov3_hugging_face(weights: Weights) -> Table:
    """Hugging Face's DINOv3."""
    table = kept("embeddings.cls_token", "class", 1) | kept("embeddings.register_tokens", "registers", 2)
    table |= dense("embeddings.patch_embeddings", "patches") | norm("norm", "norm")
    biased, gated = ("layer.0.attention.q_proj.bias" in weights), ("layer.0.mlp.gate_proj.weight" in weights)
    for i in range(depth(weights, r"layer\.(\d+)\.")):
        name, path = f"layer.{i}", f"block_{i}"
        table |= norm(f"{name}.norm1", f"{path}/norm_1") | norm(f"{name}.norm2", f"{path}/norm_2")
        for third, bias in zip(THIRDS, (biased, False, biased), strict=True):
            table |= dense(f"{name}.attention.{third[0]}_proj", f"{path}/attention/{third}", bias)
        table |= dense(f"{name}.attention.o_proj", f"{path}/attention/out")
        table |= kept(f"{name}.layer_scale1.lambda1", f"{path}/scale_1", 1)
        table |= kept(f"{name}.layer_scale2.lambda1", f"{path}/scale_2", 1)
        table |= dense(f"{name}.mlp.up_proj", f"{path}/mlp/first") | dense(
            f"{name}.mlp.down_proj", f"{path}/mlp/second"
        )
        table |= dense(f"{name}.mlp.gate_proj", f"{path}/mlp/gate") if gated else {}
    return table


def tower(weights: Weights) -> Table:
    """What the vision towers of CLIP and SigLIP have in common in Hugging Face's files."""
    model = "vision_model"
    table = kept(f"{model}.embeddings.position_embedding.weight", "positions", 2) | norm(
        f"{model}.post_layernorm", "norm"
    )
    for i in range(depth(weights, rf"{model}\.encoder\.layers\.(\d+)\.")):
        name, path = f"{model}.encoder.layers.{i}", f"block_{i}"
        table |= norm(f"{name}.layer_norm1", f"{path}/norm_1") | norm(f"{name}.layer_norm2", f"{path}/norm_2")
        for third, short in zip(THIRDS, "qkv", strict=True):
            table |= dense(f"{name}.self_attn.{short}_proj", f"{path}/attention/{third}")
        table |= dense(f"{name}.self_attn.out_proj", f"{path}/attention/out")
        table |= dense(f"{name}.mlp.fc1", f"{path}/mlp/first") | dense(f"{name}.mlp.fc2", f"{path}/mlp/second")
    return table


def clip_hugging_face(weights: Weights) -> Table:
    """Hugging Face's CLIP: the vision tower, and the projection where the file has it."""
    table = kept("vision_model.embeddings.class_embedding", "class", 1) | norm("vision_model.pre_layrnorm", "before")
    table |= dense("vision_model.embeddings.patch_embedding", "patches", bias=False)
    return tower(weights) | table | where(weights, dense("visual_projection", "projection", bias=False))


def siglip_hugging_face(weights: Weights) -> Table:
    """Hugging Face's SigLIP: the vision tower with its pooling."""
    head = "vision_model.head"
    table = dense("vision_model.embeddings.patch_embedding", "patches") | kept(f"{head}.probe", "pool/probe", 1)
    table |= fused(f"{head}.attention.in_proj_weight", f"{head}.attention.in_proj_bias", "pool/attention")
    table |= dense(f"{head}.attention.out_proj", "pool/attention/out") | norm(f"{head}.layernorm", "pool/norm")
    table |= dense(f"{head}.mlp.fc1", "pool/mlp/first") | dense(f"{head}.mlp.fc2", "pool/mlp/second")
    return tower(weights) | table


def clip_authors(weights: Weights) -> Table:
    """OpenAI's CLIP and open_clip: the vision tower."""
    table = kept("visual.class_embedding", "class", 1) | kept("visual.positional_embedding", "positions", 2)
    table |= dense("visual.conv1", "patches", bias=False) | norm("visual.ln_pre", "before")
    table |= norm("visual.ln_post", "norm") | kept("visual.proj", "projection/kernel", 2)
    for i in range(depth(weights, r"visual\.transformer\.resblocks\.(\d+)\.")):
        name, path = f"visual.transformer.resblocks.{i}", f"block_{i}"
        table |= norm(f"{name}.ln_1", f"{path}/norm_1") | norm(f"{name}.ln_2", f"{path}/norm_2")
        table |= fused(f"{name}.attn.in_proj_weight", f"{name}.attn.in_proj_bias", f"{path}/attention")
        table |= dense(f"{name}.attn.out_proj", f"{path}/attention/out")
        table |= dense(f"{name}.mlp.c_fc", f"{path}/mlp/first") | dense(f"{name}.mlp.c_proj", f"{path}/mlp/second")
    return table
