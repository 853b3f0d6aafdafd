"""Vision transformers, block by block, and ResNets beside a second writing, from files in every layout."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from transformer import LIBRARIES, Numpy, agree, attention, blocks, feed, run

from ssl_gen.networks.pretrained import encoders, families, vit, vit_names
from ssl_gen.networks.pretrained.beside import Beside
from ssl_gen.types import UserError

WIDTH, DEPTH, HIDDEN, PATCH, GRID, HEADS = 128, 2, 20, 4, 3, 2
IMAGES = np.random.default_rng(0).normal(size=(2, PATCH * GRID, PATCH * GRID, 3)).astype(np.float32)


def draws(seed=1):
    """Arrays of any shape, in PyTorch's order of axes, small enough that nothing saturates."""
    random = np.random.default_rng(seed)
    return lambda *shape: random.normal(0, 1 / max(np.prod(shape[1:]), 4) ** 0.5, shape).astype(np.float32)


def norms(draw):
    return {"weight": 1 + draw(WIDTH), "bias": draw(WIDTH)}


def linear(draw, given, features, bias=True):
    return {"weight": draw(features, given)} | ({"bias": draw(features)} if bias else {})


def block(draw, gated=False):
    parts = {"norm1": norms(draw), "norm2": norms(draw), "out": linear(draw, WIDTH, WIDTH)}
    parts |= {third: linear(draw, WIDTH, WIDTH) for third in ("query", "key", "value")}
    parts |= {"gate": linear(draw, WIDTH, HIDDEN)} if gated else {}
    return parts | {"first": linear(draw, WIDTH, HIDDEN), "second": linear(draw, HIDDEN, WIDTH)}


def network(classes_position=True, token=True, patch_bias=True, registers=0, gated=False):
    """The parts of a transformer, without names."""
    draw = draws()
    patches = {"weight": draw(WIDTH, 3, PATCH, PATCH)} | ({"bias": draw(WIDTH)} if patch_bias else {})
    return {
        "token": draw(WIDTH) if token else None,
        "positions": draw(GRID**2 + classes_position, WIDTH),
        "registers": draw(registers, WIDTH),
        "patches": patches,
        "blocks": [block(draw, gated) for _ in range(DEPTH)],
        "norm": norms(draw),
        "draw": draw,
    }


def named(prefix, part):
    return {f"{prefix}.{end}": array for end, array in part.items()}


def fused(part, layers=("query", "key", "value")):
    """Several layers in one."""
    return {end: np.concatenate([part[layer][end] for layer in layers]) for end in ("weight", "bias")}


def mlp(name, part, gated):
    """The layers of an MLP, which are called `gated` where it has gates: these come first, in one array with units."""
    first, second = gated if "gate" in part else ("fc1", "fc2")
    inner = fused(part, ("gate", "first")) if "gate" in part else part["first"]
    return named(f"{name}.{first}", inner) | named(f"{name}.{second}", part["second"])


def timm(net, register="reg_token", gated=("fc1", "fc2")):
    found = {"pos_embed": net["positions"][None]} | (
        {} if net["token"] is None else {"cls_token": net["token"][None, None]}
    )
    found |= named("patch_embed.proj", net["patches"]) | named("norm", net["norm"])
    found |= {register: net["registers"][None]} if len(net["registers"]) else {}
    for i, part in enumerate(net["blocks"]):
        name = f"blocks.{i}"
        found |= named(f"{name}.norm1", part["norm1"]) | named(f"{name}.norm2", part["norm2"])
        found |= named(f"{name}.attn.qkv", fused(part)) | named(f"{name}.attn.proj", part["out"])
        found |= mlp(f"{name}.mlp", part, gated)
        if "scales" in part:
            found |= {f"{name}.ls1.gamma": part["scales"][0], f"{name}.ls2.gamma": part["scales"][1]}
    return found


def hugging_face(net, whole=""):
    """What ViT and DINOv2 share there; `whole`: what their names begin with."""
    name = f"{whole}embeddings"
    found = {f"{name}.cls_token": net["token"][None, None], f"{name}.position_embeddings": net["positions"][None]}
    found |= named(f"{name}.patch_embeddings.projection", net["patches"]) | named(f"{whole}layernorm", net["norm"])
    for i, part in enumerate(net["blocks"]):
        name = f"{whole}encoder.layer.{i}.attention"
        for third in ("query", "key", "value"):
            found |= named(f"{name}.attention.{third}", part[third])
        found |= named(f"{name}.output.dense", part["out"])
    return found


