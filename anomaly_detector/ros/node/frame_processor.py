"""What happens to one image: decoded, scored, filtered, published, counted."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from anomaly_detector.alarms.alarm_filter import AlarmEvent, AlarmFilter, AlarmState
from anomaly_detector.alarms.incidents import AlarmReport, IncidentWatch
from anomaly_detector.black_box import BlackBox, BlackBoxFrame, EncodedPicture
from anomaly_detector.camera_health.watch import WITHOUT_REFERENCE, CameraState, CameraWatch
from anomaly_detector.drawing.overlay import draw_overlay, resized_bgr
from anomaly_detector.errors import AnomalyDetectorError, ImageError, describe_error
from anomaly_detector.images.image import Image
from anomaly_detector.images.message import as_image
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.monitoring.gate import FrameGate
from anomaly_detector.monitoring.health import is_frozen
from anomaly_detector.monitoring.scene import SceneWatch
from anomaly_detector.monitoring.state import Verdict
from anomaly_detector.monitoring.statistics import FrameStatistics, SequenceGaps
from anomaly_detector.poses import Place, PoseTrack
from anomaly_detector.ros.node.cv_bridge_rule import load_cv_bridge
from anomaly_detector.ros.node.event_message import write_event_end, write_event_start
from anomaly_detector.ros.node.parameters import Parameters
from anomaly_detector.ros.node.result_publishers import ResultPublishers
from anomaly_detector.stamps import FrameClock, stamp_to_ns

BAD_FRAME_LOG_PERIOD_S = 2.0

FUTURE_TOLERANCE_S = 0.1
"""Clocks of two machines in one robot differ by less than this when they are synchronised."""

MAX_QUEUEING_S = 60.0
"""Older frames are replayed ones: their age says nothing about a queue."""

_REMEDY = "set the parameter image_scaling (minimum, maximum), or subscribe to the colour camera"


class FrameProcessor:
    """Processes the images of a configured node, in one thread.

    Attributes:
        detector: the model in use; :meth:`use` replaces it.
        black_box: records the frames around alarms; None where that is not asked for.
        incidents: the alarms since the node was configured.
        scene: what is known of the scene as a whole.
        camera: what ails the camera.
        last_detection: result of the newest scored frame, whose header is ``last_header``.
        last_bytes: size of the newest image's data.
        poses: of the robot, while somebody gives them; None otherwise.
        last_place: where the newest frame was taken; None without poses.
        last_error: what was wrong with the newest frame that failed.
        gate: which frames are scored.
        paused: why no frame is, at the moment; empty as a rule.
        verdict: on the newest scored frame of this stretch; None before the first, and again with
            another model. It is replaced as a whole, for other threads.
        busy_since: when the frame that is being worked on came, by the monotonic clock; None
            between two frames.
    """

    def __init__(
        self, node: Any, detector: Detector, settings: Parameters, statistics: FrameStatistics
    ) -> None:
        self.detector = detector
        self.black_box: BlackBox | None = None
        self.statistics = statistics
        self.incidents = IncidentWatch(settings.incidents)
        self._is_started = False
        self.is_alarm = False
        self.last_detection: Detection | None = None
        self.last_header: Any = None
        self.last_bytes = 0
        self.last_error = ""
        self.poses: PoseTrack | None = None
        self.last_place: Place | None = None
        self.gate = FrameGate(settings.gate)
        self.paused = ""
        self.verdict: Verdict | None = None
        self.busy_since: float | None = None
        # Of the newest frame with an alarm.
        self._alarm = AlarmReport()
        self._node = node
        self._settings = settings
        self._alarm_filter = AlarmFilter(settings.alarm)
        self._gaps = SequenceGaps()
        self._clock = FrameClock()
        self._watch_scene()
        self._convert, reason = load_cv_bridge()
        if reason:
            node.get_logger().warning(reason)
        self._results = ResultPublishers(node)

    def destroy(self) -> None:
        """End what is open, take the topics out of the graph and free the model."""
        self.stop()
        self._results.destroy()
        self.detector.close()

    def apply(self, settings: Parameters) -> None:
        """Put new values of the parameters into effect, from the next frame on.

        Raises:
            AnomalyDetectorError: the black box cannot be made; nothing has been changed.
        """
        previous = self._settings
        if settings.black_box != previous.black_box and self._is_started:
            black_box = self._make_black_box(settings)
            self.close_black_box()
            self.black_box = black_box
        self._settings = settings
        self.incidents.settings = settings.incidents
        self.gate.use(settings.gate)
        if settings.threshold != previous.threshold:
            self.detector.set_threshold(settings.threshold)
        if settings.view.over(self.detector.metadata.view) != self.detector.view:
            self.detector.set_view(settings.view)
            self._watch_scene()
            self.check_view()
        if settings.alarm != previous.alarm:
            self.end_event()
            self._alarm_filter = AlarmFilter(settings.alarm)

    def use(self, detector: Detector) -> None:
        """Score with another model from the next frame on."""
        previous, self.detector = self.detector, detector
        previous.close()
        self._watch_scene()
        self.verdict = None
        if self.black_box is not None:
            self.black_box.model = detector.metadata.name

    def check_view(self) -> None:
        """Warn when the parameters show the model other pixels than it was trained on."""
        metadata = self.detector.metadata
        if warning := metadata.view_warning(self.detector.view):
            self._node.get_logger().warning(warning)
        if metadata.camera_reference is None:
            self._node.get_logger().info(
                f"model {metadata.name} has no camera reference: of what can ail the camera, "
                f"only {', '.join(WITHOUT_REFERENCE)} are said; 'python -m anomaly_detector "
                "calibrate' or adapt adds one"
            )

    def unheard(self) -> list[Any]:
        """Return the publishers that have subscribers to which nothing gets through."""
        return self._results.unheard()

    def start(self) -> None:
        """Begin a new stretch of images: another subscription, or another time."""
        self.end_event()
        self._gaps.clear()
        self._clock = FrameClock()
        self.statistics.start()
        self._is_started = True
        if self.black_box is None:
            self.black_box = self._make_black_box(self._settings)

    def stop(self) -> None:
        """End what is open: no image comes for a while."""
        self._is_started = False
        self.paused = ""
        self.end_event()
        self._watch_scene()
        self.close_black_box()

    def _watch_scene(self) -> None:
        """Forget scene and camera: another model, other pixels of the frames, or a stop."""
        self._scene_watch = SceneWatch(self.detector.metadata)
        self.scene = self._scene_watch.state
        self._camera_watch = CameraWatch(self.detector.camera_reference)
        self.camera = CameraState()
        self._has_said_camera = False

    def _see_scene(self, time_ns: int, score: float, image: Image) -> None:
        """Log the first frame of another scene, and that of the training's again."""
        before = self.scene
        self.scene = self._scene_watch.update(time_ns, score, image.array)
        if self.scene.word == before.word:
            return
        if self.scene.warning:
            self._node.get_logger().warning(self.scene.warning)
        elif before.warning:
            is_blank = before.word == "blank picture"
            what = "picture has edges" if is_blank else "scene is as in training"
            self._node.get_logger().info(f"the {what} again")

    def _see_camera(self, header: Any, time_ns: int, image: Image, pixels: Image) -> None:
        """Log and publish when something begins to ail the camera, or no longer does."""
        before = self.camera
        unchanged_s = self.statistics.unchanged_s
        frozen_s = unchanged_s if is_frozen(unchanged_s, self._settings.limits) else 0.0
        self.camera = self._camera_watch.update(time_ns, image.array, frozen_s)
        if self.camera.cause == before.cause and self._has_said_camera:
            return
        self._has_said_camera = True
        if self.camera.cause:
            self._node.get_logger().warning(f"camera: {self.camera.text}")
        elif before.cause:
            self._node.get_logger().info(f"camera: no longer {before.cause}")
        self._results.publish_camera(
            header,
            self.camera,
            self._node.get_name(),
            self.detector.camera_reference is not None,
            lambda: resized_bgr(pixels, self._settings.overlay_max_side),
        )

    def end_event(self) -> None:
        """Forget what the alarm filter remembers; an alarm that is on ends with its last frame."""
        self.verdict = None
        self._end_alarm()

    def _end_alarm(self) -> None:
        event = self._alarm_filter.finish()
        self.is_alarm = False
        if event is not None:
            self._publish_event_end(self.last_header, event)

    def enable(self, is_enabled: bool) -> None:
        """Pause until further notice, or go on with the next frame."""
        self.gate.is_enabled = is_enabled
        self._pause("" if is_enabled else self.gate.pause_reason(0, None))

    def _pause(self, reason: str) -> None:
        """Pause for a reason, or go on where it is empty; what comes after a pause is new."""
        # First: another thread would take a verdict that is gone for frames that do not come.
        was_paused, self.paused = self.paused, reason
        if reason and not was_paused:
            self.end_event()
            self.statistics.forget_picture()

    def _is_skipped(self, now: float, time_ns: int) -> bool:
        """Return whether a frame is not to be scored."""
        if self.gate.is_due(now):
            self._pause(self.gate.pause_reason(time_ns, self.poses))
            if not self.paused:
                return False
        self.statistics.skipped += 1
        return True

    def reset_alarm(self) -> tuple[bool, str]:
        """Clear the alarm and what the alarm filter remembers; return what there is to say."""
        was_on, verdict = self.is_alarm, self.verdict
        if verdict is not None:
            self.verdict = replace(verdict, is_alarm=False)
        self._end_alarm()
        # The next frame may be long in coming.
        self._results.publish_alarm(False)
        return True, "alarm cleared" if was_on else "no alarm is on; its filter starts afresh"

    def save_event(self) -> tuple[bool, str]:
        """Record the last seconds into the black box; return what there is to say."""
        if self.black_box is None:
            return False, "nothing saved: the black box is off, set black_box_folder"
        return self.black_box.save()

    def process(
        self, message: Any, publisher: bytes = b"", number: int | None = None
    ) -> float | None:
        """Score one image; whatever is wrong with it costs that image and no more.

        Its number is None where the middleware gives none. Returns the seconds since the image
        before, None for the first.
        """
        now = self.busy_since = time.monotonic()
        gap_s = self.statistics.receive(now, self._gaps.missing(publisher, number))
        self.last_bytes = len(message.data)
        try:
            self._score(message, now)
        finally:
            self.busy_since = None
        return gap_s

    def _score(self, message: Any, now: float) -> None:
        start = time.perf_counter()
        try:
            time_ns, queueing_s = self._read_stamp(message.header)
            if self._is_skipped(now, time_ns):
                return
            pixels = self._decode(message, reduced=self.detector.view.region.is_whole_frame)
            image = self.detector.prepare(pixels)
            detection = self.detector.detect(image)
        except AnomalyDetectorError as error:
            self._fail(error.reason if isinstance(error, ImageError) else "model", str(error))
            return
        except Exception as error:  # one frame is never worth the node
            self._fail("internal", describe_error(error))
            return
        self.statistics.see_picture(time.monotonic(), image.array.tobytes())
        state = self._alarm_filter.update(detection, stamp_ns=time_ns)
        self._see_scene(time_ns, detection.score, image)
        self.last_place = None if self.poses is None else self.poses.at(time_ns)
        alarm = self.incidents.update(state, detection, image.array, self.last_place, time_ns)
        try:
            self._publish(message, time_ns, pixels, detection, state, alarm)
            self._see_camera(message.header, time_ns, image, pixels)
        finally:
            # A signal takes the topics away in the middle of a frame; the black box keeps it.
            if self.black_box is not None:
                self._record(self.black_box, message, time_ns, pixels, detection, state, alarm)
        now = time.monotonic()
        self.statistics.score(now, time.perf_counter() - start, queueing_s)
        self.verdict = Verdict(
            detection.is_anomaly, state.is_alarm, time_ns, now, alarm.number, alarm.is_quiet
        )

    def _decode(self, message: Any, *, reduced: bool) -> Image:
        """Return the pixels; ``reduced``, a JPEG may be decoded at a part of its size."""
        return as_image(
            message,
            scaling=self.detector.view.scaling,
            reduced=reduced,
            convert=self._convert,
            remedy=_REMEDY,
        )

    def _read_stamp(self, header: Any) -> tuple[int, float | None]:
        """Return the time for the alarm filter, ns, and how long the frame has waited, s."""
        now_ns = self._node.get_clock().now().nanoseconds
        stamp_ns = stamp_to_ns(header.stamp)
        time_ns = self._clock.time_ns(stamp_ns, now_ns)
        if stamp_ns is None:
            self.statistics.miss_stamp(time.monotonic())
            return time_ns, None
        if now_ns == 0:  # use_sim_time before the first /clock
            return time_ns, None
        queueing_s = (now_ns - stamp_ns) / 1e9
        if queueing_s < -FUTURE_TOLERANCE_S:
            self.statistics.see_future(time.monotonic())
        return time_ns, queueing_s if 0.0 <= queueing_s <= MAX_QUEUEING_S else None

    def _fail(self, reason: str, error: str) -> None:
        if not self._node.context.ok():
            return  # a signal took the context away
        self.statistics.fail(time.monotonic(), reason)
        self.last_error = error
        failed = sum(self.statistics.failed.values())
        self._node.get_logger().error(
            f"frame dropped ({failed} of {self.statistics.received}): {error}",
            throttle_duration_sec=BAD_FRAME_LOG_PERIOD_S,
        )

    def _publish(
        self,
        message: Any,
        time_ns: int,
        pixels: Image,
        detection: Detection,
        state: AlarmState,
        alarm: AlarmReport,
    ) -> None:
        header = message.header
        name = self._node.get_name()
        score, normalized_score = detection.score, detection.normalized_score
        self._results.publish_detection(
            header, detection, state.is_alarm, name, self.detector.metadata.name, self.scene.word
        )
        if state.ended is not None:
            self._publish_event_end(header, state.ended)
        if state.is_alarm:
            self._alarm = alarm
        if state.started or alarm.is_raised_anew:
            self._results.publish_event(
                write_event_start(header, alarm, time_ns, score, normalized_score, name)
            )
        self.last_detection, self.last_header = detection, header
        self.is_alarm = state.is_alarm
        self._results.publish_pictures(
            header, detection, lambda: self._draw(message, pixels, detection)
        )

    def _draw(self, message: Any, pixels: Image, detection: Detection) -> Any:
        if pixels.scale != 1:  # a person wants more of it than the network
            pixels = self._decode(message, reduced=False)
        return draw_overlay(
            pixels,
            detection,
            is_alarm=self.is_alarm,
            note=self.scene.note,
            max_side=self._settings.overlay_max_side,
            boxes=self._settings.overlay_boxes,
        )

    def _record(
        self,
        black_box: BlackBox,
        message: Any,
        time_ns: int,
        pixels: Image,
        detection: Detection,
        state: AlarmState,
        alarm: AlarmReport,
    ) -> None:
        compressed = self._settings.image_transport == "compressed"
        black_box.add(
            BlackBoxFrame(
                # A camera's own JPEG is kept as it came.
                EncodedPicture(message.format, message.data) if compressed else pixels,
                detection,
                state,
                time_ns if self._clock.has_stamp else None,
                time.monotonic_ns(),
                message.header.frame_id,
                self.last_place,
                alarm,
            )
        )

    def _make_black_box(self, settings: Parameters) -> BlackBox | None:
        if settings.black_box is None:
            return None
        return BlackBox(settings.black_box, model=self.detector.metadata.name)

    def close_black_box(self) -> None:
        """Finish what the black box records."""
        black_box, self.black_box = self.black_box, None
        if black_box is not None and not black_box.close():
            self._node.get_logger().warning(black_box.statistics.last_error)

    def _publish_event_end(self, header: Any, event: AlarmEvent) -> None:
        self._results.publish_event(
            write_event_end(header, self._alarm, event, self._node.get_name())
        )
