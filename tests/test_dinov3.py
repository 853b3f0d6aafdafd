"""DINOv3, block by block, beside a second writing (float64), whose rotations are products of complex numbers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_vit import draws, linear, named
from transformer import LIBRARIES, agree, blocks, run

from ssl_gen.networks.pretrained import encoders, rotary, vit_names
from ssl_gen.networks.pretrained.beside import Beside
from ssl_gen.types import UserError

HIDDEN, PATCH, HEADS, SIDES = 20, 4, 2, (2, 3)  # patches along the height and the width
HEAD = 64  # numbers
IMAGES = np.random.default_rng(0).normal(size=(2, PATCH * SIDES[0], PATCH * SIDES[1], 3)).astype(np.float32)


def network(gated=False, biased=True, width=HEADS * HEAD, depth=2):
    """The parts of a transformer, without names."""
    draw = draws()

    def norm():
        return {"weight": 1 + draw(width), "bias": draw(width)}

    def block():
        parts = {"norm1": norm(), "norm2": norm(), "scales": [1 + draw(width) for _ in range(2)]}
        parts |= {"query": linear(draw, width, width, biased), "key": linear(draw, width, width, bias=False)}
        parts |= {"value": linear(draw, width, width, biased), "out": linear(draw, width, width)}
        parts |= {"gate": linear(draw, width, HIDDEN)} if gated else {}
        return parts | {"first": linear(draw, width, HIDDEN), "second": linear(draw, HIDDEN, width)}

    patches = {"weight": draw(width, 3, PATCH, PATCH), "bias": draw(width)}
    tokens = {"token": draw(width), "registers": draw(4, width), "mask": draw(width)}
    return tokens | {"patches": patches, "norm": norm(), "blocks": [block() for _ in range(depth)]}


def authors(net):
    """Their names; biases of the keys that a mask takes away, and periods as they come out of bfloat16."""
    width = len(net["token"])
    periods = jnp.asarray([100 ** (k / 16) for k in range(16)], jnp.bfloat16)
    found = {"cls_token": net["token"][None, None], "storage_tokens": net["registers"][None]}
    found |= {"mask_token": net["mask"][None], "rope_embed.periods": np.asarray(periods, np.float32)}
    found |= named("patch_embed.proj", net["patches"]) | named("norm", net["norm"])
    for i, part in enumerate(net["blocks"]):
        name, thirds = f"blocks.{i}", ("query", "key", "value")
        found[f"{name}.attn.qkv.weight"] = np.concatenate([part[third]["weight"] for third in thirds])
        if "bias" in part["query"]:
            biases = (part["query"]["bias"], np.full(width, 7, np.float32), part["value"]["bias"])
            found[f"{name}.attn.qkv.bias"] = np.concatenate(biases)
            found[f"{name}.attn.qkv.bias_mask"] = np.repeat(np.float32([1, 0, 1]), width)
        found |= named(f"{name}.norm1", part["norm1"]) | named(f"{name}.norm2", part["norm2"])
        found |= named(f"{name}.attn.proj", part["out"])
        found |= {f"{name}.ls1.gamma": part["scales"][0], f"{name}.ls2.gamma": part["scales"][1]}
        ends = {"gate": "w1", "first": "w2", "second": "w3"} if "gate" in part else {"first": "fc1", "second": "fc2"}
        for layer, end in ends.items():
            found |= named(f"{name}.mlp.{end}", part[layer])
    return found


def hugging_face(net):
    found = {"embeddings.cls_token": net["token"][None, None], "embeddings.register_tokens": net["registers"][None]}
    found |= {"embeddings.mask_token": net["mask"][None, None]} | named("norm", net["norm"])
    found |= named("embeddings.patch_embeddings", net["patches"])
    ends = {"query": "attention.q_proj", "key": "attention.k_proj", "value": "attention.v_proj"}
    ends |= {"out": "attention.o_proj", "norm1": "norm1", "norm2": "norm2"}
    ends |= {"gate": "mlp.gate_proj", "first": "mlp.up_proj", "second": "mlp.down_proj"}
    for i, part in enumerate(net["blocks"]):
        for layer, end in ends.items():
            found |= named(f"layer.{i}.{end}", part.get(layer, {}))
        found |= {f"layer.{i}.layer_scale{k + 1}.lambda1": part["scales"][k] for k in (0, 1)}
    return found


# The network


def turns(row, column):
    """(32,) complex numbers: what a patch's pairs of numbers, of one head, are multiplied with."""
    y, x = ((place + 0.5) / side * 2 - 1 for place, side in zip((row, column), SIDES, strict=True))
    return np.exp(2j * np.pi * np.array([c / 100 ** (k / 16) for c in (y, x) for k in range(16)]))