def dinov2_hugging_face(net):
    found = hugging_face(net) | {"embeddings.mask_token": np.zeros((1, WIDTH), np.float32)}
    found |= {"embeddings.register_tokens": net["registers"][None]} if len(net["registers"]) else {}
    for i, part in enumerate(net["blocks"]):
        name = f"encoder.layer.{i}"
        found |= named(f"{name}.norm1", part["norm1"]) | named(f"{name}.norm2", part["norm2"])
        found |= mlp(f"{name}.mlp", part, ("weights_in", "weights_out"))
        found |= {f"{name}.layer_scale{k + 1}.lambda1": part["scales"][k] for k in (0, 1)}
    return found


def vit_hugging_face(net, whole=""):
    """Alone, or as part of a network that is called `whole`."""
    found = hugging_face(net, whole)
    for i, part in enumerate(net["blocks"]):
        name = f"{whole}encoder.layer.{i}"
        found |= named(f"{name}.layernorm_before", part["norm1"]) | named(f"{name}.layernorm_after", part["norm2"])
        found |= named(f"{name}.intermediate.dense", part["first"]) | named(f"{name}.output.dense", part["second"])
    return found


def tower(net):
    """What CLIP and SigLIP share at Hugging Face."""
    name = "vision_model.embeddings"
    found = named(f"{name}.patch_embedding", net["patches"]) | named("vision_model.post_layernorm", net["norm"])
    found |= {f"{name}.position_embedding.weight": net["positions"]}
    found |= {f"{name}.position_ids": np.arange(4.0)[None], "text_model.x.weight": np.zeros((2, 2), np.float32)}
    for i, part in enumerate(net["blocks"]):
        name = f"vision_model.encoder.layers.{i}"
        found |= named(f"{name}.layer_norm1", part["norm1"]) | named(f"{name}.layer_norm2", part["norm2"])
        for third, short in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
            found |= named(f"{name}.self_attn.{short}_proj", part[third])
        found |= named(f"{name}.mlp.fc1", part["first"]) | named(f"{name}.mlp.fc2", part["second"])
    return found


def clip_hugging_face(net):
    found = tower(net) | named("vision_model.pre_layrnorm", net["before"])
    found |= {"vision_model.embeddings.class_embedding": net["token"], "visual_projection.weight": net["projection"]}
    return found | {"logit_scale": np.float32(1)}


def clip_authors(net):
    found = {"visual.class_embedding": net["token"], "visual.positional_embedding": net["positions"]}
    found |= {"visual.proj": net["projection"].T, "ln_final.weight": np.zeros(3, np.float32)}
    found |= named("visual.conv1", net["patches"]) | named("visual.ln_pre", net["before"])
    found |= named("visual.ln_post", net["norm"])
    for i, part in enumerate(net["blocks"]):
        name = f"visual.transformer.resblocks.{i}"
        found |= named(f"{name}.ln_1", part["norm1"]) | named(f"{name}.ln_2", part["norm2"])
        found |= {f"{name}.attn.in_proj_{end}": array for end, array in fused(part).items()}
        found |= named(f"{name}.attn.out_proj", part["out"]) | named(f"{name}.mlp.c_fc", part["first"])
        found |= named(f"{name}.mlp.c_proj", part["second"])
    return found


def clip_timm(net):
    """timm gives the projection biases, of 0."""
    head = {"weight": net["projection"], "bias": np.zeros(len(net["projection"]), np.float32)}
    return timm(net) | named("norm_pre", net["before"]) | named("head", head)


def siglip_timm(net):
    pool, name = net["pool"], "attn_pool"
    found = timm(net) | {f"{name}.latent": net["probe"][None, None]} | named(f"{name}.norm", pool["norm2"])
    found |= named(f"{name}.q", pool["query"]) | named(f"{name}.kv", fused(pool, ("key", "value")))
    return found | named(f"{name}.proj", pool["out"]) | mlp(f"{name}.mlp", pool, None)


def siglip_hugging_face(net):
    pool, name = net["pool"], "vision_model.head"
    found = tower(net) | {f"{name}.probe": net["probe"][None, None]} | named(f"{name}.layernorm", pool["norm2"])
    found |= {f"{name}.attention.in_proj_{end}": array for end, array in fused(pool).items()}
    found |= named(f"{name}.attention.out_proj", pool["out"]) | named(f"{name}.mlp.fc1", pool["first"])
    return found | named(f"{name}.mlp.fc2", pool["second"])


# The network


