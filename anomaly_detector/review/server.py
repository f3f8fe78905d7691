"""The page's server: Starlette on uvicorn, for the people in front of one browser or a few.

It serves the package's own files and the frames of the events in the given folders, by numbers and
ids that it made itself, and writes verdicts. Requests of other sites are refused by their Host and
Origin: a page elsewhere could have its name resolved to this machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import json
import math
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2

from anomaly_detector.alarms.alarm_filter import ALARM_OPTIONS, AlarmSettings
from anomaly_detector.black_box import Verdict
from anomaly_detector.black_box.plan import make_plans, read_floor_map
from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.model.detector import Detector
from anomaly_detector.review.catalog import Catalog, Entry, verdict_json
from anomaly_detector.review.likeness import Likeness
from anomaly_detector.review.masks import LEAST_EVENTS, propose
from anomaly_detector.review.pictures import Pictures
from anomaly_detector.review.what_if import Scores, read_scores, try_settings

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/tools.js": ("tools.js", "text/javascript; charset=utf-8"),
}
_MOST_BYTES = 2_000_000
_MOST_EVENTS = 1000
_STEP_M = 0.05
_MAP_FRAME = "map"
"""Frame of reference of the maps of map_server."""
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class _BadRequestError(AnomalyDetectorError):
    """What was asked for makes no sense."""


@dataclass(frozen=True)
class ReviewOptions:
    """What to review, and where to serve it.

    Attributes:
        folders: of black boxes, or single events.
        model: model file for overlays, likeness and normal frames; None for none.
        drives: tables of scores for the what-if page.
        map: yaml file of a ROS map to draw the plan on; None for none.
        host: name or address to listen on.
        port: 0 for any that is free.
    """

    folders: Sequence[Path]
    model: Path | None = None
    drives: Sequence[Path] = ()
    map: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765


class Review:
    """What the page's requests are answered with.

    Raises:
        AnomalyDetectorError: a folder, the model or a table cannot be used.
    """

    def __init__(self, options: ReviewOptions) -> None:
        self.catalog = Catalog(options.folders)
        self.catalog.look()
        self.model = model = options.model
        self.detector = None if model is None else Detector(model)
        self.drives: list[Scores] = [read_scores(path) for path in options.drives]
        self.map = None if options.map is None else read_floor_map(options.map)
        self.pictures = Pictures(self.detector)
        self.likeness = Likeness(self.catalog, self.pictures, model)

    @cached_property
    def map_png(self) -> bytes | None:
        """The floor map as the page shows it; None for none."""
        return None if self.map is None else bytes(cv2.imencode(".png", self.map.image)[1])

    def state(self, version: str) -> dict[str, Any] | None:
        """Return all events, or None when the page has this version of them."""
        self.catalog.look()
        if version == str(self.catalog.version):
            return None
        detector = self.detector
        return self.catalog.as_json() | {
            "model": None if detector is None else detector.metadata.name,
            "likeness": self.likeness.by,
            "normal": self.likeness.known,
            "least_masked": None if detector is None else LEAST_EVENTS,
            "drives": [drive.name for drive in self.drives],
            "alarm": [
                vars(option) | {"is_whole": isinstance(option.default, int)}
                for option in ALARM_OPTIONS
            ],
        }

    def entry(self, key: str) -> Entry:
        """Return an event.

        Raises:
            KeyError: there is none.
        """
        if key not in self.catalog.entries:
            self.catalog.look()
        return self.catalog.entries[key]

    def frames(self, key: str) -> dict[str, Any]:
        """Return the frames of an event: seconds since the first one, scores, phases."""
        frames = self.entry(key).event.frames
        return {
            "frames": [
                {
                    "t": (frame.stamp_ns - frames[0].stamp_ns) / 1e9,
                    "score": frame.score,
                    "phase": frame.phase,
                    "anomaly": frame.is_anomaly,
                }
                for frame in frames
            ]
        }

    def judge(self, content: Any) -> dict[str, Any]:
        """Write verdicts; each is written or refused for itself.

        Raises:
            _BadRequestError: they make no sense.
        """
        try:
            verdict = Verdict(
                content["verdict"],
                str(content.get("note", ""))[:4000],
                frames=tuple(content["frames"]) if content.get("frames") else None,
                model="" if self.detector is None else self.detector.metadata.name,
                keep=bool(content.get("keep", False)),
                shown=tuple(map(str, content.get("shown", ()))),
            )
            events = [(str(item["id"]), item["seen"]) for item in content["events"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _BadRequestError(f"no verdict: {as_one_line(error)}") from error
        if not 0 < len(events) <= _MOST_EVENTS:
            raise _BadRequestError(f"{len(events)} events: judge 1 to {_MOST_EVENTS}")
        written, refused = {}, {}
        for key, seen in events:
            try:
                entry = self.entry(key)
                if len(events) > 1 and entry.picture(entry.peak) not in verdict.shown:
                    raise _BadRequestError("its picture was not on the screen")
                own = verdict
                if not own.model:
                    own = replace(own, model=str(entry.facts["model"]))
                result = self.catalog.judge(key, own, seen)
                written[key] = verdict_json(result.verdict)
            except KeyError:
                refused[key] = "the event is gone: it was removed or moved"
            except (AnomalyDetectorError, OSError) as error:
                refused[key] = as_one_line(error)
        return {"written": written, "refused": refused}

    def groups(self, alike: float) -> dict[str, Any]:
        """Return the groups of events that look alike."""
        self.catalog.look()
        groups, waiting = self.likeness.groups(alike)
        return {"groups": groups, "waiting": waiting, "by": self.likeness.by}

    def mask(self, content: Any) -> dict[str, Any]:
        """Return the mask to propose for events, with how to use it; none for None.

        Raises:
            AnomalyDetectorError: what was asked for makes no sense.
        """
        try:
            entries = [self.entry(str(key)) for key in content["events"]]
        except (KeyError, TypeError) as error:
            raise _BadRequestError(f"no events: {as_one_line(error)}") from error
        if self.model is None or not 0 < len(entries) <= _MOST_EVENTS:
            return {"proposal": None}
        found = propose(entries, self.pictures)
        return {"proposal": None if found is None else found.as_json(self.model)}

    def plans(self) -> dict[str, Any]:
        """Return paths and events of each frame of reference, metres."""
        entries = {entry.event.path: entry for entry in list(self.catalog.entries.values())}
        plans = []
        for plan in make_plans([entry.event for entry in entries.values()]):
            paths = [_thinned([(pose.x, pose.y) for pose in path]) for path in plan.paths]
            events = {entries[path].id: (pose.x, pose.y) for path, pose in plan.events.items()}
            points = [*(point for path in paths for point in path), *events.values()]
            floor = None
            if self.map is not None and plan.frame_id == _MAP_FRAME:
                height, width = self.map.image.shape
                size = width * self.map.resolution, height * self.map.resolution
                names = ("x", "y", "yaw", "width", "height")
                floor = dict(zip(names, (*self.map.origin, *size), strict=True))
            plans.append(
                {
                    "frame_id": plan.frame_id,
                    "paths": paths,
                    "events": events,
                    "x": [min(x for x, _ in points), max(x for x, _ in points)],
                    "y": [min(y for _, y in points), max(y for _, y in points)],
                    "map": floor,
                }
            )
        return {"plans": plans}

    def what_if(self, content: Any) -> dict[str, Any]:
        """Return what another threshold and alarm filter would have made of the stored scores.

        Raises:
            AnomalyDetectorError: the settings make no sense.
        """
        try:
            settings = AlarmSettings(**content["alarm"])
            threshold = float(content["threshold"])
            entries = [self.entry(str(key)) for key in content["events"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _BadRequestError(f"no settings: {as_one_line(error)}") from error
        metadata = None if self.detector is None else self.detector.metadata
        return try_settings(entries, self.drives, threshold, settings, metadata)


def make_app(review: Review, host: str) -> Any:
    """Return the ASGI application.

    Args:
        review: what it answers with.
        host: that it listens on.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    def reply(content: Any, status: int = 200) -> Any:
        # In ASCII: names of files may be no UTF-8.
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        return Response(text, status, media_type="application/json")

    def answer(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def respond(request: Any, *more: Any) -> Any:
            try:
                result = make(request, *more)
            except (KeyError, IndexError):
                return reply({"error": "there is no such event or frame"}, 404)
            except _BadRequestError as error:
                return reply({"error": str(error)}, 400)
            except (AnomalyDetectorError, OSError) as error:
                return reply({"error": as_one_line(error)}, 409)
            return result if isinstance(result, Response) else reply(result)

        return respond

    def picture(data: bytes | None, kind: str) -> Any:
        if data is None:
            raise KeyError
        # Recorded pictures never change, and an address holds the version of what made it.
        headers = {"cache-control": "private, max-age=86400"}
        return Response(data, media_type=kind, headers=headers)

    def frame(request: Any) -> Any:
        entry, number = review.entry(request.path_params["id"]), request.path_params["number"]
        how = request.path_params["how"]
        if how == "full":
            return picture(*review.pictures.frame(entry, number))
        if how == "small":
            return picture(review.pictures.thumbnail(entry, number), "image/jpeg")
        if how == "overlay":
            return picture(review.pictures.overlay(entry, number), "image/jpeg")
        if how == "nearest":
            return picture(review.likeness.nearest(entry, number), "image/png")
        raise KeyError(how)

    def state(request: Any) -> Any:
        found = review.state(request.query_params.get("version", ""))
        return Response(status_code=204) if found is None else reply(found)

    def groups(request: Any) -> Any:
        try:
            return review.groups(float(request.query_params["alike"]))
        except ValueError as error:
            raise _BadRequestError("alike is no number") from error

    def floor(request: Any) -> Any:
        return picture(review.map_png, "image/png")

    def posted(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def respond(request: Any) -> Any:
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                # What a form of another site could send without asking.
                return reply({"error": "send application/json"}, 415)
            body = b""
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BYTES:
                    return reply({"error": "too large"}, 413)
            return await run_in_threadpool(answer(lambda _: make(_json(body))), request)

        return respond

    def page(request: Any) -> Any:
        name, kind = _FILES[request.url.path]
        return Response((_PAGE / name).read_bytes(), media_type=kind)

    routes = [
        *(Route(path, answer(page)) for path in _FILES),
        Route("/api/events", answer(state)),
        Route("/api/events/{id}", answer(lambda request: review.frames(request.path_params["id"]))),
        Route("/api/groups", answer(groups)),
        Route("/api/plans", answer(lambda _: review.plans())),
        Route("/map", answer(floor)),
        Route("/api/verdicts", posted(review.judge), methods=["POST"]),
        Route("/api/mask", posted(review.mask), methods=["POST"]),
        Route("/api/what-if", posted(review.what_if), methods=["POST"]),
        Route("/{how:str}/{id:str}/{number:int}", answer(frame)),
    ]
    app = Starlette(routes=routes)

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                names = {name for name, _ in message["headers"]}
                if b"cache-control" not in names:
                    own.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        request = Request(scope)
        name, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not is_own_host(name, host) or origin not in (None, f"http://{name}"):
            refused = reply({"error": f"not served to {origin or name!r}"}, 403)
            await refused(scope, receive, sent)
            return
        await app(scope, receive, sent)

    return guarded


def is_own_host(header: str, host: str) -> bool:
    """Return whether a Host header means this server.

    A name that anyone can register may be resolved to this machine; addresses, ``localhost`` and
    the names that it was started with cannot.
    """
    name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
    name = name.strip("[]").lower()
    if name in {"localhost", host.lower(), socket.gethostname().lower()}:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _thinned(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a path that are apart enough to be seen."""
    kept: list[tuple[float, float]] = []
    for point in path:
        if not kept or math.dist(point, kept[-1]) >= _STEP_M:
            kept.append((round(point[0], 3), round(point[1], 3)))
    return kept


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _BadRequestError("no JSON") from error


def serve(options: ReviewOptions, on_ready: Callable[[str, Review], object]) -> None:
    """Serve the page until a signal comes.

    Args:
        options: what to review.
        on_ready: called with the page's address and what answers it.

    Raises:
        AnomalyDetectorError: a package is missing, the port is taken, or a folder, the model or a
            table cannot be used.
    """
    try:
        import uvicorn

        review = Review(options)
        app = make_app(review, options.host)
    except ImportError as error:
        raise AnomalyDetectorError(
            f"the page needs the packages starlette and uvicorn ({error}): pip install starlette "
            "uvicorn, or apt install python3-starlette python3-uvicorn"
        ) from error
    listening = _listen(options)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", access_log=False)
    )
    # In a thread of its own it leaves the signals alone.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="server")
    thread.daemon = True
    thread.start()
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        on_ready(f"http://{host}:{listening.getsockname()[1]}/", review)
        # Of a process that was suspended any thread may get the signal, which wakes no other.
        while thread.is_alive():
            thread.join(0.5)
    finally:
        server.should_exit = True
        thread.join(5.0)
        listening.close()


def _listen(options: ReviewOptions) -> socket.socket:
    listening = None
    try:
        if not 0 <= options.port < 65536:
            raise OSError(0, "ports are from 0 to 65535")
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(512)
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        raise AnomalyDetectorError(
            f"cannot listen on {options.host} port {options.port} "
            f"({getattr(error, 'strerror', None) or error}): give another --port or --host"
        ) from error
    return listening
