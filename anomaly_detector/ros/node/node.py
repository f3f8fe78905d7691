"""The detector node: images in, scores out, as a lifecycle node.

Configured, it holds a model that has been loaded, checked and warmed up; active, it subscribes to
``image`` (or ``image/compressed``) and publishes what :data:`TOPICS
<anomaly_detector.ros.node.result_publishers.TOPICS>` lists. Everything happens in one thread,
between two frames; only loading a model has a thread of its own.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from anomaly_detector.black_box import check_black_box
from anomaly_detector.errors import AnomalyDetectorError, as_one_line, describe_error
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.providers import choose_providers
from anomaly_detector.monitoring.health import Health, assess, is_frozen
from anomaly_detector.monitoring.statistics import FrameStatistics, StatisticsReport
from anomaly_detector.ros.graph.distro import (
    SubscriptionEventCallbacks,
    image_callback,
    publisher_identity,
)
from anomaly_detector.ros.graph.image_loss import explain_loss
from anomaly_detector.ros.graph.silence import (
    explain_incompatible_qos,
    explain_silence,
    explain_unheard,
    type_name,
)
from anomaly_detector.ros.node.diagnostics import (
    black_box_values,
    frame_values,
    model_values,
    result_values,
    write_diagnostics,
)
from anomaly_detector.ros.node.frame_processor import FrameProcessor
from anomaly_detector.ros.node.given_parameters import explain_unused
from anomaly_detector.ros.node.model_loader import BuildNotice, Loaded, ModelLoader, load_detector
from anomaly_detector.ros.node.parameters import (
    SESSION_PARAMETERS,
    Parameters,
    changed_parameters,
    declare_parameters,
)
from anomaly_detector.ros.tools.tool_node import check_domain_id
from anomaly_detector.signals import EndRequest

NODE_NAME = "anomaly_detector"

NO_IMAGE_WARNING_PERIOD_S = 5.0

LOSS_CHECK_S = 10.0
"""From the first image on; later losses are told in diagnostics."""


class DetectorNode(LifecycleNode):
    """Scores each image it receives while it is active.

    Args:
        **node_options: keyword arguments of ``rclpy.node.Node``: ``context``, ``namespace``,
            ``parameter_overrides``, ...

    Attributes:
        is_ending: whether :meth:`end` was called.

    Raises:
        AnomalyDetectorError: a parameter has a bad value.
    """

    def __init__(self, **node_options: Any) -> None:
        try:
            super().__init__(NODE_NAME, **node_options)
        except ParameterException as error:  # use_sim_time is rclpy's own parameter
            raise AnomalyDetectorError(as_one_line(error)) from error
        self._settings = declare_parameters(self)
        self.is_ending = False
        self._state_label = "unconfigured"
        self._statistics = FrameStatistics()
        # While configured: the images' way from message to result.
        self._frames: FrameProcessor | None = None
        # While active.
        self._images: Any = None
        self._active_since = 0.0
        self._silence_told_at: float | None = None
        self._has_told_frozen = False
        self._checks_loss = False
        self._images_since: float | None = None
        self._has_other_qos = False
        self._unheard_told: set[str] = set()
        self._last_error = ""
        self._notice = BuildNotice(self.get_logger())
        # What the model in use was loaded with.
        self._session: list[Parameter] = []
        self._is_reverting = False
        self._model_loaded = self.create_guard_condition(self._take_model)
        self._loader = ModelLoader(self._model_loaded.trigger)
        self._activated = self.create_guard_condition(self._tell_active)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self._make_diagnostics_timer()
        # Kept: a callback lives as long as its handle.
        self._jump_handles = [
            self.get_clock().create_jump_callback(threshold, post_callback=callback)
            for threshold, callback in (
                (
                    # A nanosecond counts.
                    JumpThreshold(
                        min_forward=None,
                        min_backward=Duration(nanoseconds=-1),
                        on_clock_change=False,
                    ),
                    self._on_time_jump,
                ),
                (
                    JumpThreshold(min_forward=None, min_backward=None, on_clock_change=True),
                    self._on_clock_change,
                ),
            )
        ]
        self._woken = self.create_guard_condition(lambda: None)
        self.add_on_set_parameters_callback(self._check_parameters)

    def warn_of_unused(self, arguments: Sequence[str]) -> None:
        """Warn of parameters on a command line that have no effect."""
        declared = list(self.get_parameters_by_prefix(""))
        for line in explain_unused(arguments, self.get_fully_qualified_name(), declared):
            self.get_logger().warning(line)

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
            detector = self._wait_for_model()
            self._frames = FrameProcessor(self, detector, self._settings, self._statistics)
            self._session = self._session_parameters()
            self._tell_model("configured", self._frames)

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

    def _tell_active(self) -> None:
        if self._images is not None:
            topic, kind = self._images.topic_name, type_name(self._images.msg_type)
            self.get_logger().info(f"active, waiting for {kind} on {topic}")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop: no subscription, no work."""

        def deactivate() -> None:
            self._stop()
            super(DetectorNode, self).on_deactivate(state)
            self.get_logger().info("deactivated")

        return self._transition("deactivate", deactivate, "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and take the topics away."""

        def clean_up() -> None:
            self._release()
            self.get_logger().info("cleaned up")

        return self._transition("clean up", clean_up, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whichever state."""

        def shut_down() -> None:
            self._release()
            self.get_logger().info("shut down")

        return self._transition("shut down", shut_down, "finalized")

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
    ) -> TransitionCallbackReturn:
        """Run a transition; rclpy would swallow what it raises without a word.

        Args:
            verb: for the log.
            body: the work.
            goal: the state when it is done.
            undo: goes back to where it came from when the work fails; None where that cannot be
                told, which leads through :meth:`on_error`.
        """
        try:
            body()
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

    def _release(self) -> None:
        self._loader.cancel()
        self._unsubscribe()
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.destroy()

    # --- model ------------------------------------------------------------------------------------

    def _tell_model(self, what: str, frames: FrameProcessor) -> None:
        detector = frames.detector
        self.get_logger().info(
            f"{what}: model {detector.metadata.name} ({detector.path}) on "
            f"{detector.providers[0]}, threshold {detector.threshold:.6g}"
        )
        fallback = detector.provider_report.warning
        if fallback is not None:
            self.get_logger().warning(fallback)
        frames.tell_view()

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

    def _wait_for_model(self) -> Detector:
        loaded = self._wait_for_loading()
        if loaded.detector is None:
            raise AnomalyDetectorError(loaded.error)
        return loaded.detector

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
            self._tell_model("swapped", self._frames)
            return
        running = self._frames.detector
        self._last_error = f"model not swapped: {loaded.error}"
        self.get_logger().error(
            f"{self._last_error}; {running.metadata.name} ({running.path}) goes on"
        )
        # The parameters say again what is in use.
        self._revert(self._session)

    # --- parameters -------------------------------------------------------------------------------

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one by one, each as :meth:`set_parameters_atomically` does."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters together; once they are set, put them into effect.

        The services come through here too. rclpy's callbacks are no place to act: of those before
        the set another one may refuse, and Humble has none after it.
        """
        names = {parameter.name for parameter in parameter_list}
        before = [self.get_parameter(name) for name in names if self.has_parameter(name)]
        result = super().set_parameters_atomically(parameter_list)
        if result.successful:
            try:
                self._put_into_effect(names)
            except AnomalyDetectorError as error:
                self._revert(before)
                return SetParametersResult(successful=False, reason=str(error))
        return result

    def _revert(self, parameters: Iterable[Parameter]) -> None:
        """Set parameters to what is in effect."""
        self._is_reverting = True
        super().set_parameters_atomically(list(parameters))
        self._is_reverting = False
        self._settings, _ = changed_parameters(self, [])

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Check whether values can be; nothing is done yet, since another callback may refuse."""
        try:
            settings, names = changed_parameters(self, changes)
            if not self._is_reverting:
                self._check(settings, names)
        except AnomalyDetectorError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

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
        """Do what the values of parameters that were set ask for.

        Raises:
            AnomalyDetectorError: it cannot be done; what was in effect is so again.
        """
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

    # --- images -----------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        assert self._frames is not None
        compressed = self._settings.image_transport == "compressed"
        message_type = CompressedImage if compressed else Image
        topic = "image/compressed" if compressed else "image"
        # Best effort matches every camera; depth 1 makes the newest frame win when the robot is
        # too slow for all of them.
        qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._frames.start()
        self._active_since = time.monotonic()
        self._silence_told_at = None
        self._has_told_frozen = False
        self._checks_loss, self._images_since = True, None
        try:
            self._images = self.create_subscription(
                message_type,
                topic,
                image_callback(self._on_image),
                qos,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_other_qos),
            )
        # RuntimeError: what rclpy raises for a policy name that it does not know.
        except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
            raise AnomalyDetectorError(
                f"cannot subscribe to {self.resolve_topic_name(topic)}, see its qos_overrides "
                f"parameters: {as_one_line(error)}"
            ) from error

    def _stop(self) -> None:
        self._unsubscribe()
        if self._frames is not None:
            self._frames.stop()

    def _unsubscribe(self) -> None:
        images, self._images = self._images, None
        if images is not None:
            self.destroy_subscription(images)

    def _on_other_qos(self, _: Any) -> None:
        # Told at the next diagnosis: the graph does not know the publisher's name yet.
        self._has_other_qos = True

    def _on_image(self, message: Any, info: Any) -> None:
        frames, images = self._frames, self._images
        if frames is None or images is None:
            return  # taken from the middleware just before the node was deactivated
        publisher, number = publisher_identity(
            info, lambda: self.count_publishers(images.topic_name)
        )
        gap_s = frames.process(message, publisher, number)
        if self._silence_told_at is not None:
            self._silence_told_at = None
            after = "" if gap_s is None else f" after {gap_s:.1f} s"
            self.get_logger().info(f"images on {images.topic_name} again{after}")

    def _on_time_jump(self, _: Any) -> None:
        self.get_logger().warning("time jumped back: the decision over time starts afresh")
        self._start_afresh()

    def _on_clock_change(self, _: Any) -> None:
        self.get_logger().info(
            "use_sim_time was set: another clock counts, the decision over time starts afresh"
        )
        self._start_afresh()

    def _start_afresh(self) -> None:
        if self._images is not None and self._frames is not None:
            self._active_since = time.monotonic()
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
        report = self._statistics.report(now)
        frames = self._frames
        if self._images is not None:
            self._check_silence(report, now)
            self._check_loss(report, now)
            self._check_frozen(report)
            if self._has_other_qos:
                self._has_other_qos = False
                self.get_logger().warning(explain_incompatible_qos(self, self._images))
        if frames is not None:
            self._check_unheard(frames)
        values = {
            "State": self._state_label,
            **frame_values(report, self._settings.limits.expected_rate),
            **result_values(frames),
            **model_values(
                None if frames is None else frames.detector,
                self._settings.model,
                self._settings.model if self._loader.is_busy else "",
            ),
            **black_box_values(None if frames is None else frames.black_box),
            "Last error": self._error(),
        }
        header = None if frames is None else frames.last_header
        self._diagnostics.publish(
            write_diagnostics(
                self.get_clock().now().to_msg(),
                # As diagnostic_updater names it; with the namespace, where there is one.
                self.get_fully_qualified_name().lstrip("/"),
                "" if header is None else header.frame_id,
                self._health(report, now),
                values,
            )
        )

    def _error(self) -> str:
        return self._last_error or ("" if self._frames is None else self._frames.last_error)

    def _health(self, report: StatisticsReport, now: float) -> Health:
        if self._images is None or self._frames is None:
            if self._notice.text:
                return Health("WARN", f"{self._state_label}: {self._notice.text}")
            if self._last_error:
                return Health("ERROR", f"{self._state_label}: {self._last_error}")
            return Health("OK", self._state_label)
        health = assess(
            report,
            self._settings.limits,
            waiting_s=now - self._active_since,
            others=[
                self._notice.text,
                self._frames.detector.provider_report.warning,
                self._black_box_warning(),
            ],
            last_error=self._error(),
        )
        clock = self.get_clock()
        if health.level == "OK" and clock.ros_time_is_active and clock.now().nanoseconds == 0:
            return Health("WARN", "use_sim_time is set, but nothing comes on /clock")
        return health

    def _black_box_warning(self) -> str | None:
        if self._frames is None or self._frames.black_box is None:
            return None
        statistics = self._frames.black_box.statistics
        return f"black box: {statistics.last_error}" if statistics.is_failing else None

    def _check_silence(self, report: StatisticsReport, now: float) -> None:
        """Warn when no image comes, with the likeliest reason."""
        silent_s = now - self._active_since if report.age_s is None else report.age_s
        told_at = self._silence_told_at
        if silent_s <= self._settings.limits.stale_timeout or (
            told_at is not None and now - told_at < NO_IMAGE_WARNING_PERIOD_S
        ):
            return
        self._silence_told_at = now
        topic, kind = self._images.topic_name, type_name(self._images.msg_type)
        self.get_logger().warning(
            f"no image ({kind}) on {topic} for {silent_s:.1f} s: "
            f"{explain_silence(self, self._images)}"
        )

    def _check_frozen(self, report: StatisticsReport) -> None:
        """Report once when the camera repeats itself, which no score of a single frame shows."""
        was_told = self._has_told_frozen
        self._has_told_frozen = is_frozen(report, self._settings.limits)
        if self._has_told_frozen and not was_told:
            self.get_logger().warning(
                f"every image on {self._images.topic_name} for {report.unchanged_s:.1f} s shows "
                "the same picture: restart the camera driver if it hangs (frozen_timeout: 0 where "
                "a simulated camera may stand still)"
            )
        elif was_told and not self._has_told_frozen:
            self.get_logger().info(f"the picture on {self._images.topic_name} changes again")

    def _check_unheard(self, frames: FrameProcessor) -> None:
        """Warn once of each reason why a result does not reach a subscriber."""
        for publisher in frames.unheard():
            # Empty while the two ends are still finding each other.
            reason = explain_unheard(self, publisher)
            if reason and reason not in self._unheard_told:
                self._unheard_told.add(reason)
                self.get_logger().warning(reason)

    def _check_loss(self, report: StatisticsReport, now: float) -> None:
        """Warn once when images get lost on their way from the start."""
        if not self._checks_loss or not report.recent_received:
            return
        if self._images_since is None:
            self._images_since = now
        loss = explain_loss(
            report,
            self._settings.limits.expected_rate,
            self._images.topic_name,
            0 if self._frames is None else self._frames.last_bytes,
            get_rmw_implementation_identifier(),
        )
        if loss is not None:
            self.get_logger().warning(loss)
        self._checks_loss = loss is None and now - self._images_since < LOSS_CHECK_S


def _init_ros(args: Sequence[str] | None) -> None:
    check_domain_id()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy's RCLError, which has no public name
        raise AnomalyDetectorError(
            f"the ROS arguments cannot be used: {as_one_line(error)}"
        ) from error


def run(args: Sequence[str] | None, end: EndRequest) -> int:
    """Run the node until a signal asks for the end.

    Args:
        args: command line with ROS arguments; None for ``sys.argv``.
        end: the signals of the process.

    Returns:
        Exit code of :func:`anomaly_detector.ros.detector_node.main`.
    """
    node: DetectorNode | None = None
    # From here on there is something to clean up. A signal interrupts none of it: rclpy's own
    # handlers take the context away from what is being made or published.
    end.hold()
    try:
        _init_ros(args)
        node = DetectorNode()
        end.hold(node.end)
        if end.is_made:
            node.end()
        node.warn_of_unused(sys.argv[1:] if args is None else args)
        node.start()
        _spare_garbage_collection()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin(executor, node)
    except ExternalShutdownException:
        pass
    except AnomalyDetectorError as error:
        logger = get_logger(NODE_NAME) if node is None else node.get_logger()
        logger.fatal(str(error))
        return 1
    finally:
        end.hold()
        if node is not None:
            node.release()
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    return 0


def _spare_garbage_collection() -> None:
    """Keep the garbage collector off what start-up has made, which lives as long as the process.

    A full collection looked at 46,000 objects for 13 to 53 ms, once in the first 3,000 frames: more
    than a frame's period at 30 Hz. Without them it takes less than 1 ms.
    """
    gc.collect()
    gc.freeze()


def spin(executor: Any, node: DetectorNode) -> None:
    """Spin until the node ends; an error in a callback is logged and costs no more.

    Args:
        executor: with the node in it.
        node: logs the errors.

    Raises:
        ExternalShutdownException: the context was shut down.
    """
    while not node.is_ending:
        try:
            executor.spin_once()
        except ExternalShutdownException:
            raise
        except Exception as error:
            if not node.context.ok():
                raise ExternalShutdownException from error
            node.get_logger().error(f"internal error, going on: {describe_error(error)}")
