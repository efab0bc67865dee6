"""A script that runs in a pod and calls the service until it is told to stop.

    callers.py URL SECONDS SWAPS_PER_SECOND SWAP_AS_JSON VIDEOS_AS_JSON

It sends the same face swap at a fixed rate and, beside it, one video after the other, in turn those
of the list VIDEOS ([path, body] each). It prints a JSON object when a call begins and another when
it ends, and stops after SECONDS. Times are seconds of the system's clock.
"""

import hashlib
import json
import os
import sys
import threading
import time
from itertools import cycle
from typing import Any

import httpx

url, seconds, rate, swap, videos = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5])
headers = {"content-type": "application/json"}
if key := os.environ.get("RYLA_API_KEY"):
    headers["authorization"] = f"Bearer {key}"
lock = threading.Lock()
end = time.monotonic() + seconds


def say(**entry: Any) -> None:
    with lock:
        print(json.dumps(entry), flush=True)


def call(path: str, body: str) -> None:
    begun, attempts, detail = time.time(), "1", ""
    say(path=path, begun=begun)
    try:
        # A new connection each time, like those of a load balancer.
        with httpx.Client(timeout=600) as client:
            response = client.post(f"{url}{path}", content=body, headers=headers)
        status, attempts = response.status_code, response.headers.get("x-attempts", "1")
        answer = hashlib.sha256(response.content).hexdigest()
        if status != 200:
            detail = response.text[:300]
    except httpx.HTTPError as e:
        status, answer, detail = 0, "", f"{type(e).__name__}: {e}"
    ended = time.time()
    say(path=path, begun=begun, ended=ended, status=status, answer=answer, attempts=attempts, detail=detail)


def call_videos() -> None:
    for path, body in cycle(videos):
        if time.monotonic() > end:
            return
        call(path, json.dumps(body))


threads = [threading.Thread(target=call_videos)]
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
