"""An imperceptible watermark in the pixels of pictures and videos.

It is a spread-spectrum watermark (Cox, Kilian, Leighton and Shamoon, *Secure spread spectrum
watermarking for multimedia*, 1997): a weak pseudorandom pattern, made from a secret, is added to
the luma. The pattern repeats as tiles (Kutter, *Watermarking resisting to translation, rotation and
scaling*, 1998), so that a part of a frame holds all of it, and it is stronger where texture hides
it. Part of it is fixed and shows where the tiles begin; the rest carries a convolutional code.
"""

from serve.provenance.watermark.detector import Detector as Detector
from serve.provenance.watermark.detector import Reading as Reading
from serve.provenance.watermark.detector import detect as detect
from serve.provenance.watermark.marker import Watermark as Watermark
from serve.provenance.watermark.pattern import PUBLISHED_SECRET as PUBLISHED_SECRET
from serve.provenance.watermark.payload import Payload as Payload
