"""The monitor's page in a real browser, for programs on each backend."""

from __future__ import annotations

from typing import Any

import pytest

from greenpg.monitor._feed import INTERVAL
from tests import chromium
from tests.green.monitored import LONG, STUCK

TEXT = "document.body.innerText"
FASTER = "const slow = setTimeout; window.setTimeout = (fn, ms) => slow(fn, ms / 5);"

pytestmark = chromium.needed


@pytest.fixture
def look(browser):
    """Open pages, of which none may load anything from elsewhere, nor have an error."""
    pages: list[Any] = []

    def opened(address, **options):
        pages.append((browser.open(address, **options), address.partition("?")[0].rstrip("/")))
        return pages[-1][0]

    yield opened
    for page, address in pages:
        page.evaluate("1")
        asked = [event["request"]["url"] for event in page.seen("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith((address, "data:"))] == []
        assert page.seen("Runtime.exceptionThrown") == []
        entries = [event["entry"] for event in page.seen("Log.entryAdded")]
        assert [entry["text"] for entry in entries if entry["source"] == "security"] == []
        page.close()


only_gevent = pytest.mark.parametrize("program", ["gevent"], indirect=True)


def shows(text):
    """Return the expression that is the number of the tick while the page shows a text."""
    return f"{TEXT}.includes({text!r}) && document.documentElement.dataset.tick"


WITHOUT_STUCK = f"""(window.without = {TEXT}.includes({STUCK!r})
    ? window.without : document.documentElement.dataset.tick)"""  # the last tick shown


def shown_at(page, text):
    """Wait until the page shows a text; return the number of the tick."""
    return int(page.until(shows(text)))


@pytest.mark.timeout(90)
def test_a_stuck_holder_is_shown_with_its_line_within_a_second(program, look):
    page = look(program("serve"))
    shown_at(page, "0 in use, 2 idle")

    page.watch(f"({WITHOUT_STUCK}, {shows(STUCK)})")
    tick = program("stuck")
    page.watched()

    assert int(page.evaluate("window.without")) <= tick  # shown at the next one that came
    assert INTERVAL < 1
    assert "1 in use, 1 idle" in page.evaluate(TEXT)
    assert "idle, server process" in page.evaluate(TEXT)
    program("give_back")
    page.until(f"!{TEXT}.includes({STUCK!r})")


@pytest.mark.timeout(90)
@only_gevent
def test_stacks_waiters_stalls_and_errors_are_shown(program, look):
    page = look(program("serve"))
    for _ in range(2):
        program("stuck")
    for _ in range(3):
        program("wait")
    program("fail")
    program("stall")

    page.until(f"{TEXT}.includes('2 in use, 0 idle, 0 connecting, 3 waiting; at most 2')")
    page.until(f"{TEXT}.includes('3 tasks')")
    page.until(f"{TEXT}.includes('connect: OperationalError')")
    page.until("document.querySelector('#stalls pre')?.textContent.includes('in stall')")
    page.evaluate("document.querySelector('.holders summary').click()")
    page.until(f"{TEXT}.includes('in main')")
    for _ in range(5):
        program("give_back")
    page.until(f"{TEXT}.includes('5 loans, 0 timed out')")
    page.until("document.querySelector('.rate polyline').getAttribute('points').includes(' ')")


@pytest.mark.timeout(90)
@only_gevent
def test_the_page_outlives_a_pool(program, look):
    page = look(program("serve"))
    shown_at(page, "2 idle")

    program("close")
    page.until("!document.querySelector('article')")
    program("open")

    shown_at(page, "2 idle")


@pytest.mark.timeout(90)
@only_gevent
def test_the_page_outlives_its_server(program, look):
    address = program("serve")
    port = int(address.rstrip("/").rpartition(":")[2])
    page = look(address, script=FASTER)
    shown_at(page, "2 idle")

    program("end")
    page.until(f"{TEXT}.includes('not connected')")
    program("stuck")
    program("serve", port=port)

    shown_at(page, STUCK)
    assert "not connected" not in page.evaluate(TEXT)
    program("give_back")


@pytest.mark.timeout(90)
@only_gevent
def test_a_silent_stream_is_opened_again(program, look):
    page = look(program("serve"), script=FASTER)
    shown_at(page, "2 idle")
    asked = len(streams(page))

    program("stall")

    page.until(f"{TEXT}.includes('live')")
    assert len(streams(page)) > asked


def streams(page):
    page.evaluate("1")
    asked = page.seen("Network.requestWillBeSent")
    return [event for event in asked if event["request"]["url"].endswith("/events")]


@pytest.mark.timeout(90)
@only_gevent
def test_several_pages_follow_at_once(program, look):
    address = program("serve")
    pages = [look(address) for _ in range(4)]

    tick = program("stuck")

    pages.append(look(address))
    for page in pages:
        assert shown_at(page, STUCK) >= tick
    program("give_back")


@pytest.mark.timeout(90)
@only_gevent
def test_a_page_that_nobody_sees_keeps_no_stream(program, look):
    page = look(program("serve"))
    shown_at(page, "2 idle")

    hide(page, hidden=True)
    tick = page.evaluate("document.documentElement.dataset.tick")
    while program("tick") < int(tick) + 3:
        pass
    unseen = page.evaluate("document.documentElement.dataset.tick")
    hide(page, hidden=False)

    assert int(unseen) <= int(tick) + 1
    page.until(f"document.documentElement.dataset.tick > {tick} + 2")


def hide(page, *, hidden):
    page.evaluate(f"""Object.defineProperty(
        document, "hidden", {{ value: {str(hidden).lower()}, configurable: true }}
    ), document.dispatchEvent(new Event("visibilitychange"))""")


@pytest.mark.timeout(90)
@only_gevent
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_night(program, look, scheme):
    page = look(program("serve"), width=360, scheme=scheme)
    program("fail")
    program("stuck")
    program("wait")
    program("stall")
    page.until("document.querySelector('#stalls pre')")
    shown_at(page, LONG)

    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("innerWidth") == 360
    back, text = (brightness(page, name) for name in ("backgroundColor", "color"))
    assert (back > 0.9 > 0.2 > text) if scheme == "light" else (back < 0.2 < 0.8 < text)
    for _ in range(2):
        program("give_back")


def brightness(page, name):
    """Return the mean of a colour of the page, from 0 to 1."""
    colour = page.evaluate(f"getComputedStyle(document.body).{name}")
    parts = [int(part) for part in colour.strip("rgb()").split(",")]
    return sum(parts) / 3 / 255


@pytest.mark.timeout(90)
@only_gevent
def test_the_token_in_the_address_is_passed_on(program, look):
    address = program("serve", token="a &c")

    page = look(address + "?token=a+%26c")

    shown_at(page, "2 idle")


@pytest.mark.timeout(90)
def test_it_is_mounted_in_each_librarys_wsgi_server(program, look):
    page = look(program("mount"))

    shown_at(page, "2 idle")
    assert page.evaluate("location.pathname") == "/ops/"


@pytest.mark.timeout(90)
def test_multiplexers_and_listeners_are_shown(program, look):
    page = look(program("serve"))
    shown_at(page, "2 idle")

    program("multiplex", text="select pg_sleep(600)")
    program("listen")
    program("notify")

    page.until(f"{TEXT}.includes('2 connections of at most 2, 1 in flight, 0 waiting')")
    page.until(f"{TEXT}.includes('connected; 1 subscription to 1 channel')")
    page.until(f"{TEXT}.includes('1 notification, connected 1 time, 0 failures')")
    page.until("document.querySelector('#multiplexers polyline')?.getAttribute('points')")
    page.until("document.querySelector('#listeners polyline')?.getAttribute('points')")
    assert "pg_sleep" not in page.evaluate(TEXT)
    assert "1 in flight, 0 prepared" in page.evaluate(TEXT)
    assert page.evaluate("document.querySelectorAll('article').length") == 3
    program("cancel")
    page.until(f"!{TEXT}.includes('in flight')")


@pytest.mark.timeout(90)
@only_gevent
def test_statements_are_shown_to_whom_asks(program, look):
    page = look(program("serve", details=True))

    program("multiplex", text="select 'secret', pg_sleep(600)")

    page.until(f"{TEXT}.includes('select ?, pg_sleep(?)')")
    assert "secret" not in page.evaluate(TEXT)
    program("cancel")


@pytest.mark.timeout(90)
@only_gevent
def test_without_multiplexers_and_listeners_no_title_is_shown(program, look):
    page = look(program("serve"))
    shown_at(page, "2 idle")

    text = page.evaluate(TEXT)

    assert "Multiplexers" not in text
    assert "Listeners" not in text
