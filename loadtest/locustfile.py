"""One Locust task per endpoint.

Every response is decoded, so that a fast but wrong one counts as a failure. To test any service:
``locust -f loadtest/locustfile.py --host URL``.
"""

from locust import HttpUser, between, tag, task

from serve.client import Answer, CallFailed, check_answer
from serve.http.examples import payload


class Caller(HttpUser):
    """A user who waits 0.5 to 2 seconds between calls, and calls the cheap endpoints more often."""

    wait_time = between(0.5, 2)

    def call(self, name: str) -> None:
        """POST the sample request of an endpoint and check the response."""
        with self.client.post(f"/{name}", json=payload(name), name=f"/{name}", catch_response=True) as response:
            if response.status_code == 503 and "Retry-After" in response.headers:
                response.success()  # the queue is full, which the service reports as it should
            elif response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text[:200]}")
            else:
                try:
                    check_answer(name, Answer(response.content, response.headers, 0.0))
                except CallFailed as e:
                    response.failure(str(e))

    @tag("video")
    @task(1)
    def text_to_video(self) -> None:
        """Call /wan2.6."""
        self.call("wan2.6")

    @tag("video")
    @task(1)
    def image_to_video(self) -> None:
        """Call /wan2.6-i2v."""
        self.call("wan2.6-i2v")

    @tag("video", "swap")
    @task(1)
    def image_to_video_with_face(self) -> None:
        """Call /wan2.6-i2v-faceswap."""
        self.call("wan2.6-i2v-faceswap")

    @tag("video")
    @task(1)
    def wan22_image_to_video(self) -> None:
        """Call /wan22-i2v."""
        self.call("wan22-i2v")

    @tag("video", "swap")
    @task(1)
    def wan22_image_to_video_with_face(self) -> None:
        """Call /wan22-i2v-faceswap."""
        self.call("wan22-i2v-faceswap")

    @tag("swap")
    @task(5)
    def image_faceswap(self) -> None:
        """Call /image-faceswap."""
        self.call("image-faceswap")

    @tag("swap")
    @task(3)
    def video_faceswap(self) -> None:
        """Call /batch-video-faceswap."""
        self.call("batch-video-faceswap")