def walk(net, images, library, activation="gelu", epsilon=1e-6, class_position=True):
    """images (B, H, W, 3) -> all tokens (B, N, D) after each block and after the last norm, float64."""
    rows = images.astype(np.float64).reshape(len(images), GRID, PATCH, GRID, PATCH, 3).transpose(0, 1, 3, 5, 2, 4)
    kernel = {**net["patches"], "weight": net["patches"]["weight"].reshape(WIDTH, -1)}
    x = library.affine(rows.reshape(len(images), GRID**2, -1), kernel) + net["positions"][int(class_position) :]
    front = []
    if net["token"] is not None:
        front.append((net["token"] + (net["positions"][0] if class_position else 0))[None])
    front += [net["registers"]] if len(net["registers"]) else []
    x = np.concatenate([*(np.broadcast_to(part, (len(x), *part.shape)) for part in front), x], 1)
    x = library.norm(x, net["before"], epsilon) if "before" in net else x
    return blocks(net, x, HEADS, activation, epsilon, library)


def scaled(net):
    for part in net["blocks"]:
        part["scales"] = [1 + net["draw"](WIDTH) for _ in range(2)]
    return net


IMAGENET = Beside(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


def encoded(weights, said):
    """Outputs, what comes out of each block and of the last norm, and the encoder."""
    encoder = encoders.recognise(weights, "random", said=said)
    assert encoder.settings.kind == "vit"
    return *run(encoder, IMAGES), encoder


def pooled(net, tokens, library):
    """tokens (B, N, D) -> (B, D), as SigLIP pools them."""
    pool, probes = net["pool"], np.broadcast_to(net["probe"], (len(tokens), 1, WIDTH))
    seen = attention(pool, probes, tokens, HEADS, library)
    return (seen + feed(library.norm(seen, pool["norm2"], 1e-6), pool, "tanh", library))[:, 0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_block_of_a_plain_transformer_and_its_last_layer(library):
    net, library = network(), library()
    head = linear(net["draw"], WIDTH, 7)
    outputs, layers, encoder = encoded(timm(net) | named("head", head), IMAGENET)
    expected = walk(net, IMAGES, library)
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, expected[-1][:, 0], atol=1e-4)
    np.testing.assert_allclose(outputs.logits, library.affine(expected[-1][:, 0], head), atol=1e-4)
    assert encoder.settings.preprocessing.size == GRID * PATCH


def unread(whole):
    """Of a model's pooling (of its training, in Google's), of masked images, of MAE's second half."""
    return {
        f"{whole}pooler.dense.weight": np.ones((WIDTH, WIDTH), np.float32),
        f"{whole}embeddings.mask_token": np.zeros((1, 1, WIDTH), np.float32),
        "decoder.decoder_pos_embed": np.ones((1, GRID**2 + 1, 5), np.float32),
    }


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("whole", "classes"), [("", False), ("vit.", False), ("vit.", True)])
def test_every_block_of_a_plain_transformer_of_hugging_face(whole, classes, library):
    net, library = network(), library()
    head = linear(net["draw"], WIDTH, 7)
    weights = vit_hugging_face(net, whole) | unread(whole) | (named("classifier", head) if classes else {})
    outputs, layers, encoder = encoded(weights, IMAGENET)
    expected = walk(net, IMAGES, library, epsilon=1e-12)
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, expected[-1][:, 0], atol=1e-4)
    if classes:
        np.testing.assert_allclose(outputs.logits, library.affine(expected[-1][:, 0], head), atol=1e-4)
    assert (outputs.logits is None) == (not classes)
    assert encoder.settings.preprocessing.resize == "linear" and encoder.settings.network["epsilon"] == 1e-12


def test_a_plain_transformer_of_hugging_face_is_that_of_timm_but_for_the_epsilon_of_its_norms():
    of_timm = encoders.recognise(timm(network()), "r", said=IMAGENET._replace(resize="cubic"))
    theirs = IMAGENET._replace(resize="cubic", epsilon=1e-6)
    other = encoders.recognise(vit_hugging_face(network(), "vit."), "r", said=theirs)
    assert other.settings.network == of_timm.settings.network | {"epsilon": 1e-6}
    assert jax.tree.all(jax.tree.map(np.array_equal, other.variables, of_timm.variables))


def test_a_distilled_transformer_of_hugging_face_is_refused_in_one_line():
    token = {"deit.embeddings.distillation_token": np.ones((1, 1, WIDTH), np.float32)}
    with pytest.raises(UserError, match="unknown: deit") as caught:
        encoders.recognise(vit_hugging_face(network(), "deit.") | token, "r", said=IMAGENET)
    assert "\n" not in str(caught.value)


def dinov2(layout, gated=False):
    """A network with registers, and its file; in timm's files the class token has no position."""
    net = scaled(network(classes_position=layout != "timm", registers=4, gated=gated))
    if layout == "timm":
        return net, timm(net)
    if layout == "hugging_face":
        return net, dinov2_hugging_face(net)
    return net, timm(net, "register_tokens", ("w12", "w3")) | {"mask_token": np.zeros((1, WIDTH), np.float32)}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layout", ["authors", "timm", "hugging_face"])
