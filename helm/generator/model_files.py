"""Values of the model files: the volume, the claim for it, and how the files get there."""

from typing import Literal

from pydantic import Field

from helm.generator.base import Name, Object, Quantity, Values


class Claim(Values):
    """A PersistentVolumeClaim that the chart creates. It is kept when the release is
    uninstalled."""

    create: bool = False
    """Whether to create the claim."""
    size: Quantity = "100Gi"
    """Size of the claim. All files listed in docs/models.md take about 80 GB."""
    storage_class_name: Name = ""
    """Storage class of the claim. If empty, the cluster's default is used."""
    access_modes: list[Literal["ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce"]] = ["ReadWriteMany"]
    """Access modes of the claim. `ReadWriteOnce` ties all GPU pods to one node."""


class Fetch(Values):
    """Job before the preflight job that downloads the model files. No GPU is requested while it
    runs."""

    image: str = ""
    """Image that runs the command. By default the service image, which includes `hf download`."""
    command: list[str] = []
    """Command that downloads the files to the volume at `models.path`. It should skip files that
    exist. If empty, nothing is fetched."""
    timeout_seconds: int = Field(default=5400, ge=10)
    """Seconds that the download may take, in addition to `preflight.timeoutSeconds`."""
    env: list[Object] = []
    """Environment variables of the container."""
    env_from: list[Object] = []
    """Sources of environment variables, for example a Secret with the credentials of an object
    store."""


class ModelFiles(Values):
    """Model files: where they are mounted and how they get there."""

    path: str = "/models"
    """Directory where the files are mounted read-only. The paths in `config.models` must start with
    it."""
    volume: Object = {}
    """Kubernetes volume source with the model files: a claim, NFS, a CSI driver that mounts a
    bucket, etc. If empty, `claim` is used."""
    claim: Claim = Claim()
    """PersistentVolumeClaim that the chart creates when `volume` is empty."""
    fetch: Fetch = Fetch()
    """Download of the model files, before an install or upgrade."""
    sha256: dict[str, str] = {}
    """SHA-256 checksums in hex, by file path relative to `path`. An install or upgrade fails if a
    file does not match."""
