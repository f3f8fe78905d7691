"""The review page in a real browser: list, filter, film, verdicts by keyboard, two pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from black_box_frames import wait_until
from browser import chromium
from review_server import make_box, name_of, review_server

from anomaly_detector.black_box import read_event, read_verdict

HOLD = """
const send = window.fetch;
window.held = [];
window.fetch = async (path, ...rest) => {
  const response = await send(path, ...rest);
  if (!path.startsWith('/api/events?') || response.status !== 200) return response;
  const text = await response.text();
  await new Promise(release => window.held.push(release));
  return new Response(text);
};
window.letGo = () => { window.fetch = send; window.held.forEach(release => release()); };
"""
"""Keeps what the server says of all events from the page until ``letGo``, as a busy machine may."""

STOP = """
const shown = () => Number(document.querySelector('.controls input').value);
new MutationObserver((_, observer) => {
  if (shown() <= arguments[0]) return;
  observer.disconnect();
  document.body.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', bubbles: true}));
}).observe(document.querySelector('.controls output'), {childList: true});
"""
"""Stops the film behind a frame, before it is at its end."""


def test_a_morning_of_review(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    paths = make_box(tmp_path / "anna", 3) + make_box(tmp_path / "berta", 2, "mcap")
    (tmp_path / "anna" / "event_20261124T065843Z_000099").mkdir()
    folders = [tmp_path / "anna", tmp_path / "berta"]
    with (
        review_server(folders, "--model", str(model)) as server,
        chromium(tmp_path / "profile") as page,
    ):
        ids = {event["id"]: name for name, event in server.events().items()}
        disk = {name_of(path): path for path in paths}

        def js(code: str, *arguments: Any) -> Any:
            return page.execute_script(f"return {code}", *arguments)

        def press(*keys: str) -> None:
            ActionChains(page).send_keys(*keys).perform()

        def cards() -> list[str]:
            found = js("Array.from(document.querySelectorAll('.card'), card => card.dataset.id)")
            return [ids[key] for key in found]

        def verdict(name: str) -> str:
            found = read_verdict(disk[name])
            return "" if found is None else found.verdict

        def text(selector: str) -> str:
            return str(js("document.querySelector(arguments[0])?.textContent ?? ''", selector))

        # The list, the newest first, with pictures; what is wrong is said.
        page.get(server.url)
        wait_until(lambda: len(cards()) == 5)
        newest = cards()
        times = {name: event["time"] for name, event in server.events().items()}
        assert [times[name] for name in newest] == sorted(times.values(), reverse=True)
        wait_until(
            lambda: js("Array.from(document.images).every(i => i.complete && i.naturalWidth)")
        )
        assert "1 thing in the folders is" in text("#notices")
        assert "half an event" in text("#notices li")

        # A verdict by keyboard in the list goes on to the next one.
        first, second = newest[:2]
        page.execute_script(HOLD)
        press("n")
        wait_until(lambda: verdict(first) == "normal")
        wait_until(lambda: ids[js("document.querySelector('.card.chosen').dataset.id")] == second)

        # What the server said before the next verdict comes after it, and does not undo it.
        js("document.dispatchEvent(new Event('visibilitychange'))")
        wait_until(lambda: js("window.held.length"))
        press("u")
        wait_until(lambda: text("#progress") == "2 of 5 reviewed")
        js("window.letGo()")
        press("z")
        wait_until(lambda: verdict(second) == "unreviewed")
        wait_until(lambda: ids[js("document.querySelector('.card.chosen').dataset.id")] == second)
        press(Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ENTER)
        wait_until(lambda: text(".event .muted") == "2 of 5")

        # The film: the peak at first, frames on their own, the overlay.
        wait_until(lambda: js("Number(document.querySelector('.controls input').max) > 30"))
        shown = "Number(document.querySelector('.controls input').value)"
        peak = server.events()[second]["peak"]
        assert js(shown) == peak
        press(",", ",", ".")
        assert js(shown) == peak - 1
        page.execute_script(STOP, peak + 3)
        press(" ")
        wait_until(lambda: js(shown) > peak + 3 and "Play" in text(".controls button"))
        assert js(shown) < len(read_event(disk[second]).frames) - 1
        picture = "document.querySelector('.screen img')"
        assert "/full/" in js(f"{picture}.src")
        press("o")
        wait_until(lambda: "/overlay/" in js(f"{picture}.src"))
        wait_until(lambda: js(f"{picture}.complete && {picture}.naturalWidth > 300"))
        assert js("document.querySelector('.curve .score').getAttribute('d').length") > 100
        assert "threshold 1.000" in text(".curve")

        # A verdict for some frames with a note; it goes on to the next, and undo comes back.
        press(".", "[", ".", ".", "]")
        place = int(js(shown))
        js("document.querySelector('textarea').focus()")
        press("a door", Keys.ESCAPE)
        press("a")
        wait_until(lambda: verdict(second) == "anomaly")
        written = read_verdict(disk[second])
        assert written is not None
        assert written.note == "a door"
        assert written.frames == (place - 2, place)
        wait_until(lambda: text(".event .muted") == "3 of 5")
        press("u")
        wait_until(lambda: verdict(newest[2]) == "unsure")
        wait_until(lambda: text(".event .muted") == "4 of 5")
        press("z")
        wait_until(lambda: verdict(newest[2]) == "unreviewed")
        wait_until(lambda: text(".event .muted") == "3 of 5")

        # Reload keeps them; filters.
        page.get(server.url)
        page.refresh()
        wait_until(lambda: len(cards()) == 5)
        assert text("#progress") == "2 of 5 reviewed"
        js("document.querySelector('[data-filter=normal]').click()")
        wait_until(lambda: cards() == [first])
        js("document.querySelector('[data-filter=unreviewed]').click()")
        wait_until(lambda: cards() == newest[2:])

        # A second page sees them, and the first sees those of the second without a reload.
        page.switch_to.new_window("tab")
        page.get(f"{server.url}#/events")
        wait_until(lambda: len(cards()) == 5)
        assert text("#progress") == "2 of 5 reviewed"
        one, two = page.window_handles
        press(Keys.END)
        press(*[Keys.ARROW_RIGHT] * 4, "u")
        wait_until(lambda: verdict(newest[4]) == "unsure")
        page.switch_to.window(one)
        wait_until(lambda: cards() == newest[2:4])
        page.switch_to.window(two)

        # The group of those that look alike is judged once.
        page.get(f"{server.url}#/alike")
        wait_until(lambda: js("!document.querySelector('.group .verdicts button')?.disabled"))
        wait_until(lambda: text(".group .head .muted").endswith("unreviewed"))
        members = js("document.querySelectorAll('.group')[0].querySelectorAll('.member').length")
        assert members >= 2
        press("n")
        wait_until(lambda: sum(verdict(name) == "normal" for name in newest) > 1)
        judged = [read_verdict(disk[name]) for name in newest[2:4]]
        assert any(item and item.shown for item in judged)

        # Their heat stays at its pixels: a mask is proposed, to see and to download.
        wait_until(lambda: js("document.querySelector('.group .mask img')?.naturalWidth"))
        link = "document.querySelector('.group .mask a')"
        assert js(f"{link}.download") == "mask.png"
        assert js(f"{link}.href").startswith("data:image/png;base64,")
        assert f"calibrate --model {model} --data" in text(".group .mask pre")

        # What if.
        page.get(f"{server.url}#/what-if")
        wait_until(lambda: "alarms a day" in text(".what-if"))
        assert "alarm_raise_frames: 6" in text("pre")
        assert "null" not in text(".what-if")
        js(
            "(b => { b.value = '9'; b.dispatchEvent(new Event('change')); })"
            "(document.querySelector('.what-if input[type=number]'))"
        )
        wait_until(lambda: "threshold: 9.0" in text("pre"))
        wait_until(lambda: "1of 1 judged anomaly" in text(".key.bad"))

        # A phone: nothing runs off the screen.
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
        )
        for where in ("events", f"events/{next(iter(ids))}", "alike", "what-if", "plan"):
            page.get(f"{server.url}#/{where}")
            wait_until(lambda: js("document.querySelector('main').childElementCount"))
            assert js("document.documentElement.scrollWidth") <= 390, where
        complaints = [item for item in page.get_log("browser") if item["level"] != "INFO"]
        assert complaints == []