def turned(x):
    """x (B, heads, N, 64): the class and four registers stay, patches are turned."""
    patches = np.stack([turns(row, column) for row in range(SIDES[0]) for column in range(SIDES[1])])
    pairs = (x[..., : HEAD // 2] + 1j * x[..., HEAD // 2 :]) * np.concatenate([np.ones((5, HEAD // 2)), patches])
    return np.concatenate([pairs.real, pairs.imag], -1)


def walk(net, images, library):
    """images (B, H, W, 3) -> all tokens (B, N, D) after each block and after the last norm, float64."""
    (height, width), count = SIDES, len(images)
    rows = images.astype(np.float64).reshape(count, height, PATCH, width, PATCH, 3).transpose(0, 1, 3, 5, 2, 4)
    kernel = {**net["patches"], "weight": net["patches"]["weight"].reshape(len(net["token"]), -1)}
    front = np.concatenate([net["token"][None], net["registers"]])
    x = library.affine(rows.reshape(count, height * width, -1), kernel)
    x = np.concatenate([np.broadcast_to(front, (count, *front.shape)), x], 1)
    activation = "silu" if "gate" in net["blocks"][0] else "gelu"
    return blocks(net, x, HEADS, activation, 1e-5, library, turned)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("write", "gated"), [(authors, True), (hugging_face, False)])
def test_every_block_is_that_of_a_second_writing_for_images_that_are_not_square(write, gated, library):
    net, library = network(gated), library()
    encoder = encoders.recognise(write(net), "random", said=Beside())
    outputs, layers = run(encoder, IMAGES)
    expected = walk(net, IMAGES, library)
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, expected[-1][:, 0], atol=1e-4)
    assert outputs.logits is None


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_network_has_one_name_in_both_layouts(gated, biased):
    """The largest, of 7 billion weights, has no bias of queries and values either."""
    net = network(gated, biased)
    of_authors, of_hugging_face = (
        encoders.recognise(write(net), "r", said=Beside()) for write in (authors, hugging_face)
    )
    assert of_authors.name == of_hugging_face.name
    fields = of_authors.settings.network
    assert (fields["gated"], fields["query_bias"], fields["key_bias"], fields["registers"]) == (gated, biased, False, 4)
    assert encoders.as_settings(json.loads(json.dumps(encoders.to_plain(of_authors.settings)))) == of_authors.settings


def test_half_an_image_to_the_left_and_right_of_the_middle_the_shortest_period_is_turned_by_half_a_circle():
    """Two patches in a row, heads of four numbers: y is 0, x is -1/2 and 1/2, and the only period is 1."""
    tokens = np.arange(1.0, 13).reshape(1, 3, 1, 4)
    found = rotary.turned(jnp.asarray(tokens), rotary.angles((1, 2), 4))
    np.testing.assert_allclose(
        found, tokens * np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, -1, 1, -1]])[:, None], atol=1e-5
    )


def test_images_come_bilinearly_at_224_pixels_with_imagenets_mean_or_what_is_said_and_the_name_tells():
    weights = hugging_face(network())
    plain = encoders.recognise(weights, "r", said=Beside())
    assert plain.settings.preprocessing == encoders.Preprocessing(
        224, "linear", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    other = encoders.recognise(weights, "r", said=Beside(mean=(0.4, 0.4, 0.3), deviation=(0.2, 0.2, 0.1)))
    smaller = encoders.recognise(weights, "r", 96, Beside())
    assert other.settings.preprocessing.mean == (0.4, 0.4, 0.3)
    assert len({plain.name, other.name, smaller.name}) == 3
    with pytest.raises(UserError, match="98 and patches of 4 pixels: give a multiple of 4"):
        encoders.recognise(weights, "r", 98, Beside())


def test_heads_are_of_64_numbers_but_of_the_largest_network():
    """Widths of ViT-S, B, L, H+ and 7B, and heads: Simeoni et al. 2025, table of the family; 4096 = 32 x 128."""
    widths = (384, 768, 1024, 1280, 4096)
    assert [vit_names.heads(width, vit_names.DINOV3) for width in widths] == [6, 12, 16, 20, 32]


def test_where_satellite_images_may_have_been_learnt_what_lies_beside_the_file_must_say(tmp_path):
    net = network(width=1024, depth=1)
    weights = {name: np.ascontiguousarray(array) for name, array in hugging_face(net).items()}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"satellite images \(SAT-493M\): put its preprocessor_config.json") as caught:
        encoders.load(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    example = str(caught.value).partition("one that reads ")[2].removesuffix(".")
    (tmp_path / "preprocessor_config.json").write_text(example)
    assert encoders.load(tmp_path / "model.safetensors").settings.preprocessing.mean == (0.485, 0.456, 0.406)


def without(name):
    return lambda weights: {each: array for each, array in weights.items() if each != name}


def changed(name, change):
    return lambda weights: {each: change(array) if each == name else array for each, array in weights.items()}


@pytest.mark.parametrize(
    ("write", "spoil", "said"),
    [
        (authors, without("blocks.1.ls2.gamma"), r"DINOv3's authors it has 1 missing: blocks.1.ls2.gamma"),
        (authors, without("rope_embed.periods"), "1 missing: rope_embed.periods"),
        (authors, changed("rope_embed.periods", lambda x: x[:8]), r"has built in: rope_embed.periods \(8,\)"),
        (authors, changed("rope_embed.periods", lambda x: 2 * x), "1 other than the network has built in: rope_embed"),
        (authors, changed("blocks.1.attn.qkv.bias_mask", np.ones_like), r"has built in: blocks.1.attn.qkv.bias_mask"),
        (authors, lambda weights: weights | {"cls_norm.weight": np.ones(128)}, "1 unknown: cls_norm.weight"),
        (hugging_face, without("layer.1.attention.v_proj.bias"), "it has 1 missing: layer.1.attention.v_proj.bias"),
        (hugging_face, without("layer.1.mlp.gate_proj.weight"), "1 missing: layer.1.mlp.gate_proj.weight"),
        (hugging_face, changed("embeddings.cls_token", lambda x: x[..., :64]), "misshapen: embeddings.cls_token"),
        (hugging_face, lambda weights: weights | {"layer.0.attention.k_proj.bias": np.ones(128)}, "1 unknown: layer.0"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_in_one_line(write, spoil, said):
    with pytest.raises(UserError, match=said) as caught:
        encoders.recognise(spoil(write(network(gated=True))), "w.safetensors", said=Beside())
    assert "\n" not in str(caught.value)


def test_a_width_that_heads_cannot_share_is_refused_in_one_line():
    with pytest.raises(UserError, match="194 numbers a token and 3 heads"):
        encoders.recognise(hugging_face(network(width=194, depth=1)), "w.safetensors", said=Beside())
