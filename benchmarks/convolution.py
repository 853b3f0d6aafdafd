"""Convolution bodies on CPU: layers and a conditional DCGAN step, in a Python loop and folded by scan, beside PyTorch.

    python -m benchmarks.convolution [--torch]      one JSON line per comparison; milliseconds, less than a minute

All contenders of a line run interleaved in this process, so that a busy machine slows them alike: read the ratios. A
busy machine slows PyTorch's threads most of all: compare with it on an idle one, or on one core (`taskset -c 0`).
`--torch` needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_gen.networks.conv import Discriminator, Generator
from ssl_gen.networks.convolution import convolve, convolve_transposed
from ssl_gen.types import Array, Tree

BATCH, LATENT, CLASSES, SHAPE, WIDTH = 64, 128, 10, (28, 28, 1), 64
BODIES = ("native", "cpu")
FOLD = 2  # steps in one scan
REPEATS = 5
ENOUGH = 1.0  # seconds after which a contender is timed no more: native scans take that for a single call
LAYERS: dict[str, tuple[Any, ...]] = {  # name: (operation, input shape, kernel shape, stride)
    "convolution 14x14x74 -> 7x7x128": (convolve, (BATCH, 14, 14, 74), (4, 4, 74, 128), 2),
    "convolution 14x14x64 -> 14x14x64": (convolve, (BATCH, 14, 14, 64), (3, 3, 64, 64), 1),
    "transposed 7x7x138 -> 14x14x64": (convolve_transposed, (BATCH, 7, 7, 138), (4, 4, 138, 64), 2),
    "transposed 14x14x74 -> 28x28x1": (convolve_transposed, (BATCH, 14, 14, 74), (4, 4, 74, 1), 2),
}


def interleaved(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds a step of each contender of FOLD steps, called in turn, after one call of each to compile."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        jax.block_until_ready(call())
    for _ in range(REPEATS):
        for name, call in contenders.items():
            if sum(seconds[name]) > ENOUGH:
                continue
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: round(1e3 * statistics.median(times) / FOLD, 2) for name, times in seconds.items()}


def loops(step: Callable[[Tree], Tree], state: Tree) -> tuple[Callable[[], Tree], Callable[[], Tree]]:
    """FOLD steps as a Python loop over one compiled step, and the same folded into one program by scan."""
    single = jax.jit(step)

    def loop() -> Tree:
        new = state
        for _ in range(FOLD):
            new = single(new)
        return new

    folded = jax.jit(lambda state: jax.lax.scan(lambda state, _: (step(state), None), state, length=FOLD)[0])
    return loop, lambda: folded(state)


def layer(operation: Callable, body: str, stride: int) -> Callable[[Tree], Tree]:
    """A step that needs the output and both gradients of one layer."""

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        y, backward = jax.vjp(lambda x, kernel: operation(x, kernel, stride, body=body), *state)
        dx, dkernel = backward(y)
        return state[0] - 1e-6 * dx, state[1] - 1e-9 * dkernel

    return step


def gan(body: str) -> tuple[Callable[[Tree], Tree], Tree]:
    """A conditional DCGAN with label maps at every layer, trained on one batch of noise -> its step and first state."""
    generator, discriminator = Generator(SHAPE, CLASSES, WIDTH, body=body), Discriminator(1, CLASSES, WIDTH, body=body)
    optimizer = optax.adam(2e-4, b1=0.5)
    key = jax.random.key(0)
    images, latents = jax.random.normal(key, (BATCH, *SHAPE)), jax.random.normal(key, (BATCH, LATENT))
    labels = jnp.arange(BATCH) % CLASSES

    def sampled(params: Tree) -> Array:
        return generator.apply({"params": params}, latents, labels, True, mutable=["batch_stats"])[0]

    def step(state: tuple[Tree, Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree, Tree]:
        g, g_opt, d, d_opt = state

        def d_loss(d: Tree) -> Array:
            both = jnp.concatenate([images, sampled(g)])
            logits = discriminator.apply({"params": d}, both, jnp.tile(labels, 2), True)[0]
            return jax.nn.softplus(-logits[:BATCH]).mean() + jax.nn.softplus(logits[BATCH:]).mean()

        updates, d_opt = optimizer.update(jax.grad(d_loss)(d), d_opt)
        d = optax.apply_updates(d, updates)

        def g_loss(g: Tree) -> Array:
            return jax.nn.softplus(-discriminator.apply({"params": d}, sampled(g), labels, True)[0]).mean()

        updates, g_opt = optimizer.update(jax.grad(g_loss)(g), g_opt)
        return optax.apply_updates(g, updates), g_opt, d, d_opt

    g = jax.jit(lambda: generator.init(key, latents, labels, True))()["params"]
    d = jax.jit(lambda: discriminator.init(key, images, labels, True))()["params"]
    return step, (g, optimizer.init(g), d, optimizer.init(d))


def torch_gan() -> Callable[[], object]:
    """FOLD steps of the same networks, losses and optimiser in PyTorch: eager, float32, channels last."""
    import torch
    from torch import nn
    from torch.nn.functional import softplus

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first = SHAPE[0] // 4
    maps = torch.eye(CLASSES)[torch.arange(BATCH) % CLASSES]

    def beside(x: torch.Tensor) -> torch.Tensor:
        labels = maps.repeat(len(x) // BATCH, 1)[:, :, None, None]
        return torch.cat([x, labels.expand(-1, -1, *x.shape[2:])], 1)

    class Generating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(LATENT + CLASSES, first * first * 2 * WIDTH, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(2 * WIDTH), nn.BatchNorm2d(WIDTH)])
            self.inner = nn.ConvTranspose2d(2 * WIDTH + CLASSES, WIDTH, 4, 2, 1, bias=False)
            self.last = nn.ConvTranspose2d(WIDTH + CLASSES, SHAPE[2], 4, 2, 1)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            x = self.dense(torch.cat([latents, maps], 1)).reshape(BATCH, 2 * WIDTH, first, first)
            x = self.norms[0](x.contiguous(memory_format=torch.channels_last)).relu()
            return self.last(beside(self.norms[1](self.inner(beside(x))).relu())).tanh()

    class Discriminating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(SHAPE[2] + CLASSES, WIDTH, 4, 2, 1)
            self.second = nn.Conv2d(WIDTH + CLASSES, 2 * WIDTH, 4, 2, 1)
            self.dense = nn.Linear(first * first * 2 * WIDTH + CLASSES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.leaky_relu(self.first(beside(x)), 0.2)
            x = nn.functional.leaky_relu(self.second(beside(x)), 0.2)
            return self.dense(torch.cat([x.flatten(1), maps.repeat(len(x) // BATCH, 1)], 1))

    generator, discriminator = (net.to(memory_format=torch.channels_last) for net in (Generating(), Discriminating()))
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator)]
    images, latents = torch.randn(BATCH, SHAPE[2], *SHAPE[:2]), torch.randn(BATCH, LATENT)

    def loop() -> None:
        for _ in range(FOLD):
            optimizers[1].zero_grad()
            logits = discriminator(torch.cat([images, generator(latents).detach()]))
            (softplus(-logits[:BATCH]).mean() + softplus(logits[BATCH:]).mean()).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            discriminator.requires_grad_(False)
            softplus(-discriminator(generator(latents))).mean().backward()
            discriminator.requires_grad_(True)
            optimizers[0].step()

    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", action="store_true", help="time PyTorch's step too")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    for name, (operation, shape, kernel_shape, stride) in LAYERS.items():
        state = tuple(jnp.asarray(random.normal(size=sides), jnp.float32) for sides in (shape, kernel_shape))
        compare(name, {body: (layer(operation, body, stride), state) for body in BODIES})
    compare("conditional DCGAN step", {body: gan(body) for body in BODIES}, arguments.torch)


def compare(name: str, steps: dict[str, tuple[Callable[[Tree], Tree], Tree]], with_torch: bool = False) -> None:
    """Print one line: milliseconds a step of each body, in a loop and in scan, and the ratios a reader looks for."""
    contenders = {}
    for body, (step, state) in steps.items():
        contenders[f"{body}_loop"], contenders[f"{body}_scan"] = loops(step, state)
    if with_torch:
        contenders["torch_loop"] = torch_gan()
    times = interleaved(contenders)
    ratios = {f"{other}/cpu_loop": round(times[other] / times["cpu_loop"], 2) for other in times if other != "cpu_loop"}
    print(json.dumps({"name": name, "milliseconds": times, "ratios": ratios}), flush=True)


if __name__ == "__main__":
    main()
