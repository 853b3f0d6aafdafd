"""PyTorch twins of two training steps, where JAX runs, from the same formulas and the same first weights.

    feature_matching     `ssl_gen.methods.adversarial.feature_matching` with dense networks, layer for layer
    conditional_gan      `benchmarks.step.conditional_gan`, channels last: here images are NHWC, a free view for PyTorch

Each takes the first state of the JAX step and returns its own step: (batch of tensors, latents (B, Z) or None to draw
them) -> losses by name, those of our metrics. They are written as PyTorch is used well: generated images are made once
for both players, and Adam is the fused one. `wrap` is put around each function that is differentiated: `torch.compile`
makes of it one graph, by default all is eager. Our gradient norms are left out. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssl_gen.datasets.dataset import Dataset
from ssl_gen.methods.adversarial.feature_matching import Config, State
from ssl_gen.networks import conv
from ssl_gen.types import Array, Batch, Phase, Tree

Losses = dict[str, Tensor]  # name -> () nats
Step = Callable[[Batch, Tensor | None], Losses]
Wrap = Callable[[Callable[..., Any]], Any]

DEVICE = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
torch.set_num_threads(len(os.sched_getaffinity(0)))  # all cores, as JAX does
torch.set_float32_matmul_precision("high")  # TF32 where the chip has it, as in JAX; on a CPU it changes nothing


def as_it_is(function: Callable[..., Any]) -> Any:
    """No compilation."""
    return function


def product(matrix: np.ndarray) -> Callable[[], None]:
    """A call that multiplies a matrix (N, N) with itself."""
    matrix = torch.from_numpy(matrix)

    def multiply() -> None:
        matrix @ matrix

    return multiply


def trainer(step: Step, dataset: Dataset, phase: Phase) -> Callable[[int], None]:
    """train(steps): batches of random rows, gathered from uint8 images and scaled to [-1, 1] as JAX's are."""
    images, labels = tensor(dataset.train_images), tensor(dataset.train_labels).long()

    def take(rows: Tensor) -> Tensor:
        return images[rows].float() / 127.5 - 1

    def train(steps: int) -> None:
        for _ in range(steps):
            labelled, unlabelled = (
                torch.randint(len(images), (size,), device=DEVICE) for size in (phase.labelled, phase.unlabelled)
            )
            step(Batch(take(labelled), labels[labelled], take(unlabelled)), None)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return train


def tensor(array: Array | np.ndarray) -> Tensor:
    """A copy that PyTorch owns."""
    return torch.from_numpy(np.array(array)).to(DEVICE)


def parameters(tree: Tree, arrange: Callable[[str, Tensor], Tensor] = lambda path, leaf: leaf) -> Tree:
    """A tree of JAX weights as trainable tensors, each arranged by its path ('Dense_0/kernel')."""

    def convert(path: tuple, leaf: Array) -> Tensor:
        return arrange("/".join(key.key for key in path), tensor(leaf)).requires_grad_()

    return jax.tree_util.tree_map_with_path(convert, tree)


def adam(weights: Tree, rate: float) -> torch.optim.Adam:
    """Adam with b1 = 0.5, in one call for all weights; its epsilon stands beside the root, the method's below it."""
    return torch.optim.Adam(jax.tree.leaves(weights), rate, (0.5, 0.999), fused=True)


def update(optimizer: torch.optim.Adam, losses: Losses) -> None:
    """One step on the sum of the losses."""
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()


def values(weights: Tree) -> Tree:
    """The weights of a player that is not being trained: no gradient is computed for them."""
    return jax.tree.map(Tensor.detach, weights)


def weight_normalised(x: Tensor, layer: Tree, scale: Tensor) -> Tensor:
    """x (B, F) -> (B, features), as in `layers.WeightNormDense`."""
    return x @ (layer["direction"] / layer["direction"].norm(dim=0)) * scale + layer["bias"]


def dense_generator(weights: Tree, running: Tree, latents: Tensor) -> Tensor:
    """latents (B, Z) -> pixels (B, F) in [0, 1], as in `mlp.Generator`."""
    x = latents
    for layer in range(len(running)):
        norm = running[f"BatchNorm_{layer}"]
        x = x @ weights[f"Dense_{layer}"]["kernel"]
        bias = weights[f"BatchNorm_{layer}"]["bias"]
        x = functional.softplus(functional.batch_norm(x, norm["mean"], norm["var"], None, bias, True, 0.1, 1e-6))
    last = weights["WeightNormDense_0"]
    return torch.sigmoid(weight_normalised(x, last, last["scale"]))


