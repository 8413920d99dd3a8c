"""The page of a recording, as a browser shows it and as one works with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browser.conftest import Open
from devicehost.recording import Access, DeviceRecord, Event, Header, Lost, Operation, Space
from devicehost_client.recordings.report import Survey, read_differences, write_report
from devicehost_client.recordings.report.sample import FIRST, LAST
from devicehost_client.recordings.source import Source
from unit.client.recordings.synthetic import COM1, HEADER, Guest, boot, write

ROUNDS = 20


def report(
    path: Path, events: Iterable[Event], header: Header = HEADER, differences: str | None = None
) -> Path:
    """Write the report of a recording beside it; return where it is."""
    out = path.with_suffix(".html")
    found = None if differences is None else read_differences(differences)
    with Source.open(write(path, events, header)) as source, out.open("wb") as file:
        write_report(Survey(source, found).run(), file)
    return out


@pytest.fixture
def boot_page(opened: Open, tmp_path: Path) -> Page:
    return opened(report(tmp_path / "boot.rec", boot(ROUNDS)))


def tile(page: Page, name: str) -> str:
    """What a tile shows."""
    return (
        page.locator("#tiles div", has=page.locator("dt", has_text=name)).locator("dd").inner_text()
    )


def shown(page: Page) -> Locator:
    """The rows of the table of events."""
    return page.locator("#events-table tbody tr")


def view(page: Page) -> tuple[float, float]:
    """What the timeline shows, in nanoseconds."""
    found = page.locator("#lanes").evaluate("each => [+each.dataset.begin, +each.dataset.until]")
    return found[0], found[1]


def painted(page: Page, name: str) -> int:
    """How many pixels of the timeline have a colour of the style sheet."""
    count: int = page.locator("#lanes").evaluate(
        """({ width, height }, name) => {
            const copy = new OffscreenCanvas(width, height + 1);
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(byId("lanes"), 0, 0);
            context.fillStyle = colour(name);
            context.fillRect(0, height, 1, 1);
            const [r, g, b] = context.getImageData(0, height, 1, 1).data;
            const { data } = context.getImageData(0, 0, width, height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4) {
                if (data[i] === r && data[i + 1] === g && data[i + 2] === b) found += 1;
            }
            return found;
        }""",
        name,
    )
    return count


def test_the_page_shows_what_was_recorded_and_how_much(boot_page: Page) -> None:
    events = list(boot(ROUNDS))
    accesses = [each for each in events if isinstance(each, Access)]
    reads = sum(each.operation is Operation.READ for each in accesses)
    expect(boot_page).to_have_title("boot.rec: a recording of devices")
    expect(boot_page.locator("h1")).to_have_text("boot.rec")
    expect(boot_page.locator("#facts")).to_have_text(
        "recorded 2026-03-14 09:26:53+00:00 · by devicehost 0.1.0 · 4 devices"
    )
    assert tile(boot_page, "events") == f"{len(events):,}"
    assert tile(boot_page, "reads") == f"{reads:,}"
    assert tile(boot_page, "writes") == f"{len(accesses) - reads:,}"
    assert tile(boot_page, "lint errors") == "7"
    expect(boot_page.locator("#alerts")).to_be_hidden()
    expect(boot_page.locator("#differences")).to_be_hidden()
    devices = boot_page.locator("#devices-table tbody tr")
    expect(devices).to_have_count(4)
    expect(devices.first).to_contain_text("chardev=stdio clock=1843200")


def test_registers_are_shown_by_name_with_their_counts(boot_page: Page) -> None:
    accesses = [each for each in boot(ROUNDS) if isinstance(each, Access)]
    polls = sum(each.address == COM1 + 5 for each in accesses)
    line = boot_page.locator("#registers-table tr", has=boot_page.get_by_text("LSR", exact=True))
    assert line.locator("td").nth(1).inner_text() == str(polls)
    assert line.locator("td").nth(2).inner_text() == ""


def test_a_register_leads_to_its_events(boot_page: Page) -> None:
    boot_page.locator("#registers-table").get_by_role("button", name="REG_A").click()
    assert boot_page.locator("#search").input_value() == "REG_A"
    texts = shown(boot_page).all_inner_texts()
    assert texts
    assert all("REG_A = " in text and "rtc" in text for text in texts)


def test_search_lets_through_what_has_all_its_words(boot_page: Page) -> None:
    search = boot_page.locator("#search")
    search.fill("write dlab=1")
    expect(shown(boot_page)).to_have_count(1)
    expect(shown(boot_page)).to_contain_text("LCR = 0x80 (DLAB=1, WLS=0 5 bits)")
    expect(boot_page.locator("#events-count")).to_contain_text("1 of 2,070 events")
    search.fill("no such thing")
    expect(shown(boot_page)).to_have_count(0)
    boot_page.locator("#filter").get_by_role("button", name="Clear").click()
    expect(search).to_have_value("")
    expect(boot_page.locator("#events-count")).to_contain_text("2,070 of 2,070 events")


def test_events_are_filtered_by_kind_device_and_what_the_timeline_shows(boot_page: Page) -> None:
    boot_page.locator("#kind").select_option("interrupt")
    boot_page.locator("#device").select_option("timer0")
    expect(shown(boot_page)).to_have_count(ROUNDS)
    boot_page.locator("#in-view").check()
    expect(shown(boot_page)).to_have_count(ROUNDS)
    boot_page.locator("#lanes").focus()
    for _ in range(3):
        boot_page.keyboard.press("+")
    few = shown(boot_page).count()
    assert 0 < few < ROUNDS
    boot_page.keyboard.press("0")
    expect(shown(boot_page)).to_have_count(ROUNDS)


def test_more_rows_come_when_they_are_asked_for(boot_page: Page) -> None:
    before = shown(boot_page).count()
    boot_page.locator("#more").click()
    assert shown(boot_page).count() == 2 * before


def test_findings_lead_to_their_first_place(boot_page: Page) -> None:
    finding = boot_page.locator("#findings-list li", has_text="reserved-bits")
    expect(finding).to_contain_text("com1.MCR: reserved bits 0x68 are set")
    expect(finding).to_contain_text("3\u00d7")
    finding.get_by_role("button").click()
    target = boot_page.locator("#events-table tr.target")
    expect(target).to_contain_text("write pio 0x3fc 1 = 0x6b")
    expect(target).to_be_in_viewport()
    begin, until = view(boot_page)
    assert begin < 15_438_000 < until < begin + 2_000_000


def test_an_event_leads_to_its_place_in_the_timeline(boot_page: Page) -> None:
    boot_page.locator("#search").fill("timer0 pulsed")
    line = shown(boot_page).nth(4)
    at = float(line.locator("td").nth(1).inner_text().removesuffix(" s")) * 1e9
    line.get_by_role("button").click()
    begin, until = view(boot_page)
    assert begin < at < until
    expect(boot_page.locator("#lanes")).to_be_in_viewport()


def test_the_timeline_is_zoomed_and_moved_by_keys(boot_page: Page) -> None:
    everything = view(boot_page)
    assert everything[0] == 0
    boot_page.locator("#lanes").focus()
    boot_page.keyboard.press("+")
    begin, until = view(boot_page)
    assert until - begin == pytest.approx(everything[1] / 2)
    boot_page.keyboard.press("ArrowRight")
    assert view(boot_page)[0] == pytest.approx(begin + (until - begin) / 5)
    boot_page.keyboard.press("Home")
    assert view(boot_page) == pytest.approx((0, until - begin))
    boot_page.keyboard.press("End")
    assert view(boot_page)[1] == pytest.approx(everything[1])
    boot_page.keyboard.press("-")
    boot_page.keyboard.press("-")
    assert view(boot_page) == everything


def test_the_timeline_is_zoomed_by_wheel_around_the_pointer(boot_page: Page) -> None:
    box = boot_page.locator("#lanes").bounding_box()
    assert box is not None
    boot_page.mouse.move(box["x"] + 150 + (box["width"] - 162) / 4, box["y"] + 100)
    end = view(boot_page)[1]
    scrolled = boot_page.evaluate("scrollY")
    boot_page.mouse.wheel(0, -400)
    boot_page.wait_for_function("+document.getElementById('lanes').dataset.begin > 0")
    begin, until = view(boot_page)
    assert (until - begin) / end == pytest.approx(1.0015**-400, rel=0.01)
    assert begin + (until - begin) / 4 == pytest.approx(end / 4, rel=0.01)
    assert boot_page.evaluate("scrollY") == scrolled


def test_dragging_shows_what_was_selected_and_a_double_click_all(boot_page: Page) -> None:
    box = boot_page.locator("#lanes").bounding_box()
    assert box is not None
    end = view(boot_page)[1]
    plot = box["width"] - 162
    boot_page.mouse.move(box["x"] + 150 + plot * 0.6, box["y"] + 150)
    boot_page.mouse.down()
    boot_page.mouse.move(box["x"] + 150 + plot * 0.4, box["y"] + 150, steps=5)
    boot_page.mouse.up()
    assert view(boot_page) == pytest.approx((end * 0.4, end * 0.6), rel=0.01)
    expect(boot_page.locator("#range")).to_contain_text(f"({end * 0.2 / 1e6:.1f} ms)")
    boot_page.locator("#lanes").dblclick(position={"x": 400, "y": 150})
    assert view(boot_page) == (0, end)


def test_from_near_the_timeline_shows_single_events_with_their_meaning(boot_page: Page) -> None:
    boot_page.locator("#findings-list li", has_text="polling-loop").get_by_role("button").click()
    assert painted(boot_page, "read") > 100
    assert painted(boot_page, "accent") > 100  # a line marks the place
    canvas = boot_page.locator("#lanes")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    # The finding's place is in the middle, and the second lane is the RTC's.
    boot_page.mouse.move(box["x"] + 150 + (box["width"] - 162) / 2 + 2, box["y"] + 80 + 38 + 12)
    expect(boot_page.locator("#tooltip")).to_contain_text("REG_A = 0xa6 (UIP=1, DV=2, RS=6)")
    expect(boot_page.locator("#tooltip")).to_contain_text("rtc, vCPU 0")


def test_differences_of_a_replay_are_shown_and_lead_to_their_events(
    opened: Open, tmp_path: Path
) -> None:
    difference = {
        "event": 1201,
        "device": "com1",
        "register": "LSR",
        "what": "read",
        "expected": "0x60",
        "got": "0x40",
        "text": "THRE is 0 instead of 1",
    }
    path = report(tmp_path / "boot.rec", boot(ROUNDS), differences=json.dumps(difference))
    page = opened(path)
    assert tile(page, "differences") == "1"
    line = page.locator("#differences-table tbody tr")
    assert line.locator("td").all_inner_texts() == [
        *("event 1,201", "com1.LSR", "read", "0x60", "0x40", "THRE is 0 instead of 1"),
    ]
    line.get_by_role("button").click()
    expect(page.locator("#events-table tr.target td").first).to_have_text("1,201")


def test_damage_and_missing_events_are_said_at_the_top(opened: Open, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.rec", [*boot(2), Lost(70), *boot(2)])
    path.write_bytes(path.read_bytes()[:-300])
    out = tmp_path / "cut.html"
    with Source.open(path) as source, out.open("wb") as file:
        write_report(Survey(source).run(), file)
    alerts = opened(out).locator("#alerts p")
    expect(alerts).to_have_count(2)
    expect(alerts.nth(0)).to_contain_text("The recording is damaged: it was cut")
    expect(alerts.nth(1)).to_contain_text("70 events missing in the recording")


MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&lt;"


def test_markup_in_a_recording_is_shown_as_text(opened: Open, tmp_path: Path) -> None:
    device = DeviceRecord(
        MARKUP,
        MARKUP,
        {MARKUP: MARKUP, "second": [MARKUP]},
        ranges=((Space.PIO, COM1, 8),),
        registers=None,
    )
    header = Header((device,), version=MARKUP, started=MARKUP, note=MARKUP)
    guest = Guest()
    difference = dict.fromkeys(("device", "register", "what", "expected", "got", "text"), MARKUP)
    page = opened(
        report(
            tmp_path / f"{MARKUP.replace('/', '')}.rec",
            [*guest.setup(), *guest.interrupt(4, MARKUP)],
            header,
            json.dumps({"event": 1, **difference}),
        )
    )
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    for place in ("#facts", "#note", "#devices-table", "#events-table", "#differences-table",
                  "#registers-table", "#latency-table", "#device"):  # fmt: skip
        assert MARKUP in page.locator(place).inner_text(), place
    page.mouse.move(500, 400)
    page.locator("#search").fill(MARKUP)
    expect(shown(page)).to_have_count(2 + 7 + 1)


def test_an_empty_recording_has_a_page_as_well(opened: Open, tmp_path: Path) -> None:
    page = opened(report(tmp_path / "empty.rec", []))
    assert tile(page, "events") == "0"
    expect(page.locator("#findings-count")).to_have_text("none")


def test_the_page_works_without_most_events_of_a_long_recording(
    opened: Open, tmp_path: Path
) -> None:
    """So many that no page has them all; a million by DEVICEHOST_REPORTED_EVENTS."""
    guest = Guest()
    events = int(os.environ.get("DEVICEHOST_REPORTED_EVENTS", "100000"))

    def made() -> Iterable[Event]:
        block = [*guest.prints("a line of text\r\n", polls=3), *guest.reads_clock()]
        length = guest.now_ns - block[0].time_ns  # type: ignore[union-attr] # all are accesses
        for turn in range(events):
            event = block[turn % len(block)]
            assert isinstance(event, Access)
            shift = turn // len(block) * length
            yield Access(
                event.time_ns + shift, event.took_ns, event.vcpu, event.space, event.operation,
                event.address, event.size, event.data,
            )  # fmt: skip

    out = report(tmp_path / "long.rec", made())
    assert out.stat().st_size < 1_000_000
    page = opened(out)
    assert tile(page, "events") == f"{events:,}"
    expect(page.locator("#range")).to_contain_text(f"{events:,} accesses")
    expect(page.locator("#events-count")).to_have_text(
        f"{FIRST + LAST:,} of {FIRST + LAST:,} events on this page, of {events:,} in the recording"
    )
    assert painted(page, "read") > 1000
    end = view(page)[1]
    page.locator("#lanes").focus()
    for _ in range(12):
        page.keyboard.press("+")
    begin, until = view(page)
    assert until - begin == pytest.approx(end / 2**12)
    shown_now = page.locator("#range").inner_text()
    assert 0 < int(shown_now.split(": ")[1].split(" ")[0].replace(",", "")) < 2000
    for _ in range(FIRST // 250):
        page.locator("#more").click()
    expect(page.locator("#events-table tr.gap")).to_have_text(
        f"{events - FIRST - LAST:,} events not on this page"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    path = report(tmp_path / "boot.rec", boot(4))
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    ratios = page.evaluate(
        """() => {
            const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            const light = (name) => {
                probe.fillStyle = colour(name);
                probe.fillRect(0, 0, 1, 1);
                const linear = (each) =>
                    each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
                const pixel = [...probe.getImageData(0, 0, 1, 1).data];
                const [r, g, b] = pixel.map((each) => linear(each / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ratio = (...names) => {
                const [dark, bright] = names.map(light).sort((a, b) => a - b);
                return (bright + 0.05) / (dark + 0.05);
            };
            const found = {};
            for (const text of ["ink", "muted", "accent", "failed"]) {
                for (const back of ["page", "surface", "raised"]) {
                    found[`${text} on ${back}`] = ratio(text, back);
                }
            }
            return found;
        }"""
    )
    page.close()
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_every_control_has_a_name_and_can_be_reached_by_keys(boot_page: Page) -> None:
    controls = boot_page.locator("main button, main input, main select, main canvas[tabindex]")
    names = controls.evaluate_all(
        """all => all.filter((each) => each.checkVisibility()).map((each) =>
            each.getAttribute("aria-label") ||
            each.closest("label")?.textContent || each.textContent)"""
    )
    assert len(names) > 20
    assert all(name.strip() for name in names)
    boot_page.locator("#lanes").focus()
    boot_page.keyboard.press("Shift+Tab")
    expect(boot_page.get_by_role("button", name="Show all")).to_be_focused()
    boot_page.keyboard.press("Shift+Tab")
    boot_page.keyboard.press("Shift+Tab")
    boot_page.keyboard.press("Enter")
    begin, until = view(boot_page)
    assert until - begin == pytest.approx(until * 2 / 3, rel=0.01)
