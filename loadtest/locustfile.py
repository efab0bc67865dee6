"""One task an endpoint, with the payloads of the tests. Every answer is decoded: a fast wrong answer is a failure.

Against a service of yours: ``locust -f loadtest/locustfile.py --host URL``.
"""

from locust import HttpUser, between, tag, task

from serve.client import Answer, CallFailed, check
from serve.samples import payload


class Caller(HttpUser):
    """Waits a second or two between calls, as a person would; the cheap endpoints are called more often."""

    wait_time = between(0.5, 2)

    def call(self, name: str) -> None:
        """POSTs the sample of an endpoint and checks what comes."""
        with self.client.post(f"/{name}", json=payload(name), name=f"/{name}", catch_response=True) as response:
            if response.status_code == 503 and "Retry-After" in response.headers:
                response.success()  # an honest refusal: the queue is full
            elif response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text[:200]}")
            else:
                try:
                    check(name, Answer(response.content, response.headers, 0.0))
                except CallFailed as e:
                    response.failure(str(e))

    @tag("video")
    @task(1)
    def text_to_video(self) -> None:
        """/wan2.6"""
        self.call("wan2.6")

    @tag("video")
    @task(1)
    def image_to_video(self) -> None:
        """/wan2.6-i2v"""
        self.call("wan2.6-i2v")

    @tag("video", "swap")
    @task(1)
    def image_to_video_with_face(self) -> None:
        """/wan2.6-i2v-faceswap"""
        self.call("wan2.6-i2v-faceswap")

    @tag("video")
    @task(1)
    def a14b(self) -> None:
        """/wan22-i2v"""
        self.call("wan22-i2v")

    @tag("video", "swap")
    @task(1)
    def a14b_with_face(self) -> None:
        """/wan22-i2v-faceswap"""
        self.call("wan22-i2v-faceswap")

    @tag("swap")
    @task(5)
    def image_faceswap(self) -> None:
        """/image-faceswap"""
        self.call("image-faceswap")

    @tag("swap")
    @task(3)
    def video_faceswap(self) -> None:
        """/batch-video-faceswap"""
        self.call("batch-video-faceswap")
