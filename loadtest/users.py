"""The three kinds of users: creators, studios and apps."""

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from locust import between, task
from requests.exceptions import RequestException

from loadtest.caller import MEASURES, Caller, Failed, Refused
from loadtest.payloads import SWAPS, VIDEOS, body, film, swap_body
from serve.client import JobRecord
from serve.media.samples import PORTRAIT

User = TypeVar("User", bound=Caller)
LOOK_S = 2.0
"""Seconds for which a creator looks at a video."""


def errand(work: Callable[[User], Any]) -> Callable[[User], None]:
    """Make a task that ends where a call failed, and that stays away after a refusal."""

    @wraps(work)
    def run(user: User) -> None:
        try:
            work(user)
        except Refused as refusal:
            user.stay_away(refusal.seconds)
        except Failed:
            pass  # it was counted where it happened
        except RequestException as e:  # an answer that broke off
            MEASURES.add_error(f"{work.__name__}: {type(e).__name__}: {e}"[:300])

    return run


class Creator(Caller):
    """Makes a video and looks at it, then swaps a face into it."""

    weight = 2
    wait_time = between(1, 4)

    @task(3)
    @errand
    def text_to_video_then_swap(self) -> None:
        """Make a video from a prompt, and swap a face into it; it may show nobody."""
        video = self.plain("wan2.6", body("wan2.6", self.size), accept="video/mp4")
        time.sleep(LOOK_S)
        self.plain("batch-video-faceswap", swap_body(video.data, video.media_type), face_expected=False)

    @task(1)
    @errand
    def picture_to_video_with_face(self) -> None:
        """Make a video of a picture with another face in it, by one of the two models."""
        endpoint = random.choice(("wan2.6-i2v-faceswap", "wan22-i2v-faceswap"))
        self.plain(endpoint, body(endpoint, self.size))


class Studio(Caller):
    """Swaps a face into films, which it uploads as forms, and into single pictures."""

    weight = 1
    wait_time = between(2, 6)

    @task(2)
    @errand
    def film_swap(self) -> None:
        """Swap a face into a film."""
        files = {
            "source_video": ("film.mp4", film(self.size), "video/mp4"),
            "reference_image": ("face.jpg", PORTRAIT.read_bytes(), "image/jpeg"),
        }
        self.upload("batch-video-faceswap", files)

    @task(1)
    @errand
    def picture_swap(self) -> None:
        """Swap a face into a picture, to see whether it suits."""
        self.plain("image-faceswap", body("image-faceswap", self.size))


class App(Caller):
    """A program that makes jobs: it asks for them, listens to them, or cancels them."""

    weight = 2
    wait_time = between(0.5, 2)

    @task(2)
    @errand
    def ask(self) -> None:
        """Make a job and ask for its record until it has ended."""
        begun = time.perf_counter()
        job = self._job()
        self._finish(self.follow(job, self.poll(job), begun=begun), begun)

    @task(2)
    @errand
    def hear(self) -> None:
        """Make a job and listen to its events until it has ended."""
        begun = time.perf_counter()
        job = self._job()
        self._finish(self.follow(job, self.listen(job), begun=begun), begun)

    @task(1)
    @errand
    def change_mind(self) -> None:
        """Make a job and cancel it once its model works on it, or while it waits."""
        begun = time.perf_counter()
        job = self._job()
        if random.random() < 0.5:
            job = self.follow(job, self.poll(job), begun=begun, until_working=True)
        if not job.ended:
            job = self.cancel(job)
        if job.state == "failed":
            self.fail_job(job)

    def _job(self) -> JobRecord:
        endpoint = random.choice((*VIDEOS, *SWAPS))
        return self.submit(endpoint, body(endpoint, self.size))

    def _finish(self, record: JobRecord, begun: float) -> None:
        """Download the result of a job that has succeeded; count any other end as an error."""
        if record.state != "succeeded":
            self.fail_job(record)
        self.result(record, begun=begun)


USERS = (Creator, Studio, App)
"""Every kind of user."""
