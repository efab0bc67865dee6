"""Where the demo's Wan models lie: trained by `python -m demo.train`, shipped beside this file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoCheckpoints:
    """The models of one folder, in the formats of production."""

    folder: Path

    @property
    def vace(self) -> Path:
        """Text and image to video (VACE), diffusers folder."""
        return self.folder / "wan2.1-vace"

    @property
    def a14b(self) -> Path:
        """Two experts: the diffusers folder without transformer weights."""
        return self.folder / "wan2.2-i2v"

    @property
    def high_noise(self) -> Path:
        """GGUF of the high-noise expert."""
        return self.folder / "Wan2.2-I2V-HighNoise-Q8_0.gguf"

    @property
    def low_noise(self) -> Path:
        """GGUF of the low-noise expert."""
        return self.folder / "Wan2.2-I2V-LowNoise-Q8_0.gguf"

    @property
    def vace_lora(self) -> Path:
        """LoRA of the VACE model, for 4 steps without guidance."""
        return self.folder / "Wan2.1-VACE-4steps-lora.safetensors"

    @property
    def high_noise_lora(self) -> Path:
        """The same for the high-noise expert."""
        return self.folder / "Wan2.2-I2V-4steps-lora-HighNoise.safetensors"

    @property
    def low_noise_lora(self) -> Path:
        """The same for the low-noise expert."""
        return self.folder / "Wan2.2-I2V-4steps-lora-LowNoise.safetensors"


def demo_checkpoints() -> DemoCheckpoints:
    """The shipped models."""
    return DemoCheckpoints(Path(__file__).parent / "models")
