"""Every method by name; a method is a module with `Config`, `make(config, spec)` and `PAPER`."""

from ssl_gen.methods.adversarial import bad_gan, conditional_gan, feature_matching, gan, r3gan, s3gan, sgan, triple_gan
from ssl_gen.methods.classical import (
    gaussian_mixture,
    k_means,
    label_propagation,
    label_spreading,
    linear,
    mlp,
    pca,
    poisson_learning,
    poisson_mbo,
    supervised,
)
from ssl_gen.methods.diffusion import dual_pseudo_training, edm, flow_matching, mean_flow
from ssl_gen.methods.self_training import (
    ada_match,
    fixmatch,
    flex_match,
    free_match,
    gan_self_training,
    mean_teacher,
    meta_pseudo_labels,
    mix_match,
    noisy_student,
    pi_model,
    pseudo_label,
    re_mix_match,
    soft_match,
    temporal_ensembling,
    uda,
    vat,
)
from ssl_gen.methods.variational import (
    adgm,
    adversarial_autoencoder,
    autoencoder,
    ladder,
    m1,
    m2,
    sdgm,
    stacked_m1_m2,
    vae,
    vae_gan,
)

METHODS = {
    "supervised": supervised,
    "linear": linear,
    "mlp": mlp,
    "k_means": k_means,
    "gaussian_mixture": gaussian_mixture,
    "pca": pca,
    "label_propagation": label_propagation,
    "label_spreading": label_spreading,
    "poisson_learning": poisson_learning,
    "poisson_mbo": poisson_mbo,
    "gan": gan,
    "conditional_gan": conditional_gan,
    "sgan": sgan,
    "feature_matching": feature_matching,
    "bad_gan": bad_gan,
    "triple_gan": triple_gan,
    "s3gan": s3gan,
    "r3gan": r3gan,
    "vae": vae,
    "m1": m1,
    "m2": m2,
    "stacked_m1_m2": stacked_m1_m2,
    "sdgm": sdgm,
    "adgm": adgm,
    "autoencoder": autoencoder,
    "adversarial_autoencoder": adversarial_autoencoder,
    "vae_gan": vae_gan,
    "ladder": ladder,
    "pseudo_label": pseudo_label,
    "pi_model": pi_model,
    "temporal_ensembling": temporal_ensembling,
    "mean_teacher": mean_teacher,
    "vat": vat,
    "mix_match": mix_match,
    "re_mix_match": re_mix_match,
    "uda": uda,
    "fixmatch": fixmatch,
    "flex_match": flex_match,
    "free_match": free_match,
    "soft_match": soft_match,
    "ada_match": ada_match,
    "noisy_student": noisy_student,
    "meta_pseudo_labels": meta_pseudo_labels,
    "gan_self_training": gan_self_training,
    "flow_matching": flow_matching,
    "edm": edm,
    "mean_flow": mean_flow,
    "dual_pseudo_training": dual_pseudo_training,
}


def family(name: str) -> str:
    """The sub-folder a method lives in: adversarial, variational, self_training, classical, diffusion.

    Of a method outside the package that of its module, or the module's own name where it lies in none.
    """
    return METHODS[name].__name__.split(".")[-2:][0]