def test_every_block_of_dinov2_with_registers_and_of_its_giant_with_gates_in_three_layouts(layout, gated, library):
    net, weights = dinov2(layout, gated)
    outputs, layers, encoder = encoded(weights, Beside())
    expected = walk(net, IMAGES, library(), "silu" if gated else "gelu", class_position=layout != "timm")
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, expected[-1][:, 0], atol=1e-4)
    assert outputs.logits is None and encoder.settings.network["registers"] == 4
    assert encoders.as_settings(json.loads(json.dumps(encoders.to_plain(encoder.settings)))) == encoder.settings


def test_dinov2s_giant_has_one_name_in_its_authors_layout_and_in_hugging_faces():
    both = [
        encoders.recognise(dinov2(layout, gated=True)[1], "r", said=Beside()) for layout in ("authors", "hugging_face")
    ]
    assert both[0].name == both[1].name


@pytest.mark.parametrize(
    ("layout", "name", "shape", "said"),
    [
        ("authors", "blocks.1.mlp.w12.weight", (2 * HIDDEN - 1, WIDTH), "1 misshapen: blocks.1.mlp.w12.weight"),
        ("authors", "blocks.1.mlp.w12.weight", None, "1 missing: blocks.1.mlp.w12.weight"),
        ("authors", "blocks.1.mlp.w3.weight", (WIDTH, HIDDEN + 1), "1 misshapen: blocks.1.mlp.w3.weight"),
        ("timm", "blocks.1.mlp.fc1.weight", (HIDDEN, WIDTH), "1 misshapen: blocks.1.mlp.fc1.weight"),
        ("timm", "blocks.0.mlp.fc1.weight", (HIDDEN + 1, WIDTH), "misshapen: blocks.0.mlp.fc1"),
        ("hugging_face", "encoder.layer.0.mlp.weights_in.bias", None, "1 missing: encoder.layer.0.mlp.weights_in.bias"),
    ],
)
def test_a_file_of_dinov2s_giant_that_does_not_fit_is_refused_in_one_line(layout, name, shape, said):
    weights = dinov2(layout, gated=True)[1]
    weights = {each: array for each, array in weights.items() if each != name or shape is not None}
    weights |= {} if shape is None else {name: np.ones(shape, np.float32)}
    with pytest.raises(UserError, match=said) as caught:
        encoders.recognise(weights, "w.safetensors", said=Beside())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("write", "activation"), [(clip_hugging_face, "quick_gelu"), (clip_authors, "gelu"), (clip_timm, "quick_gelu")]
)
def test_every_block_of_the_tower_of_clip_and_its_projection(write, activation, library):
    net, library = clip_network(), library()
    outputs, layers, encoder = encoded(write(net), Beside(activation))
    expected = walk(net, IMAGES, library, activation, 1e-5)
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, expected[-1][:, 0] @ net["projection"].T, atol=1e-4)
    assert encoder.settings.preprocessing.mean[0] == pytest.approx(0.48145466)


def clip_network():
    net = network(patch_bias=False)
    return net | {"before": norms(net["draw"]), "projection": net["draw"](6, WIDTH)}


def siglip():
    net = network(classes_position=False, token=False)
    return net | {"pool": block(net["draw"]), "probe": net["draw"](WIDTH)}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("write", [siglip_hugging_face, siglip_timm])
def test_every_block_of_the_tower_of_siglip_and_its_pooling(write, library):
    net, library = siglip(), library()
    outputs, layers, encoder = encoded(write(net), Beside())
    expected = walk(net, IMAGES, library, "tanh", class_position=False)
    agree(layers, expected)
    np.testing.assert_allclose(outputs.features, pooled(net, expected[-1], library), atol=1e-4)
    assert encoders.as_settings(json.loads(json.dumps(encoders.to_plain(encoder.settings)))) == encoder.settings


@pytest.mark.parametrize(
    ("net", "writes"),
    [
        (clip_network, (clip_timm, clip_authors, clip_hugging_face)),
        (siglip, (siglip_timm, siglip_hugging_face)),
    ],
)
def test_a_tower_has_one_name_in_all_layouts(net, writes):
    names = {encoders.recognise(write(net()), "random", said=Beside("gelu")).name for write in writes}
    assert len(names) == 1


def test_the_last_layer_of_a_clip_that_timm_trained_further_gives_logits():
    net = clip_network()
    head = linear(net["draw"], WIDTH, 7)
    weights = timm(net) | named("norm_pre", net["before"]) | named("head", head)
    outputs, layers, _ = encoded(weights, Beside("gelu"))
    np.testing.assert_allclose(outputs.features, layers[-1][:, 0], atol=1e-6)
    np.testing.assert_allclose(outputs.logits, Numpy().affine(layers[-1][:, 0], head), atol=1e-4)


