"""A script that runs in a pod and calls the service until it is told to stop.

    callers.py URL SECONDS SWAPS_PER_SECOND SWAP_AS_JSON VIDEOS_AS_JSON

It sends the same face swap at a fixed rate. Beside it, it has one video after the other made twice,
in turn those of the list VIDEOS ([path, body] each): by a plain call, and by a job of the service's
own client. As a model makes one video at a time, the other one waits. It prints a JSON object when
a call or a job begins and another when it ends, and stops after SECONDS. Times are seconds of the
system's clock. An answer is told by its pixels, because each file has a signature of its own.
"""

import hashlib
import io
import json
import os
import sys
import threading
import time
from itertools import cycle
from typing import Any

import av
import httpx
import PIL.Image
import PIL.ImageSequence

from serve.client import CallFailed, Client

url, seconds, rate, swap, videos = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5])
headers = {"content-type": "application/json"}
key = os.environ.get("RYLA_API_KEY")
if key:
    headers["authorization"] = f"Bearer {key}"
lock = threading.Lock()
end = time.monotonic() + seconds


def say(**entry: Any) -> None:
    with lock:
        print(json.dumps(entry), flush=True)


def pixels(data: bytes) -> str:
    """Return a digest of every frame of an image or a video."""
    digest = hashlib.sha256()
    if data[4:8] == b"ftyp":
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            for frame in container.decode(video=0):
                digest.update(frame.to_ndarray(format="rgb24").tobytes())
    else:
        for image in PIL.ImageSequence.Iterator(PIL.Image.open(io.BytesIO(data))):
            digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def call(path: str, body: str) -> None:
    begun, attempts, detail = time.time(), "1", ""
    say(path=path, begun=begun)
    try:
        # A new connection each time, like those of a load balancer.
        with httpx.Client(timeout=600) as client:
            response = client.post(f"{url}{path}", content=body, headers=headers)
        status, attempts = response.status_code, response.headers.get("x-attempts", "1")
        answer = pixels(response.content) if status == 200 else ""
        if status != 200:
            detail = response.text[:300]
    except httpx.HTTPError as e:
        status, answer, detail = 0, "", f"{type(e).__name__}: {e}"
    ended = time.time()
    say(path=path, begun=begun, ended=ended, status=status, answer=answer, attempts=attempts, detail=detail)


def make_job(client: Client, path: str, body: str) -> None:
    """Make a job, which a lost connection or replica must not end."""
    begun, attempts, name = time.time(), "1", f"job of {path}"
    say(path=name, begun=begun)
    try:
        result = client.submit(path, json.loads(body)).result()
        attempts = result.headers.get("x-attempts", "1")
        status, answer, detail = 200, pixels(result.data), ""
    except CallFailed as e:
        status, answer, detail = e.status or 0, "", str(e)[:300]
    say(path=name, begun=begun, ended=time.time(), status=status, answer=answer, attempts=attempts, detail=detail)


def make_videos() -> None:
    with Client(url, key=key) as client:
        for path, fields in cycle(videos):
            if time.monotonic() > end:
                return
            body = json.dumps(fields)
            job = threading.Thread(target=make_job, args=(client, path, body))
            job.start()
            call(path, body)
            job.join()


threads = [threading.Thread(target=make_videos)]
threads[0].start()
start = time.monotonic()
number = 0
while (now := time.monotonic()) < end:
    if number <= (now - start) * rate:
        threads.append(threading.Thread(target=call, args=("/image-faceswap", swap)))
        threads[-1].start()
        number += 1
    else:
        time.sleep(0.01)
for thread in threads:
    thread.join()
