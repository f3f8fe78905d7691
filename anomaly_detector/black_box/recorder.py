"""The black box: takes frames from the caller, encodes and writes them in its own thread."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anomaly_detector.black_box.events import SAMPLE, SAVED
from anomaly_detector.black_box.frames import BlackBoxFrame, Phase, StoredFrame, encode_frame
from anomaly_detector.black_box.selection import (
    CloseEvent,
    Command,
    EventSelection,
    Forget,
    OpenEvent,
    Sample,
    Save,
    Take,
)
from anomaly_detector.black_box.settings import BlackBoxSettings
from anomaly_detector.black_box.store import EventStore
from anomaly_detector.black_box.writing import WRITERS, EventWriter, prepare_format
from anomaly_detector.errors import AnomalyDetectorError, as_one_line

_MAX_WAITING = 32
"""Pictures that wait to be encoded."""

_MAX_COMMANDS = 10_000
"""Commands that wait; only an alarm that flickers before a disk that hangs gets there."""

_MAX_NAMES = 10_000
"""Alarms whose events are known, for those that repeat them."""

_IDLE_MARGIN_S = 2.0
"""When no frame comes for this much longer than the time after an alarm, its event is closed."""

_CHECK_S = 0.25
"""How often that is looked at while an event is open."""

# What index, scores and event.json take beside the pictures.
_BYTES_PER_EVENT = 16_384
_BYTES_PER_FRAME = 1_024


@dataclass
class BlackBoxStatistics:
    """Counts since the black box was made.

    Attributes:
        events_written: events, and further parts of long ones, that are complete on the disk.
        events_dropped: those that could not be written.
        events_removed: others removed to keep the size.
        events_lost: of these, that nobody had looked at; samples do not count.
        events_not_kept: of these, that were to be kept: nothing else was left.
        samples_written: normal frames that are complete on the disk.
        frames_recorded: frames in the events written.
        frames_dropped: frames that were due but not recorded: too many waiting, no picture,
            an event that could not be written or outgrew ``max_megabytes``.
        frames_waiting: frames that were taken and not yet encoded.
        bytes_on_disk: size of all events in the folder.
        is_recording: an event is open.
        is_failing: the newest event could not be written, or the folder cannot be used.
        last_error: what went wrong last, in one line; empty when nothing did.
    """

    events_written: int = 0
    events_dropped: int = 0
    events_removed: int = 0
    events_lost: int = 0
    events_not_kept: int = 0
    samples_written: int = 0
    frames_recorded: int = 0
    frames_dropped: int = 0
    frames_waiting: int = 0
    bytes_on_disk: int = 0
    is_recording: bool = False
    is_failing: bool = False
    last_error: str = ""


class BlackBox:
    """Records the frames around every alarm.

    The frames of the seconds before lie encoded in memory. With the alarm they go to the disk,
    and so do the frames during it and shortly after. What cannot be written is counted and
    named in :attr:`statistics`; it never disturbs the caller, and the next event is tried anew.

    Args:
        settings: what to record and where.
        model: name of the model, for ``event.json``; ``model`` may be set anew at any time.
        topic: of the images in a bag.
        is_live: False for frames of a recording. Everything is then done before :meth:`add`
            returns, what goes wrong is raised, and events begin at the time of their frames.

    Raises:
        AnomalyDetectorError: no folder is given, or mcap is asked for without ``rosbags``.
    """

    def __init__(
        self,
        settings: BlackBoxSettings,
        *,
        model: str = "",
        topic: str = "/image/compressed",
        is_live: bool = True,
    ) -> None:
        self._store = EventStore(settings.path, round(settings.max_megabytes * 1e6))
        prepare_format(settings.format)
        self.settings = settings
        self.model = model
        self._topic = topic
        self._memory = round(settings.memory_megabytes * 1e6)
        # Of the caller, under the lock.
        self._lock = threading.Lock()
        self._selection = EventSelection(settings)
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._sent = self._sent_bytes = 0
        self._add_errors = 0
        self._last_add = time.monotonic()
        self._closed = False
        # Of the thread, as is the store.
        self._received = self._received_bytes = 0
        self._ring: deque[StoredFrame] = deque()
        self._ring_bytes = 0
        self._event: EventWriter | None = None
        # The event of each alarm, by the alarm's number.
        self._names: dict[int, str] = {}
        self._counts = BlackBoxStatistics()
        self._is_live = is_live
        self._thread = threading.Thread(target=self._run, name="black box", daemon=True)
        if is_live:
            self._thread.start()
        else:
            self._store.open()

    def __enter__(self) -> BlackBox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, frame: BlackBoxFrame) -> None:
        """Show the black box a scored frame; it takes what it needs.

        When live, it never waits and never raises. Most frames cost a few comparisons, those that
        are due (at ``max_rate_hz``) and new peaks of an event a copy of their picture.
        """
        if not self._is_live:
            self._send(self._selection.add(frame))
            return
        try:
            with self._lock:
                if self._closed:
                    return
                self._last_add = time.monotonic()
                if self._commands.qsize() >= _MAX_COMMANDS:
                    raise AnomalyDetectorError("the disk hangs")
                self._send(self._selection.add(frame, self._has_room(frame)))
        except Exception as error:
            self._add_errors += 1
            self._counts.last_error = as_one_line(f"frame not recorded: {error}")

    def save(self) -> tuple[bool, str]:
        """Record the frames of the last seconds as an event of kind ``saved``.

        Frames of an open event go into that anyhow. The frames stay in memory, for an alarm that
        follows. Live, this does not wait for the disk.

        Returns:
            Whether they are recorded, and that in words.
        """
        with self._lock:
            if self._selection.is_recording:
                return True, "nothing to do: the event of an alarm is being recorded"
            command = None if self._closed else self._selection.save()
            if command is None:
                return False, "nothing saved: no frame was taken since the last event"
            self._send([command])
        seconds = self.settings.seconds_before
        return True, f"saving the last {seconds:g} s as an event in {self._store.folder}"

    def _has_room(self, frame: BlackBoxFrame) -> bool:
        waiting = self._sent - self._received
        waiting_bytes = self._sent_bytes - self._received_bytes
        # One frame always may wait, however large.
        return waiting < _MAX_WAITING and (
            waiting == 0 or waiting_bytes + frame.picture_bytes <= self._memory
        )

    def _send(self, commands: list[Command]) -> None:
        for command in commands:
            if not self._is_live:
                self._execute(command)
                continue
            if isinstance(command, Take | Sample):
                self._sent += 1
                self._sent_bytes += command.frame.picture_bytes
            self._commands.put(command)

    @property
    def statistics(self) -> BlackBoxStatistics:
        """What was done so far."""
        return replace(
            self._counts,
            events_removed=self._store.removed,
            events_lost=self._store.removed_unreviewed,
            events_not_kept=self._store.removed_kept,
            frames_dropped=self._counts.frames_dropped + self._selection.refused + self._add_errors,
            frames_waiting=self._sent - self._received,
            bytes_on_disk=self._store.bytes_on_disk,
            is_recording=self._selection.is_recording,
        )

    def close(self, timeout: float = 5.0) -> bool:
        """Finish an open event and end the thread; frames added later are left aside.

        Args:
            timeout: how long to wait for the disk, seconds.

        Returns:
            Whether everything was written in time. What was not is lost, and cleared up by the
            next black box in the folder.
        """
        if not self._is_live:
            self._send(self._selection.finish())
            self._store.close()
            return True
        with self._lock:
            if not self._closed:
                self._closed = True
                self._send(self._selection.finish())
                self._commands.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._counts.last_error = (
                f"black box {self._store.folder} did not finish within {timeout:g} s: "
                "the disk is too slow or hangs"
            )
            return False
        return True

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._store.open()
        except Exception as error:
            self._fail(error)
        idle = self.settings.seconds_after + _IDLE_MARGIN_S
        while True:
            try:
                # Only an open event may have to be closed without a command.
                command = self._commands.get(timeout=None if self._event is None else _CHECK_S)
            except queue.Empty:
                self._close_idle(idle)
                continue
            if command is None:
                break
            try:
                self._execute(command)
            except Exception as error:
                self._fail(error)
            finally:
                if isinstance(command, Take | Sample):
                    self._received += 1
                    self._received_bytes += command.frame.picture_bytes
        self._store.close()

    def _close_idle(self, idle: float) -> None:
        """Close an event that no frame will close: the camera has stopped."""
        with self._lock:
            if time.monotonic() - self._last_add >= idle:
                self._send(self._selection.finish())

    def _execute(self, command: Command) -> None:
        if isinstance(command, Take):
            self._take(command)
        elif isinstance(command, OpenEvent):
            self._open(command)
        elif isinstance(command, CloseEvent):
            self._close(command)
        elif isinstance(command, Sample):
            self._sample(command.frame)
        elif isinstance(command, Save):
            self._save(command)
        elif isinstance(command, Forget):
            self._ring.clear()
            self._ring_bytes = 0

    def _take(self, command: Take) -> None:
        if command.phase != "before" and self._event is None:
            self._counts.frames_dropped += 1  # its event could not be begun or written on
            return
        try:
            frame = encode_frame(command.frame)
        except Exception as error:  # no picture: a wrong shape, a buffer that is none
            self._counts.frames_dropped += 1
            self._counts.last_error = as_one_line(f"frame not recorded: {error}")
            return
        if command.phase == "before":
            self._keep(frame)
        elif self._event is not None:
            self._write(self._event, frame, command.phase)

    def _sample(self, frame: BlackBoxFrame) -> None:
        """Write a normal frame, where there is room without the removal of other events."""
        opened = OpenEvent(
            frame.time_ns, frame.time_ns, 1, frame.detection.threshold, frame.has_stamp
        )
        if self._write_whole([encode_frame(frame)], opened, SAMPLE):
            self._counts.samples_written += 1

    def _save(self, command: Save) -> None:
        """Write the frames in memory."""
        if not self._ring:
            return  # none of the last ones could be encoded, which is counted
        start = self._ring[0].stamp_ns
        opened = OpenEvent(start, start, 1, command.threshold, command.has_stamps)
        if self._write_whole(list(self._ring), opened, SAVED):
            self._counts.events_written += 1
            self._counts.frames_recorded += len(self._ring)
            self._counts.is_failing = False
        else:
            self._counts.events_dropped += 1
            self._counts.last_error = (
                f"event not saved: it is larger than max_megabytes, which is "
                f"{self.settings.max_megabytes:g}: raise it or lower max_rate_hz"
            )

    def _write_whole(self, frames: Sequence[StoredFrame], opened: OpenEvent, kind: str) -> bool:
        """Write an event of frames that are there already; return whether there was room."""
        size = sum(len(frame.data) + _BYTES_PER_FRAME for frame in frames) + _BYTES_PER_EVENT
        path = self._store.begin()
        is_sample = kind == SAMPLE
        if not self._store.make_room(size, is_sample=is_sample):
            return False
        began_ns = None if self._is_live else opened.start_ns
        writer = WRITERS[self.settings.format](path, opened, self.model, self._topic, began_ns)
        phase: Phase = "sample" if is_sample else "saved"
        peak = max(frames, key=lambda frame: frame.score)
        try:
            for frame in frames:
                writer.add(frame, phase)
            writer.finish(
                CloseEvent(
                    opened.start_ns,
                    1,
                    frames[-1].stamp_ns,
                    peak.stamp_ns,
                    peak.score,
                    peak.normalized_score,
                    peak.place,
                    alarms=0,
                    kind=kind,
                )
            )
            self._store.publish(path, writer.began, is_sample=is_sample)
        except Exception:
            writer.abandon()
            shutil.rmtree(path, ignore_errors=True)
            raise
        return True

    def _keep(self, frame: StoredFrame) -> None:
        since = frame.stamp_ns - round(self.settings.seconds_before * 1e9)
        self._ring.append(frame)
        self._ring_bytes += len(frame.data)
        while self._ring and (self._ring[0].stamp_ns < since or self._ring_bytes > self._memory):
            self._ring_bytes -= len(self._ring.popleft().data)

    def _open(self, command: OpenEvent) -> None:
        before = [frame for frame in self._ring if frame.stamp_ns >= command.since_ns]
        self._ring.clear()
        self._ring_bytes = 0
        path = None
        try:
            path = self._store.begin()
            writer = WRITERS[self.settings.format]
            # A recording's clock is that of its stamps.
            began_ns = None if self._is_live else command.start_ns
            self._event = writer(path, command, self.model, self._topic, began_ns)
        except Exception:
            self._counts.events_dropped += 1
            self._counts.frames_dropped += len(before)
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
            raise
        while before:
            try:
                self._write(self._event, before.pop(0), "before")
            except Exception:
                self._counts.frames_dropped += len(before)
                raise

    def _write(self, event: EventWriter, frame: StoredFrame, phase: Phase) -> None:
        size = event.bytes_written + len(frame.data)
        size += _BYTES_PER_EVENT + (event.frames + 1) * _BYTES_PER_FRAME
        if size > self._store.max_bytes or not self._store.make_room(size):
            self._counts.frames_dropped += 1
            self._counts.last_error = (
                f"frames not recorded: one event is larger than max_megabytes, which is "
                f"{self.settings.max_megabytes:g}: raise it or lower max_rate_hz"
            )
            return
        try:
            event.add(frame, phase)
        except Exception:
            self._counts.frames_dropped += 1
            raise

    def _close(self, command: CloseEvent) -> None:
        event = self._event
        if event is None:
            return
        repeat_of = None if command.repeat_of is None else self._names.get(command.repeat_of)
        event.finish(command, repeat_of)
        place = self._store.publish(event.path, event.began, is_repeat=repeat_of is not None)
        for number in command.numbers:
            self._names.setdefault(number, place.name)
        while len(self._names) > _MAX_NAMES:
            del self._names[next(iter(self._names))]
        self._event = None
        self._counts.events_written += 1
        self._counts.frames_recorded += event.frames
        self._counts.is_failing = False

    def _fail(self, error: Exception) -> None:
        """Drop the open event, if any, and say why."""
        event, self._event = self._event, None
        self._counts.is_failing = True
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        self._counts.last_error = as_one_line(
            f"black box folder {self._store.folder} cannot be written ({reason}): "
            "make room or choose another folder"
        )
        if event is not None:
            event.abandon()
            shutil.rmtree(event.path, ignore_errors=True)
            self._counts.events_dropped += 1
            self._counts.frames_dropped += event.frames
