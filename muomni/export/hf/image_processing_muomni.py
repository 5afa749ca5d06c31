"""Pictures to what the vision encoder reads."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import ImageProcessingMixin

from muomni.media import _to_rgb, image_to_tensor, load_image


class MuOmniImageProcessor(ImageProcessingMixin):
    """Each picture upright in a square, proportions kept, white around it; values 0 to 1.

    Attributes:
        image_size: pixels on a side.
        image_positions: positions that a picture takes in the Thinker's sequence.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 224, image_positions: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size, self.image_positions = image_size, image_positions

    def __call__(self, images: Any, return_tensors: Any = "pt", **unused: Any) -> BatchFeature:
        """Pictures to ``pixel_values`` ``[N, 3, S, S]`` float32.

        Args:
            images: one or a list (of lists): files, their bytes, pictures of Pillow, or arrays ``[H, W, 3]`` uint8.
            return_tensors: as everywhere in transformers.
        """
        pixels = [image_to_tensor(self.picture(image), self.image_size) for image in flatten(images)]
        return BatchFeature({"pixel_values": torch.stack(pixels).numpy()}, tensor_type=return_tensors)

    preprocess = __call__

    def fetch_images(self, images: Any) -> list[Any]:
        """A flat list of pictures, files read."""
        return [self.picture(image) for image in flatten(images)]

    @staticmethod
    def picture(image: Any) -> Image.Image:
        """A picture upright in RGB, white where it is transparent."""
        if isinstance(image, Image.Image):
            return _to_rgb(ImageOps.exif_transpose(image))
        if isinstance(image, np.ndarray):
            return Image.fromarray(image).convert("RGB")
        return load_image(image)


def flatten(images: Any) -> list[Any]:
    """Lists of lists of pictures as one."""
    if not isinstance(images, list | tuple):
        return [images]
    return [image for inner in images for image in flatten(inner)]
