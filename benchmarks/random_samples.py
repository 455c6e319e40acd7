"""Random samples for networks with random weights, alike enough to real ones that their outputs differ.

White noise will not do: averaged over an image it is the same for every image, so every output would be, and a file
that returns a constant would look faithful. Natural images have amplitudes that fall with 1 / frequency (D. Field,
Relations between the statistics of natural images, 1987), colours that go together, and their own light and contrast.
"""

import numpy as np

SIDE, COLOURS = 224, 3
# BERT-base: positions of a call, and token ids.
LENGTH, VOCABULARY = 128, 30522


def images(count: int, seed: int) -> np.ndarray:
    """`(count, 3, 224, 224)` float32, normalized as pictures are fed to networks: about mean 0, deviation 1."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / SIDE)
    fall[0, 0] = 0
    made = np.empty((count, COLOURS, SIDE, SIDE), np.float32)
    for number in range(count):
        noise = generator.standard_normal((COLOURS + 1, SIDE, SIDE))
        smooth = np.fft.irfft2(np.fft.rfft2(noise) * fall, s=(SIDE, SIDE))
        smooth /= smooth.std(axis=(1, 2), keepdims=True)
        contrast, light = generator.uniform(0.4, 1.2), generator.normal(0, 0.4, (1, 1, 1))
        # The last of the four is the light that all colours share.
        made[number] = contrast * (0.9 * smooth[-1:] + 0.4 * smooth[:-1]) + light
    return made


def tokens(count: int, seed: int) -> dict[str, np.ndarray]:
    """What a BERT takes: three arrays `(count, 128)` int64, every position used."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(VOCABULARY, size=(count, LENGTH))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
