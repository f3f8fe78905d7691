"""The detector node as a lifecycle node: what each state holds, and the ways between them.

Configured, it holds a model that has been loaded, checked and warmed up; active, it subscribes to
``image`` (or ``image/compressed``) and publishes what :data:`TOPICS
<anomaly_detector.ros.node.result_publishers.TOPICS>` lists. Everything happens in one thread,
between two frames; only loading a model has a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from anomaly_detector.black_box import check_black_box
from anomaly_detector.errors import AnomalyDetectorError, describe_error
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.providers import choose_providers
from anomaly_detector.monitoring.state import Circumstances, judge
from anomaly_detector.monitoring.statistics import FrameStatistics
from anomaly_detector.ros.graph.enable_input import EnableInput
from anomaly_detector.ros.graph.pose_input import PoseInput
from anomaly_detector.ros.graph.trigger_services import TriggerServices, snooze_answers
from anomaly_detector.ros.node.diagnostics import DiagnosticsPublisher, NodeStatus
from anomaly_detector.ros.node.frame_processor import FrameProcessor
from anomaly_detector.ros.node.image_input import ImageInput
from anomaly_detector.ros.node.live_parameters import LiveParametersNode, changed_parameters
from anomaly_detector.ros.node.model_loader import BuildNotice, Loaded, ModelLoader, load_detector
from anomaly_detector.ros.node.parameters import SESSION_PARAMETERS, Parameters
from anomaly_detector.ros.node.watchers import ClockWatcher, ResultWatcher
from anomaly_detector.ros.state.message import write_state
from anomaly_detector.ros.state.publisher import ClockWatch, StatePublisher

NODE_NAME = "anomaly_detector"

_LATE_S = 0.5
"""Diagnostics that are later than this tell that the node itself stood still, on a busy machine."""


class DetectorNode(LiveParametersNode):
    """Scores each image it receives while it is active; takes the options of ``rclpy.node.Node``.

    Raises:
        AnomalyDetectorError: a parameter has a bad value.
    """

    _state: StatePublisher | None = None

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        self.is_ending = False
        self._state_label = "unconfigured"
        self._last_error = ""
        self._statistics = FrameStatistics()
        # While configured: the images' way from message to result.
        self._frames: FrameProcessor | None = None
        # While active.
        self._images: ImageInput | None = None
        self._poses: PoseInput | None = None
        self._enable: EnableInput | None = None
        self._snooze: TriggerServices | None = None
        self._alarm_services: TriggerServices | None = None
        self._activated = self.create_guard_condition(self._log_active)
        self._notice = BuildNotice(self.get_logger())
        # What the model in use was loaded with.
        self._session: list[Parameter] = []
        self._model_loaded = self.create_guard_condition(self._take_model)
        self._loader = ModelLoader(self._model_loaded.trigger)
        self._results = ResultWatcher(self)
        self._diagnostics = DiagnosticsPublisher(self)
        self._diagnosed_at = self._awake_since = time.monotonic()
        self._diagnostics_timer = self._make_diagnostics_timer()
        self._clock_watcher = ClockWatcher(self, self._start_afresh)
        self._woken = self.create_guard_condition(lambda: None)
        self._clock_watch = ClockWatch(self)
        self._state = StatePublisher(self, self._write_state)

    # --- transitions ------------------------------------------------------------------------------

    def start(self) -> bool:
        """Configure and activate, unless the parameter ``autostart`` is false.

        Returns:
            Whether the node is where it is meant to be; if not, the reason has been logged.
        """
        if not self._settings.autostart or self.is_ending:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check and warm up the model, and make the publishers."""

        def configure() -> None:
            self._start_loading()
            loaded = self._wait_for_loading()
            if loaded.detector is None:
                raise AnomalyDetectorError(loaded.error)
            self._frames = FrameProcessor(self, loaded.detector, self._settings, self._statistics)
            self._session = self._session_parameters()
            self._log_model("configured", self._frames)

        return self._transition("configure", configure, "inactive", self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images, with the model that the parameters name."""

        def activate() -> None:
            if self._loader.is_busy:
                self._take(self._wait_for_loading())
            super(DetectorNode, self).on_activate(state)
            self._subscribe()
            # Said once rclpy has completed the transition: whoever waits for it may go on at once.
            self._activated.trigger()

        return self._transition("activate", activate, "active", self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop: no subscription, no work."""

        def deactivate() -> None:
            self._stop()
            super(DetectorNode, self).on_deactivate(state)

        return self._transition("deactivate", deactivate, "inactive", log="deactivated")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and take the topics away."""
        return self._transition("clean up", self._release, "unconfigured", log="cleaned up")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whichever state."""

        def shut_down() -> None:
            if self._state is not None:
                self._state.close()
            self._release()

        return self._transition("shut down", shut_down, "finalized", log="shut down")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a transition that broke half-way; it can be configured again."""
        reason = self._last_error
        result = self._transition("recover", self._release, "unconfigured")
        self._last_error = self._last_error or reason
        return result

    def _transition(
        self,
        verb: str,
        body: Callable[[], None],
        goal: str,
        undo: Callable[[], None] | None = None,
        log: str = "",
    ) -> TransitionCallbackReturn:
        """Run a transition to a state; rclpy would swallow what it raises without a word.

        ``undo`` goes back to where it came from when the work fails; None, where nobody knows how,
        leads through :meth:`on_error`.
        """
        try:
            body()
            if log:
                self.get_logger().info(log)
        except Exception as error:
            if self.is_ending or not self.context.ok():
                return TransitionCallbackReturn.FAILURE
            is_ours = isinstance(error, AnomalyDetectorError)
            self._last_error = f"cannot {verb}: {error if is_ours else describe_error(error)}"
            if undo is None:
                self.get_logger().error(f"{self._last_error}; configure the node again")
                return TransitionCallbackReturn.ERROR
            undo()
            self.get_logger().error(
                f"{self._last_error}; then try again: ros2 lifecycle set "
                f"{self.get_fully_qualified_name()} {verb}"
            )
            return TransitionCallbackReturn.FAILURE
        self._state_label = goal
        self._last_error = ""
        return TransitionCallbackReturn.SUCCESS

    def end(self) -> None:
        """Have :func:`spin` return, and nothing wait for a model any more; from any thread."""
        self.is_ending = True
        self._loader.cancel()
        self._woken.trigger()

    def release(self) -> None:
        """Free everything before the node is destroyed."""
        self._loader.close()
        if self.context.ok():
            self._release()
            return
        # Somebody has taken the topics away; what is recorded goes to the disk all the same.
        if self._frames is not None:
            self._frames.close_black_box()

    def destroy_node(self) -> None:
        """Take the node out of the graph, its state first; rclpy may do it to half a node."""
        if self._state is not None:
            self._state.close()
        super().destroy_node()

    def _release(self) -> None:
        self._loader.cancel()
        self._unsubscribe()
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.destroy()

    # --- model ------------------------------------------------------------------------------------

    def _log_model(self, what: str, frames: FrameProcessor) -> None:
        detector = frames.detector
        self.get_logger().info(
            f"{what}: model {detector.metadata.name} ({detector.path}) on "
            f"{detector.providers[0]}, threshold {detector.threshold:.6g}"
        )
        fallback = detector.provider_report.warning
        if fallback is not None:
            self.get_logger().warning(fallback)
        frames.check_view()

    def _start_loading(self, *, beside: bool = False) -> None:
        # Nothing of the node: a loading outlives it when the process ends meanwhile.
        settings, logger, notice = self._settings, self.get_logger(), self._notice

        def load() -> Detector:
            if beside:
                logger.info(f"loading model {settings.model}, the present one goes on meanwhile")
            return load_detector(settings, notice)

        self._loader.start(load)

    def _session_parameters(self) -> list[Parameter]:
        """Return those of the newest loading: a change of them starts another one."""
        return [self.get_parameter(name) for name in sorted(SESSION_PARAMETERS)]

    def _wait_for_loading(self) -> Loaded:
        """Wait in the executor's thread, with diagnostics going on."""
        while not self.is_ending and not self._loader.wait(self._settings.diagnostics_period):
            self._diagnose()
        loaded = self._loader.take()
        if loaded is None:
            raise AnomalyDetectorError("the node ends")
        return loaded

    def _take_model(self) -> None:
        """Let a model that has been loaded take over: between two frames, as all callbacks are."""
        loaded = self._loader.take()
        if loaded is not None:
            self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        if self._frames is None:
            return
        if loaded.detector is not None:
            loaded.detector.set_threshold(self._settings.threshold)
            loaded.detector.set_view(self._settings.view)
            self._frames.use(loaded.detector)
            self._session = self._session_parameters()
            self._log_model("swapped", self._frames)
            return
        running = self._frames.detector
        self._last_error = f"model not swapped: {loaded.error}"
        self.get_logger().error(
            f"{self._last_error}; {running.metadata.name} ({running.path}) goes on"
        )
        # The parameters say again what is in use.
        self._revert(self._session)

    # --- parameters -------------------------------------------------------------------------------

    def _check(self, settings: Parameters, names: set[str]) -> None:
        # What is wrong with the file or the names is known at once; what ONNX Runtime and a GPU
        # make of them is not.
        is_loaded = self._frames is not None and names & SESSION_PARAMETERS
        if is_loaded or "model" in names:
            read_metadata(settings.model)
        if is_loaded or "providers" in names:
            choose_providers(settings.providers)
        if settings.black_box is not None and settings.black_box != self._settings.black_box:
            check_black_box(settings.black_box)

    def _put_into_effect(self, names: set[str]) -> None:
        previous, (settings, _) = self._settings, changed_parameters(self, [])
        try:
            self._apply(settings)
        except AnomalyDetectorError:
            self._apply(previous)
            raise
        if names & SESSION_PARAMETERS and self._frames is not None:
            self._start_loading(beside=True)

    def _apply(self, settings: Parameters) -> None:
        previous, self._settings = self._settings, settings
        if self._frames is not None:
            self._frames.apply(settings)
        if settings.diagnostics_period != previous.diagnostics_period:
            self.destroy_timer(self._diagnostics_timer)
            self._diagnostics_timer = self._make_diagnostics_timer()
        if settings.image_transport != previous.image_transport and self._state_label == "active":
            self._unsubscribe()
            self._subscribe()
            return
        if settings.pose != previous.pose:
            self._watch_poses()
        if settings.gate.enable_topic != previous.gate.enable_topic:
            self._watch_enable()
        if (settings.gate.max_turn_rate, settings.pose.topic) != (
            previous.gate.max_turn_rate,
            previous.pose.topic,
        ):
            self._check_turn_rate()

    # --- images -----------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        assert self._frames is not None
        self._frames.start()
        self._images = ImageInput(self, self._settings.image_transport, self._frames.process)
        self._alarm_services = TriggerServices(
            self,
            {"~/reset_alarm": self._frames.reset_alarm, "~/save_event": self._frames.save_event},
        )
        self._watch_poses()
        self._watch_enable()
        self._check_turn_rate()

    def _check_turn_rate(self) -> None:
        if self._settings.gate.max_turn_rate and not self._settings.pose.topic:
            self.get_logger().warning("max_turn_rate has no effect: it needs pose_topic")

    def _watch_enable(self) -> None:
        """Listen to the topic that pauses detection; on until its first message."""
        enable, self._enable = self._enable, None
        if enable is not None:
            enable.close()
        if self._frames is None:
            return
        self._frames.enable(True)
        if self._images is not None and self._settings.gate.enable_topic:
            self._enable = EnableInput(self, self._settings.gate.enable_topic, self._frames.enable)

    def _watch_poses(self) -> None:
        """Listen to the poses that the parameters name, while there are images to be placed."""
        poses, self._poses = self._poses, None
        snooze, self._snooze = self._snooze, None
        if poses is not None:
            poses.close()
        if snooze is not None:
            snooze.close()
        if self._frames is None:
            return
        if self._images is not None and self._settings.pose.topic:
            self._poses = PoseInput(self, self._settings.pose)
            self._snooze = TriggerServices(self, snooze_answers(self._frames.incidents))
        self._frames.poses = None if self._poses is None else self._poses.track

    def _log_active(self) -> None:
        if self._images is not None:
            self.get_logger().info(f"active, waiting for {self._images.description}")

    def _stop(self) -> None:
        self._unsubscribe()
        if self._frames is not None:
            self._frames.stop()

    def _unsubscribe(self) -> None:
        images, self._images = self._images, None
        if images is not None:
            images.close()
        services, self._alarm_services = self._alarm_services, None
        if services is not None:
            services.close()
        self._watch_poses()
        self._watch_enable()

    def _start_afresh(self) -> None:
        if self._images is not None and self._frames is not None:
            self._images.watcher.since = time.monotonic()
            self._frames.start()

    # --- diagnostics ------------------------------------------------------------------------------

    def _make_diagnostics_timer(self) -> Any:
        # A steady clock, not the node's: with use_sim_time and no /clock it matters most.
        return self.create_timer(
            self._settings.diagnostics_period,
            self._diagnose,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def _diagnose(self) -> None:
        now = time.monotonic()
        if now - self._diagnosed_at > self._settings.diagnostics_period + _LATE_S:
            self._awake_since = now
        self._diagnosed_at = now
        awake_s = now - self._awake_since
        report = self._statistics.report(now)
        frames, images, limits = self._frames, self._images, self._settings.limits
        if frames is not None:
            if images is not None:
                images.watcher.check(report, limits, frames.last_bytes, now, awake_s)
            unheard = [] if self._state is None else self._state.unheard()
            self._results.check([*frames.unheard(), *unheard])
        self._diagnostics.publish(
            NodeStatus(
                self._state_label,
                report,
                limits,
                waiting_s=None if images is None else now - images.watcher.since,
                awake_s=awake_s,
                frames=frames,
                model=self._settings.model,
                is_loading=self._loader.is_busy,
                notice=self._notice.text,
                last_error=self._last_error or ("" if frames is None else frames.last_error),
            )
        )

    # --- state ------------------------------------------------------------------------------------

    def _write_state(self, now: float) -> Any:
        """Make the ``~/state`` of this moment, in its own thread: from references and numbers."""
        frames, images, statistics = self._frames, self._images, self._statistics
        verdict = None if frames is None else frames.verdict
        paused = "" if frames is None else frames.paused
        if paused:  # which may have begun since the verdict was read
            verdict = None
        busy_since = None if frames is None else frames.busy_since
        since = statistics.last or (now if images is None else images.watcher.since)
        seen = Circumstances(
            lifecycle=self._state_label,
            error=self._last_error,
            clock_stopped_s=self._clock_watch.stopped_s(now),
            verdict=verdict,
            now_s=now,
            silent_s=now - since,
            busy_s=0.0 if busy_since is None else now - busy_since,
            failures=statistics.consecutive_failures,
            failure="" if frames is None else frames.last_error,
            unchanged_s=statistics.unchanged_s,
            paused=paused,
            is_disabled=frames is not None and not frames.gate.is_enabled,
            period_s=1.0 / rate if (rate := self._settings.gate.max_rate_hz) else 0.0,
            scene="" if frames is None else frames.scene.word,
            is_loading=self._loader.is_busy,
        )
        header = None if frames is None else frames.last_header
        return write_state(
            judge(seen, self._settings.limits),
            verdict,
            now,
            self.get_name(),
            "" if header is None else header.frame_id,
            "" if frames is None else frames.detector.metadata.name,
        )
