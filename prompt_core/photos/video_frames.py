"""The frames of a video, one after the other; one file is open and one frame in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.open_photo import as_photo
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible_path

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
_EVERY = re.compile(r"([0-9]{1,9})|([0-9]{1,6}(?:\.[0-9]{1,3})?)s")


@dataclass(frozen=True)
class Every:
    """Which frames of a video count.

    Attributes:
        frames: each of so many, beginning with the first.
        seconds: where above 0, one in so many seconds instead.
    """

    frames: int = 1
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Every:
        """``30`` for every 30th frame, ``2s`` for one in two seconds.

        Raises:
            UserError: for anything else.
        """
        match = _EVERY.fullmatch(text)
        if match is not None and match[1] and int(match[1]) > 0:
            return cls(int(match[1]))
        if match is not None and match[2] and float(match[2]) > 0:
            return cls(seconds=float(match[2]))
        raise UserError(
            f"every is {shortened(text)}; a number of frames such as 30, or of seconds such as 2s, is expected"
        )

    def step(self, rate: float) -> int:
        """Frames from one to the next, for a video of ``rate`` frames a second."""
        return max(1, round(self.seconds * rate)) if self.seconds else self.frames


class Video:
    """A video that is read forward; going back opens it again.

    Args:
        path: the file.

    Raises:
        UserError: without OpenCV, or for a file that it cannot read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture: Any = None
        self._next = 0  # the frame that comes next
        capture = self._opened()
        self.rate = float(capture.get(_cv2().CAP_PROP_FPS)) or 25.0
        # What the file claims, where that frame is the last; else as many as can be read, by another reader: one that
        # looked behind the end need not find back.
        self.count = _claimed_frames(capture) or _readable_frames(self._opened())
        if self.count == 0:
            raise UserError(f"video {visible_path(path)} has no frame that can be read")

    def read(self, index: int) -> np.ndarray:
        """Frame ``index``, from 0: (H, W, 3) uint8 in RGB, upright.

        Raises:
            UserError: when it cannot be decoded.
        """
        from PIL import Image

        if self._capture is None or self._next > index:
            self._close()
            self._capture, self._next = self._opened(), 0
        # Decoding all between is exact; jumping to a frame is not, with many codecs.
        while self._next < index and self._capture.grab():
            self._next += 1
        whole, pixels = self._capture.read()
        whole = whole and self._next == index
        self._next += 1
        if not whole:
            self._close()
            raise UserError(f"photo {visible_path(self.path)}#{index:06d} cannot be read: the frame cannot be decoded")
        if index == self.count - 1:
            self._close()
        return np.asarray(as_photo(Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))))

    def _opened(self) -> Any:
        capture = _cv2().VideoCapture(str(self.path))
        if not capture.isOpened():
            raise UserError(f"video {visible_path(self.path)} cannot be read; convert it to MP4 (H.264)")
        return capture

    def _close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    video: Video = field(repr=False)
    index: int

    @property
    def label(self) -> str:
        """``#000120``: its place, from 0."""
        return f"#{self.index:06d}"

    @property
    def stem(self) -> str:
        """The video's name and its place."""
        return f"{self.video.path.stem}_{self.index:06d}"

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 in RGB, upright; a :class:`UserError` where it cannot be decoded."""
        return self.video.read(self.index)


def video_frames(path: Path, every: Every) -> Iterator[Frame]:
    """The frames that count.

    Raises:
        UserError: without OpenCV, or for a file that it cannot read.
    """
    video = Video(path)
    for index in range(0, video.count, every.step(video.rate)):
        yield Frame(video, index)


def _claimed_frames(capture: Any) -> int:
    cv2 = _cv2()
    claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    is_last = claimed > 0 and capture.set(cv2.CAP_PROP_POS_FRAMES, claimed - 1) and capture.read()[0]
    return claimed if is_last and not capture.grab() else 0


def _readable_frames(capture: Any) -> int:
    frames = 0
    while capture.grab():
        frames += 1
    return frames


def _cv2() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise UserError("reading videos needs OpenCV; run: pip install opencv-python-headless") from error
    return cv2