@pytest.mark.parametrize(
    ("net", "write", "change", "said"),
    [
        ("clip", clip_timm, {"norm_pre.weight": (WIDTH + 1,)}, "CLIP at timm it has 1 misshapen: norm_pre.weight .129"),
        ("clip", clip_timm, {"norm_pre.bias": None}, "CLIP at timm it has 1 missing: norm_pre.bias"),
        ("clip", clip_timm, {"head.weight": None}, "CLIP at timm it has 1 missing: head.weight"),
        ("clip", clip_timm, {"patch_embed.proj.bias": (WIDTH,)}, "1 unknown: patch_embed.proj.bias"),
        (
            "siglip",
            siglip_timm,
            {"attn_pool.latent": (1, 2, WIDTH)},
            "SigLIP at timm it has 1 misshapen: attn_pool.latent",
        ),
        ("siglip", siglip_timm, {"attn_pool.kv.weight": (WIDTH, WIDTH)}, "it has 1 misshapen: attn_pool.kv.weight"),
        ("siglip", siglip_timm, {"attn_pool.q.bias": None}, "SigLIP at timm it has 1 missing: attn_pool.q.bias"),
    ],
)
def test_a_tower_of_timm_that_does_not_fit_is_refused_in_one_line(net, write, change, said):
    weights = write(clip_network() if net == "clip" else siglip())
    for name, shape in change.items():
        weights |= {} if shape is None else {name: np.ones(shape, np.float32)}
        weights = {each: array for each, array in weights.items() if each != name or shape is not None}
    with pytest.raises(UserError, match=said) as caught:
        encoders.recognise(weights, "w.safetensors", said=Beside("gelu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sides", [(3, 5), (6, 6), (2, 2)])
def test_positions_of_another_grid_are_pillows_bicubic_ones(sides):
    from PIL import Image

    positions = np.random.default_rng(2).normal(size=(16, 3)).astype(np.float32)
    maps = [Image.fromarray(channel) for channel in positions.reshape(4, 4, 3).transpose(2, 0, 1)]
    expected = np.stack([np.asarray(each.resize(sides[::-1], Image.BICUBIC)) for each in maps], -1)
    np.testing.assert_allclose(vit.resized(jnp.asarray(positions), sides), expected.reshape(-1, 3), atol=1e-4)


def test_a_larger_image_has_more_patches_and_one_that_is_no_multiple_is_refused():
    weights = timm(network())
    larger = encoders.recognise(weights, "random", 2 * PATCH * GRID, IMAGENET)
    shapes = jax.eval_shape(encoders.network(larger.settings).apply, larger.variables, jnp.zeros((1, 24, 24, 3)))
    assert shapes.features.shape == (1, WIDTH)
    with pytest.raises(UserError, match="13 and patches of 4 pixels: give a multiple of 4"):
        encoders.recognise(weights, "random", 13, IMAGENET)


def test_a_transformer_without_one_of_its_blocks_says_which_names_are_missing():
    weights = {name: array for name, array in timm(network()).items() if not name.startswith("blocks.0.mlp")}
    with pytest.raises(UserError, match=r"beside vit of timm or DINO it has 4 missing: blocks\.0\.mlp\.fc1\.weight"):
        encoders.recognise(weights, "random")


def test_a_part_that_one_block_alone_lacks_is_missed_in_one_line():
    weights = timm(scaled(network()))
    del weights["blocks.1.ls2.gamma"]
    with pytest.raises(UserError, match=r"it has 1 missing: params/block_1/scale_2"):
        encoders.recognise(weights, "random")


def test_settings_of_networks_before_dinov3_say_nothing_new_so_that_their_names_stay():
    fields = encoders.recognise(timm(network()), "random", said=IMAGENET).settings.network
    assert not {"gated", "query_bias", "key_bias", "activation"} & fields.keys()


FAMILY = {layout.source: layout.heads for layout in families.FAMILIES["vit"].layouts}


@pytest.mark.parametrize(
    ("source", "widths", "heads"),
    [
        # timm, vision_transformer.py: vit_tiny, small, base, large, huge, giant, gigantic; DINOv2's giant of 1536
        ("timm or DINO", (192, 384, 768, 1024, 1280, 1408, 1664, 1536), [3, 6, 12, 16, 16, 16, 16, 24]),
        ("DINOv2 at Hugging Face", (384, 768, 1024, 1536), [6, 12, 16, 24]),
        # open_clip, model_configs: ViT-B, L, H (head_width 80), g (88), bigG (104)
        ("CLIP's authors", (768, 1024, 1280, 1408, 1664), [12, 16, 16, 16, 16]),
        ("CLIP at Hugging Face", (768, 1024, 1280, 1408, 1664), [12, 16, 16, 16, 16]),
        # timm: SigLIP's base, large, so400m, and SigLIP 2's giant-opt
        ("SigLIP at Hugging Face", (768, 1024, 1152, 1536), [12, 16, 16, 16]),
    ],
)
def test_heads_of_known_networks_which_no_array_tells(source, widths, heads):
    assert [vit_names.heads(width, FAMILY[source]) for width in widths] == heads


def test_the_side_is_that_of_the_positions_but_of_dinov2_that_of_its_evaluations():
    """DINOv2 at 518 in patches of 14; DeiT-3, whose layers have scales too, at 384 in patches of 16; so400m at 384."""
    cases = [(True, 37, 14, 224), (True, 24, 16, 384), (True, 14, 16, 224), (False, 27, 14, 378), (False, 37, 14, 518)]
    for scaled_, grid, patch, side in cases:
        assert families.transformer_size({"scaled": scaled_, "positions": grid**2 + 1, "patch": patch}) == side


# What lies beside a file


@pytest.fixture
def lie_beside(tmp_path):
    """Writes weights and, as JSON, what lies beside them; gives the encoder of the file."""

    def load(weights, **files):
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, tmp_path / "w.safetensors")
        for name, said in files.items():
            (tmp_path / f"{name}.json").write_text(said if isinstance(said, str) else json.dumps(said))
        return encoders.load(tmp_path / "w.safetensors")

    return load


