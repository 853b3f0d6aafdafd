"""Flax linen modules and the operations below them: dense networks in `mlp`, convolutional ones in `conv`.

Both have the same doors: `Generator`, `Discriminator`, `Classifier`, `Encoder`, `Decoder`.
"""