def dense_discriminator(
    weights: Tree, scales: Tree, deviations: tuple[float, float], x: Tensor
) -> tuple[Tensor, Tensor]:
    """pixels (B, F) in [0, 1] -> logits (B, K), features (B, F), as in `mlp.Discriminator`; noise: input, other."""
    for layer in range(len(scales)):
        name = f"WeightNormDense_{layer}"
        x = noisy(x, deviations[min(layer, 1)])
        x = weight_normalised(x, weights[name], scales[name]["scale"]).relu()
    last = weights[f"WeightNormDense_{len(scales)}"]
    return weight_normalised(noisy(x, deviations[1]), last, last["scale"]), x


def noisy(x: Tensor, deviation: float) -> Tensor:
    """x plus Gaussian noise."""
    return x + deviation * torch.randn_like(x) if deviation else x


def feature_matching(config: Config, state: State, wrap: Wrap = as_it_is) -> Step:
    """The twin of the method with dense networks, squared distance and a learning rate that falls at some time."""
    generator, running = parameters(state.generator.params), jax.tree.map(tensor, state.generator.stats["batch_stats"])
    discriminator, scales = parameters(state.discriminator.params), jax.tree.map(tensor, state.discriminator.stats)
    frozen = values(discriminator)  # of the same memory
    optimizers = adam(generator, config.learning_rate), adam(discriminator, config.learning_rate)
    mean = [weight.detach().clone() for weight in jax.tree.leaves(discriminator)]
    rate, done = 1 / max(config.averaging * config.steps, 1), 0
    decay = round(config.anneal * config.steps)  # updates, at the end

    def judge(weights: Tree, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return dense_discriminator(weights, scales["constants"], (config.input_noise, config.noise), pixels)

    def generate(latents: Tensor) -> Tensor:
        return dense_generator(generator, running, latents)

    def discriminate(known: Tensor, labels: Tensor, unknown: Tensor, fake: Tensor) -> Losses:
        log_z = [judge(discriminator, pixels)[0].logsumexp(-1) for pixels in (unknown, fake)]
        return {
            "discriminator/supervised": functional.cross_entropy(judge(discriminator, known)[0], labels),
            "discriminator/real": functional.softplus(-log_z[0]).mean() / 2,
            "discriminator/fake": functional.softplus(log_z[1]).mean() / 2,
        }

    def match(unknown: Tensor, fake: Tensor) -> Losses:
        with torch.no_grad():
            features = judge(discriminator, unknown)[1].mean(0)
        difference = features - judge(frozen, fake)[1].mean(0)
        return {"generator/matching": difference.square().mean()}

    generated, discriminated, matched = wrap(generate), wrap(discriminate), wrap(match)

    def step(batch: Batch, latents: Tensor | None = None) -> Losses:
        nonlocal done
        if latents is None:
            latents = torch.rand(len(batch.unlabelled), config.latent, device=DEVICE)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = config.learning_rate * min((config.steps - done) / decay, 1)
        known, unknown = ((torch.flatten(images, 1) + 1) / 2 for images in (batch.labelled, batch.unlabelled))
        fake = generated(latents)
        losses = discriminated(known, batch.labels, unknown, fake.detach())
        update(optimizers[1], losses)
        done += 1
        with torch.no_grad():
            for average, weight in zip(mean, jax.tree.leaves(discriminator), strict=True):
                average.lerp_(weight, rate / (1 - (1 - rate) ** done))
        matching = matched(unknown, fake)
        update(optimizers[0], matching)
        return losses | matching

    return step


def oihw(path: str, leaf: Tensor) -> Tensor:
    """Kernels (k, k, C, F) of convolutions as PyTorch has them; its transposed convolution sees the kernel flipped."""
    if leaf.ndim != 4:
        return leaf
    order, leaf = ((2, 3, 0, 1), leaf.flip(0, 1)) if "Transposed" in path else ((3, 2, 0, 1), leaf)
    return leaf.permute(order).contiguous(memory_format=torch.channels_last)


def convolved(convolution: Callable, x: Tensor, layer: Tree) -> Tensor:
    """x (B, H, W, C) -> (B, H', W', F) by a 4 x 4 convolution of stride 2."""
    return convolution(x.permute(0, 3, 1, 2), layer["kernel"], layer.get("bias"), 2, 1).permute(0, 2, 3, 1)


def beside(x: Tensor, maps: Tensor) -> Tensor:
    """x (B, ..., C), one-hot labels (B, K) -> (B, ..., C + K)."""
    maps = maps.reshape(len(maps), *(1,) * (x.ndim - 2), -1)
    return torch.cat([x, maps.expand(*x.shape[:-1], -1)], -1)


def normalised(x: Tensor, weights: Tree, running: Tree) -> Tensor:
    """Batch norm and ReLU of x (B, H, W, C)."""
    given = running["mean"], running["var"], weights["scale"], weights["bias"]
    return functional.batch_norm(x.permute(0, 3, 1, 2), *given, True, 0.1, 1e-5).permute(0, 2, 3, 1).relu()


def generator(weights: Tree, running: Tree, latents: Tensor, maps: Tensor) -> Tensor:
    """latents (B, Z), one-hot labels (B, K) -> images (B, H, W, C), as in `conv.Generator` of square images."""
    weights, running = weights["Decoder_0"], running["Decoder_0"]
    layers, norms = (
        [f"{name}_{i}" for i in range(len(running))] for name in ("TransposedConvolution", "ConditionalBatchNorm")
    )
    x = beside(latents, maps) @ weights["Dense_0"]["kernel"]
    channels = running[norms[0]]["BatchNorm_0"]["mean"].shape[0]
    side = round((x.shape[1] / channels) ** 0.5)
    x = x.reshape(-1, side, side, channels)
    for layer, norm in zip(layers, norms, strict=True):
        x = normalised(x, weights[norm]["BatchNorm_0"], running[norm]["BatchNorm_0"])
        x = convolved(functional.conv_transpose2d, beside(x, maps), weights[layer])
    return x.tanh()


def discriminator(weights: Tree, images: Tensor, maps: Tensor) -> Tensor:
    """images (B, H, W, C), one-hot labels (B, K) -> logits (B,), as in `conv.Discriminator`."""
    x = images
    for layer in range(len(weights) - 1):
        x = convolved(functional.conv2d, beside(x, maps), weights[f"Convolution_{layer}"])
        x = functional.leaky_relu(x, conv.SLOPE)
    last = weights["Dense_0"]
    return (beside(x.flatten(1), maps) @ last["kernel"] + last["bias"])[:, 0]


def conditional_gan(rate: float, classes: int, state: State, wrap: Wrap = as_it_is) -> Step:
    """The twin of `benchmarks.step.conditional_gan`."""
    g, d = parameters(state.generator.params, oihw), parameters(state.discriminator.params, oihw)
    running = jax.tree.map(tensor, state.generator.stats["batch_stats"])
    frozen = values(d)  # of the same memory
    optimizers = adam(g, rate), adam(d, rate)
    latent = g["Decoder_0"]["Dense_0"]["kernel"].shape[0] - classes

    def generate(latents: Tensor, maps: Tensor) -> Tensor:
        return generator(g, running, latents, maps)

    def discriminate(images: Tensor, fake: Tensor, maps: Tensor) -> Losses:
        logits = discriminator(d, torch.cat([images, fake]), maps.repeat(2, 1))
        return {
            "discriminator/real": functional.softplus(-logits[: len(images)]).mean(),
            "discriminator/fake": functional.softplus(logits[len(images) :]).mean(),
        }

    def deceive(fake: Tensor, maps: Tensor) -> Losses:
        return {"generator/adversarial": functional.softplus(-discriminator(frozen, fake, maps)).mean()}

    generated, discriminated, deceived = wrap(generate), wrap(discriminate), wrap(deceive)

    def step(batch: Batch, latents: Tensor | None = None) -> Losses:
        images, maps = batch.labelled, functional.one_hot(batch.labels, classes).float()
        latents = torch.randn(len(images), latent, device=DEVICE) if latents is None else latents
        fake = generated(latents, maps)
        losses = discriminated(images, fake.detach(), maps)
        update(optimizers[1], losses)
        adversarial = deceived(fake, maps)
        update(optimizers[0], adversarial)
        return losses | adversarial

    return step
