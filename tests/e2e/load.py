"""A script that runs in a pod and sends the same POST request at a fixed rate.

    load.py URL REQUESTS_PER_SECOND SECONDS BODY_AS_JSON

The last line that it prints is a JSON object with the outcomes.
"""

import json
import os
import sys
import threading
import time
from collections import Counter

import httpx

url, rate, seconds, body = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
headers = {"content-type": "application/json"}
if key := os.environ.get("RYLA_API_KEY"):
    headers["authorization"] = f"Bearer {key}"
outcomes: Counter[str] = Counter()
attempts: set[str] = set()
examples: dict[str, str] = {}
slowest = 0.0
lock = threading.Lock()


def call(number: int) -> None:
    global slowest
    start = time.monotonic()
    try:
        # A new connection each time, like those of a load balancer.
        with httpx.Client(timeout=600) as client:
            response = client.post(url, content=body, headers=headers)
        attempts.add(response.headers.get("x-attempts", "1"))
        outcome, text = str(response.status_code), response.text[:200] if response.status_code != 200 else ""
    except httpx.HTTPError as e:
        outcome, text = type(e).__name__, str(e)
    with lock:
        outcomes[outcome] += 1
        examples.setdefault(outcome, f"request {number}, {time.strftime('%X')}: {text}")
        slowest = max(slowest, time.monotonic() - start)


threads = []
begin = time.monotonic()
number = 0
while (now := time.monotonic() - begin) < seconds:
    if number <= now * rate:
        threads.append(threading.Thread(target=call, args=(number,)))
        threads[-1].start()
        number += 1
    else:
        time.sleep(0.01)
for thread in threads:
    thread.join()
failed = sum(count for outcome, count in outcomes.items() if outcome != "200")
examples.pop("200", None)
result = {"requests": number, "failed": failed, "outcomes": outcomes, "attempts": sorted(attempts), "examples": examples}
print(json.dumps({**result, "slowest_s": round(slowest, 1)}))
