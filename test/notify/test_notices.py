"""When somebody is told, and when not again."""

from __future__ import annotations

from anomaly_detector.notify.notices import Notice, Notices

ALARM = Notice("alarm", "alarm 1")
UNKNOWN = Notice("unknown", "no frames")


def told(notices: Notices, now: float) -> list[tuple[str, int]]:
    return [(notice.text, notice.suppressed) for notice in notices.due(now)]


def test_an_alarm_is_told_at_once_and_once() -> None:
    notices = Notices(cooldown_s=100.0)
    notices.begin(ALARM, 5.0)
    assert told(notices, 5.0) == [("alarm 1", 0)]
    notices.begin(ALARM, 6.0)
    assert told(notices, 300.0) == []


def test_what_ends_in_the_cooldown_is_counted_and_what_lasts_is_told_after_it() -> None:
    notices = Notices(cooldown_s=100.0)
    for number in range(3):
        notices.begin(ALARM, 10.0 * number)
        told(notices, 10.0 * number)
        notices.end("alarm", 10.0 * number + 1)
    notices.begin(Notice("alarm", "alarm 4"), 60.0)
    assert told(notices, 99.0) == []
    assert told(notices, 100.0) == [("alarm 4", 2)]
    notices.end("alarm", 101.0)
    notices.begin(ALARM, 250.0)
    assert told(notices, 250.0) == [("alarm 1", 0)]


def test_a_moment_is_not_told_and_kinds_are_apart() -> None:
    notices = Notices(cooldown_s=100.0)
    notices.begin(UNKNOWN, 0.0, after_s=10.0)
    assert told(notices, 9.0) == []
    notices.end("unknown", 9.5)
    notices.end("unknown", 9.6)
    notices.begin(ALARM, 9.7)
    notices.begin(UNKNOWN, 10.0, after_s=10.0)
    assert told(notices, 15.0) == [("alarm 1", 0)]
    # The reason is the newest one before it was told.
    notices.begin(Notice("unknown", "no state"), 16.0, after_s=10.0)
    assert told(notices, 20.0) == [("no state", 0)]
    notices.begin(UNKNOWN, 21.0)
    assert told(notices, 500.0) == []
