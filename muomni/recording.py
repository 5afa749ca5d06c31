"""A recording made like those that the model learned from.

Those have 0.06 s of silence around what is said, and one loudness. The audio encoder has heard nothing else: softer
speech, or half a second of silence before it, it mistakes for other words.
"""

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

MARGIN = 0.06  # seconds of silence that stay before and after what is said
QUIET = 0.003  # of the peak: -50 dB, below the softest consonants
PEAK = 0.9
ABOVE_NOISE = 2.5  # times the noise, that is the softest tenth of the recording, is speech: 8 dB
MOST_GAIN = 100.0  # 40 dB; what has to be made louder still is no speech


def as_learned(sound: Samples, rate: int) -> Samples:
    """Cut the silence around speech to `MARGIN` and bring its peak to `PEAK`.

    Args:
        sound: ``[n]`` float32 in [-1, 1], not empty.
        rate: samples a second.

    Returns:
        float32 ``[m]``, m <= n; all of it where nothing stands out.
    """
    window = rate // 100
    blocks = np.pad(sound, (0, -len(sound) % window)).reshape(-1, window)  # [blocks, window]: 10 ms each
    energy = np.sqrt((blocks**2).mean(1))
    peak = float(np.abs(sound).max())
    loud = np.flatnonzero(energy > max(QUIET * peak, ABOVE_NOISE * float(np.percentile(energy, 10))))
    if len(loud):
        margin = int(MARGIN * rate)
        sound = sound[max(0, int(loud[0]) * window - margin) : (int(loud[-1]) + 1) * window + margin]
    return (sound * min(PEAK / peak, MOST_GAIN)).astype(np.float32) if peak else sound
