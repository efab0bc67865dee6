"""Paths of the demo's Wan models, which `python -m training` makes and the package ships."""

from dataclasses import dataclass
from pathlib import Path

from deployments.settings import Wan22Models, Wan26Models


@dataclass(frozen=True)
class DemoCheckpoints:
    """The Wan models in one folder, in the file formats of production."""

    folder: Path

    @property
    def vace(self) -> Path:
        """The VACE model for text- and image-to-video: a folder in diffusers' layout."""
        return self.folder / "wan2.1-vace"

    @property
    def a14b(self) -> Path:
        """What the two experts share: a folder in diffusers' layout without transformer weights."""
        return self.folder / "wan2.2-i2v"

    @property
    def high_noise(self) -> Path:
        """The high-noise expert, as GGUF."""
        return self.folder / "Wan2.2-I2V-HighNoise-Q8_0.gguf"

    @property
    def low_noise(self) -> Path:
        """The low-noise expert, as GGUF."""
        return self.folder / "Wan2.2-I2V-LowNoise-Q8_0.gguf"

    @property
    def vace_lora(self) -> Path:
        """The LoRA with which the VACE model needs 4 steps and no guidance."""
        return self.folder / "Wan2.1-VACE-4steps-lora.safetensors"

    @property
    def high_noise_lora(self) -> Path:
        """The 4-step LoRA for the high-noise expert."""
        return self.folder / "Wan2.2-I2V-4steps-lora-HighNoise.safetensors"

    @property
    def low_noise_lora(self) -> Path:
        """The 4-step LoRA for the low-noise expert."""
        return self.folder / "Wan2.2-I2V-4steps-lora-LowNoise.safetensors"

    @property
    def loras(self) -> Path:
        """The folder of styles for the VACE model, each a LoRA that a request may choose."""
        return self.folder / "loras"


def demo_checkpoints() -> DemoCheckpoints:
    """Return the checkpoints that the package ships."""
    return DemoCheckpoints(Path(__file__).parent / "models")


def wan26_models() -> Wan26Models:
    """Return the models of Wan26; one checkpoint and one LoRA serve text and images."""
    shipped = demo_checkpoints()
    return Wan26Models(
        text=str(shipped.vace),
        text_distilled=shipped.vace_lora,
        image_distilled=shipped.vace_lora,
        loras=str(shipped.loras),
        last_image=False,
    )


def wan22_models() -> Wan22Models:
    """Return the models of Wan22GGUF."""
    shipped = demo_checkpoints()
    return Wan22Models(
        folder=str(shipped.a14b),
        high_noise=shipped.high_noise,
        low_noise=shipped.low_noise,
        high_noise_distilled=shipped.high_noise_lora,
        low_noise_distilled=shipped.low_noise_lora,
        last_image=False,
    )
