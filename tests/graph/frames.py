"""Reads the faces and frames of answers."""

import io

import av
import numpy as np

from deployments.faces.analysis import OpenCVAnalyser
from deployments.wire import Face, Image


def face_of(analyser: OpenCVAnalyser, image: Image) -> Face:
    """Return the largest face in ``image``."""
    (faces,) = analyser.faces([image])
    assert faces, "no face in the image"
    return faces[0]


def face_at(analyser: OpenCVAnalyser, image: Image, place: Face) -> Face:
    """Return the face in ``image`` that is nearest to where ``place`` is in another image."""
    (faces,) = analyser.faces([image])
    assert faces, "no face in the image"
    return min(faces, key=lambda face: float(np.abs(face.box - place.box).sum()))


def frames_of(data: bytes) -> list[Image]:
    """Return the frames of an MP4 file."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
