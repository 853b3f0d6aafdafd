"""What a run is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ssl_gen.core.precision import Asked
from ssl_gen.datasets import masking
from ssl_gen.datasets.store import Asked as Streaming
from ssl_gen.training.replicas import Mode
from ssl_gen.types import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run is trained on, with how many labels and seeds, and where it goes."""

    dataset: str = "digits"  # a name of `ssl-gen list datasets`, folder:PATH or npz:PATH
    labels: str = "100"  # visible labels in all, or "all"
    seeds: int = 1  # runs, with seeds 0 to S-1, each with its own mask unless --mask.seed gives all the same
    first_seed: int = 0  # with N the seeds are N to N+S-1: what a run of more seeds trains there, alone
    out: Path | None = None  # run folder; by default runs/METHOD-DATASET-LABELS
    data_dir: Path | None = None  # where raw or prepared data lie
    size: int | None = None  # pixels; resize every image to size x size
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them
    keep_copies: bool = False  # of a folder or npz: train also on images that equal a test or validation image
    validation: int = 0  # training images held out for choosing settings; their labels come on top of --labels
    out_of_distribution_dataset: str | None = None  # images of no class, for --mask.out-of-distribution and auroc
    # what samples are compared by: pixels, random, trained (by train-features), a weights file, efficientnet_lite0
    # (extra pretrained), mobilenet_v2, hf:OWNER/NAME; auto is trained where there is such a net, else random
    features: str = "auto"
    samples: int | None = None  # drawn for the metrics; by default as many as test images, 1,000 to 10,000
    mask: masking.Scheme = masking.Scheme()  # how labels are chosen
    # the folder of a run whose labels, seed by seed, --mask.kind suggested goes on from: the images that it is least
    # sure of are labelled next, up to --labels in all, as `ssl-gen suggest` would ask
    suggested_by: str | None = None
    missing_pixels: float = 0.0  # share lost of every image, tests too; the pixel's mean over training stands in
    # what a method that is fitted in one go sees instead of pixels: the latents of a run (its folder), or features:
    # random, a weights file, efficientnet_lite0 (extra pretrained), mobilenet_v2, hf:OWNER/NAME
    encoder: str | None = None
    encoder_size: int | None = None  # pixels that images are brought to for a pretrained encoder; by default its own
    # the folder of a run that guesses the hidden labels, for methods that learn guesses: of the same images and labels,
    # at any --size
    labeller: str | None = None
    guesses: Literal["favourite", "drawn"] = "favourite"  # of its probabilities: the likeliest class, or one by chance
    confident: float = 0.0  # least probability of its likeliest class; a guess below it counts as none
    replicas: Mode = "auto"  # where the seeds train: one after the other, stacked, or spread over devices
    data_parallel: int = 1  # devices that share each batch
    # each of them also holds a part of the weights, of the optimiser's state and of averages, not a copy of all (FSDP):
    # less memory, more between the devices
    shard_params: bool = False
    # less memory in training, for a second forward pass: parts in which each network sees a batch, one after the other,
    # to the same gradient; not with batch norm. Noise inside a network is of each part
    accumulate: int = 1
    remat: bool = False  # likewise: blocks of a network are computed again on the way back; the numbers are the same
    # where the training images are: on every device, or in memory or on disk, from where each step's are read ahead.
    # auto: streamed where they would take more than half of a device's free memory. The numbers are the same
    store: Streaming = "auto"
    # of convolutions and matrix products in training and after it; all else is float32. auto: bfloat16 on accelerators
    # that have it, else float32
    precision: Asked = "auto"
    # train together with other processes, started by the same command: jax finds those of Slurm, Open MPI, Kubernetes
    # and TPU pods; elsewhere set JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES, JAX_PROCESS_ID
    distributed: bool = False
    log_every: int | None = None  # steps; by default about 200 lines, at most 100 steps apart
    # what is measured or drawn while training goes on, NAME or NAME:STEPS: error, samples (a picture), or a metric's
    # name, on few samples or images; by default at five moments, the error at 25; nothing is selected by it
    evaluators: tuple[str, ...] = ("error", "samples")
    evaluate_every: int | None = None  # steps between measurements of the error; by default 25 of them
    checkpoint_every: int | None = None  # steps; by default 10 checkpoints
    tensorboard: bool = False  # also write event files; the same as --track tensorboard
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()  # programs that also get the log, where installed
    quiet: bool = False  # no progress bar


def budget(labels: str) -> int | None:
    """--labels as a number, None for all. Raises UserError."""
    if labels == "all":
        return None
    if not labels.isdecimal():
        raise UserError(f'--labels is a number of visible labels or "all", not {labels!r}')
    return int(labels)