def clip(write):
    return write(clip_network())


def timms(name):
    """The config.json of one of timm's, by its full name."""
    architecture, _, tag = name.partition(".")
    return {"config": {"architecture": architecture, "pretrained_cfg": {"tag": tag} if tag else {}}}


@pytest.mark.parametrize(
    ("write", "files", "activation"),
    [
        (clip_hugging_face, {"config": {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}}, "gelu"),
        (clip_hugging_face, {"config": {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}}, "quick_gelu"),
        (clip_hugging_face, {"config": {"model_type": "clip", "vision_config": {"layers": 2}}}, "quick_gelu"),
        (clip_authors, {"open_clip_config": {"model_cfg": {"embed_dim": 6}}}, "gelu"),
        (clip_authors, {"open_clip_config": {"model_cfg": {"quick_gelu": True}}}, "quick_gelu"),
        (clip_timm, timms("vit_base_patch16_clip_quickgelu_224"), "quick_gelu"),
        (clip_timm, timms("vit_base_patch16_clip_224.openai"), "quick_gelu"),
        (clip_timm, timms("vit_base_patch16_clip_224.openai_ft_in1k"), "gelu"),
        (clip_timm, timms("vit_base_patch16_clip_224.laion2b"), "gelu"),
        (clip_timm, timms("vit_large_patch14_clip_224.dfn2b"), "quick_gelu"),
        (clip_timm, timms("vit_base_patch16_clip_224.dfn2b"), "gelu"),
        (clip_timm, timms("vit_x.y") | {"open_clip_config": {"model_cfg": {"quick_gelu": True}}}, "quick_gelu"),
    ],
)
def test_what_lies_beside_a_clip_says_its_activation(lie_beside, write, files, activation):
    assert lie_beside(clip(write), **files).settings.network["activation"] == activation


@pytest.mark.parametrize(
    "files",
    [
        {"config": {"architecture": "vit_x", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6]}}},
        {"config": {"model_type": "x"}, "preprocessor_config": {"image_mean": [0.5] * 3, "image_std": [0.4, 0.5, 0.6]}},
        {"open_clip_config": {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.4, 0.5, 0.6]}}},
    ],
)
def test_what_lies_beside_a_transformer_says_how_pixels_are_scaled_and_is_part_of_its_name(lie_beside, files):
    weights = timm(network())
    found = lie_beside(weights, **files)
    assert found.settings.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.settings.preprocessing.deviation == (0.4, 0.5, 0.6)
    other = encoders.recognise(weights, "w", said=IMAGENET)
    assert other.settings.preprocessing.deviation == (0.229, 0.224, 0.225) and other.name != found.name


SCALED = {"config": {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}}


@pytest.mark.parametrize(
    ("files", "heads"),
    [
        ({"preprocessor_config": {"resample": 2}}, 2),
        ({"config": {"vision_config": {"num_attention_heads": 4}, "num_attention_heads": 8}}, 4),
        ({"config": {"num_attention_heads": 8}, "preprocessor_config": {"resample": 2}}, 8),
        ({"open_clip_config": {"model_cfg": {"vision_cfg": {"width": 128, "head_width": 16}}}}, 8),
        ({"open_clip_config": {"model_cfg": {"vision_cfg": {"width": 128}}}}, 2),
    ],
)
def test_what_lies_beside_a_transformer_says_its_heads_and_how_images_are_resized(lie_beside, files, heads):
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    resized = "preprocessor_config" in files
    found = lie_beside(
        timm(network()), **files | {"preprocessor_config": pixels | files.get("preprocessor_config", {})}
    )
    assert found.settings.network["heads"] == heads
    assert found.settings.preprocessing.resize == ("linear" if resized else "cubic")


