"""Every method by name; a method is a module with `Config`, `make(config, spec)` and `PAPER`."""

from ssl_gen.methods.adversarial import feature_matching, triple_gan
from ssl_gen.methods.classical import supervised

METHODS = {
    "supervised": supervised,
    "feature_matching": feature_matching,
    "triple_gan": triple_gan,
}


def family(name: str) -> str:
    """The sub-folder a method lives in: adversarial, variational, self_training, classical."""
    return METHODS[name].__name__.split(".")[-2]