@pytest.mark.parametrize(
    ("write", "config", "epsilon"),
    [
        (vit_hugging_face, {"model_type": "vit_msn", "layer_norm_eps": 1e-6}, 1e-6),
        (vit_hugging_face, {"model_type": "vit", "layer_norm_eps": 1e-12}, 1e-12),
        (vit_hugging_face, {"model_type": "vit"}, 1e-12),
        (timm, {"model_type": "vit", "layer_norm_eps": 1e-6}, None),  # the network's own: names of encoders stay
        (timm, {"model_type": "vit", "layer_norm_eps": 1e-5}, 1e-5),
    ],
)
def test_what_lies_beside_a_transformer_says_the_epsilon_of_its_norms(lie_beside, write, config, epsilon):
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    found = lie_beside(write(network()), config=config, preprocessor_config=pixels)
    assert found.settings.network.get("epsilon") == epsilon


def test_where_nothing_tells_two_networks_apart_the_file_is_refused_in_one_line_that_says_what_would(lie_beside):
    for weights, said in (
        (clip(clip_timm), "with quick GELU .OpenAI's CLIP. or with GELU: put its config.json"),
        (clip(clip_hugging_face), "with quick GELU .OpenAI's CLIP. or with GELU: put its config.json"),
        (clip(clip_authors), "open_clip_config.json beside it"),
        (timm(network()), "ImageNet's mean and deviation .DINO, DeiT. or by 0.5 and 0.5: put its config.json"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            lie_beside(weights)
        assert "\n" not in str(caught.value)
    example = str(caught.value).partition("that reads ")[2].removesuffix(".")
    assert (
        lie_beside(timm(network()), config=example).settings
        == encoders.recognise(timm(network()), "w", said=IMAGENET).settings
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config": "{"}, "config.json lies beside the weights and cannot be read"),
        ({"config": {"model_type": "clip", "hidden_act": "relu"}}, "names the activation 'relu': known are quick_gelu"),
        ({"config": {"pretrained_cfg": {"mean": 0.5, "std": 0.5}}}, "scales pixels by 0.5: three numbers"),
        ({"preprocessor_config": {"image_mean": [0.5] * 3, "image_std": [0.0, 1, 1]}}, "deviations above 0"),
        ({"preprocessor_config": {"resample": 1}}, "resizes by 1: known are bilinear, bicubic, 2, 3"),
        ({"config": {"pretrained_cfg": {"interpolation": ["random"]}}}, "resizes by .'random'.: known are"),
        (
            {"config": {"model_type": "vit", "hidden_act": "relu"}},
            "has hidden_act 'relu': of ViT at Hugging Face 'gelu'",
        ),
        (
            {"config": {"vision_config": {"model_type": "siglip_vision_model", "hidden_act": "gelu"}}},
            "of SigLIP at Hug",
        ),
        ({"config": {"layer_norm_eps": 0}}, "config.json has layer_norm_eps 0: give a number above 0"),
        ({"config": {"num_attention_heads": 0}}, "config.json has 0 heads of attention: give a whole number"),
        ({"open_clip_config": {"model_cfg": {"vision_cfg": {"width": 128, "head_width": 80}}}}, "has 128 / 80 heads"),
        (SCALED | {"open_clip_config": {"model_cfg": {"vision_cfg": {"width": 192}}}}, "which 3 heads, as said beside"),
    ],
)
def test_what_makes_no_sense_beside_a_file_is_one_line(lie_beside, files, said):
    with pytest.raises(UserError, match=said) as caught:
        lie_beside(timm(network()), **files)
    assert "\n" not in str(caught.value)


# ResNets


def convolution(x, kernel, stride):
    pad = kernel.shape[-1] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.moveaxis(np.tensordot(seen, kernel, ((1, 4, 5), (1, 2, 3))), -1, 1)


BASIC, DEEP = (3, 3), (1, 3, 1)  # sizes of a block's convolutions: He et al. 2016, table 1
RESNETS = {"resnet18": ((2, 2, 2, 2), BASIC), "resnet34": ((3, 4, 6, 3), BASIC), "resnet50": ((3, 4, 6, 3), DEEP)}


def resnet(kind):
    """Random weights by torchvision's names."""
    (stages, sizes), random, found = RESNETS[kind], np.random.default_rng(3), {}
    expansion = 4 if sizes == DEEP else 1

    def unit(name, normalisation, given, features, size):
        found[f"{name}.weight"] = random.normal(0, (1 / (given * size * size)) ** 0.5, (features, given, size, size))
        ranges = {"weight": (0.5, 1), "bias": (0, 0.2), "running_mean": (0, 0.2), "running_var": (0.5, 1)}
        found.update({f"{normalisation}.{part}": random.uniform(*ends, features) for part, ends in ranges.items()})

    unit("conv1", "bn1", 3, 64, 7)
    given = 64
    for stage, count in enumerate(stages):
        for i in range(count):
            name, width, inside = f"layer{stage + 1}.{i}", 64 * 2**stage, given
            for k, size in enumerate(sizes):
                out = width * (expansion if k == len(sizes) - 1 else 1)
                unit(f"{name}.conv{k + 1}", f"{name}.bn{k + 1}", inside, out, size)
                inside = out
            if given != inside:
                unit(f"{name}.downsample.0", f"{name}.downsample.1", given, inside, 1)
            given = inside
    return {name: array.astype(np.float32) for name, array in found.items()}


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_a_resnet_is_that_of_a_second_writing(kind):
    weights, (stages, sizes) = resnet(kind), RESNETS[kind]
    images = np.random.default_rng(4).normal(size=(1, 33, 33, 3)).astype(np.float32)

    def unit(x, name, normalisation, stride=1):
        x = convolution(x, weights[f"{name}.weight"].astype(np.float64), stride)
        parts = ("weight", "bias", "running_mean", "running_var")
        scale, bias, mean, var = (weights[f"{normalisation}.{part}"][:, None, None] for part in parts)
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    x = np.maximum(unit(images.transpose(0, 3, 1, 2), "conv1", "bn1", 2), 0)
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
    for stage, count in enumerate(stages):
        for i in range(count):
            name, stride, y = f"layer{stage + 1}.{i}", 2 if stage and i == 0 else 1, x
            for k, size in enumerate(sizes):
                strided = size == 3 and (k == 0 or sizes == DEEP)
                y = unit(
                    y if k == 0 else np.maximum(y, 0),
                    f"{name}.conv{k + 1}",
                    f"{name}.bn{k + 1}",
                    stride if strided else 1,
                )
            short = f"{name}.downsample"
            x = unit(x, f"{short}.0", f"{short}.1", stride) if f"{short}.0.weight" in weights else x
            x = np.maximum(x + y, 0)
    encoder = encoders.recognise(weights, "random")
    assert encoder.settings.kind == kind
    outputs = jax.jit(encoders.network(encoder.settings).apply)(encoder.variables, images)
    expected = x.mean((2, 3))
    assert np.abs(outputs.features - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("kind", "parameters", "width"),  # torchvision's documentation of its weights, which classify 1,000 classes
    [
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet101", 44_549_160, 2048),
        ("resnet152", 60_192_808, 2048),
    ],
)
def test_a_resnet_has_as_many_parameters_as_torchvisions(kind, parameters, width):
    settings = encoders.Settings(
        kind, {"classes": 1000, "kind": kind}, encoders.Preprocessing(224, "linear", True, *[(0.5,) * 3] * 2)
    )
    like = encoders.variables_like(settings)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(like)) == parameters
    assert like["classifier"]["kernel"].shape == (width, 1000)


def test_settings_of_resnet_50_say_nothing_new_so_that_its_name_stays():
    assert encoders.recognise(resnet("resnet50"), "random").settings.network == {"classes": 0}


def test_a_wide_resnet_is_refused_in_one_line():
    weights = {
        name: np.repeat(array, 2, 0) if ".conv1" in name else array for name, array in resnet("resnet18").items()
    }
    with pytest.raises(
        UserError, match=r"beside resnet18 of torchvision it has 8 misshapen: layer1\.0\.conv1"
    ) as caught:
        encoders.recognise(weights, "wide")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", RESNETS)
def test_a_resnet_of_hugging_face_is_the_same_network(kind):
    weights, renamed = resnet(kind), {}
    for name, array in weights.items():
        parts = name.split(".")
        where, end = (parts[0], parts[-1]) if parts[0] in ("conv1", "bn1") else (".".join(parts[2:-1]), parts[-1])
        kind = "convolution" if where.startswith("conv") or where.endswith("downsample.0") else "normalization"
        if parts[0] in ("conv1", "bn1"):
            place = "resnet.embedder.embedder"
        else:
            inside = "shortcut" if "downsample" in where else f"layer.{int(where[-1]) - 1}"
            place = f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}.{inside}"
        renamed[f"{place}.{kind}.{end}"] = array
    found, same = encoders.recognise(renamed, "hugging face"), encoders.recognise(weights, "torchvision")
    assert found.settings.network == same.settings.network
    assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, same.variables))
