"""The status page in a real browser: live, honest when it loses the exporter, and safe from what services say."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
from connection_exporter.demo.ports import free_port
from connection_exporter.web.page import PAGE, PAGE_HEADERS
from support.chromium import Tab, chromium_tab
from support.live import QUICK, SLOW, Web, exporter, web

ROOT: Final = Path(__file__).resolve().parents[2]
CSS: Final = PAGE.partition("<style>")[2].partition("</style>")[0]
STATUS: Final = "document.querySelector('[data-name={0}]').dataset.status"


@asynccontextmanager
async def page(services: str) -> AsyncIterator[Tab]:
    """Open the page of an exporter that watches ``services``; it must not complain of anything."""
    async with exporter(services) as (url, _), chromium_tab() as tab:
        await tab.open(url)
        await tab.until("document.querySelector('.card')")
        yield tab
        assert tab.complaints == []


def api(service: Web, settings: str = QUICK, name: str = "api") -> str:
    return f"{name}: {{kind: http, url: 'http://127.0.0.1:{service.port}/', {settings}}}"


async def test_a_real_fault_changes_the_card_without_a_reload() -> None:
    """Card, banner, title, sign in the tab and what is read out all follow, there and back."""
    async with web() as service, page(api(service)) as tab:
        await tab.until(f"{STATUS.format('api')} === 'healthy'")
        await tab.until("document.title.startsWith('✓ All healthy')")
        await tab.evaluate("window.stillHere = true")
        icon = await tab.evaluate("document.getElementById('favicon').href")
        await service.stop()
        await tab.until(f"{STATUS.format('api')} === 'disconnected'")
        await tab.until("document.title.startsWith('✕ 1 down')")
        await tab.until("document.querySelector('.reason').textContent === 'refused'")
        await tab.until("document.querySelector('.message').textContent.includes('connection refused')")
        await tab.until("/^[2-9]\\d* attempts failed/.test(document.querySelector('.retries').textContent)")
        await tab.until("document.querySelector('.session').textContent === '✕ down'")
        await tab.until("/^(in \\d+ s|now)$/.test(document.querySelector('.next').textContent)")
        await tab.until("document.querySelector('.strip [data-status=disconnected]')?.getAttribute('d')")
        await tab.until("document.getElementById('said').textContent.includes('api')")
        assert await tab.evaluate("document.getElementById('favicon').href") != icon
        assert await tab.evaluate("document.getElementById('sentence').textContent") == (
            "api is down; 0 of 1 healthy."
        )
        await service.start()
        await tab.until(f"{STATUS.format('api')} === 'healthy'")
        await tab.until("document.querySelector('.why').hidden")
        await tab.until("document.querySelector('.spark path').hasAttribute('d')")
        assert await tab.evaluate("window.stillHere")


async def test_a_service_that_was_never_up_is_not_available_and_explains_the_status() -> None:
    """Nothing is known of it while it connects for the first time, and the overall status is unknown because of it."""
    async with web() as service:
        service.status = "500 No"
        new = (
            f"new: {{kind: redis, port: {free_port()}, retries: 1000, {QUICK.replace('retries: 2, ', '')}}}\n"
        )
        job = "job: {kind: heartbeat, max_age: 1h}\n"
        async with page(new + job + api(service)) as tab:
            await tab.until(f"{STATUS.format('api')} === 'unhealthy'")
            await tab.until("document.getElementById('overall-word').textContent === 'Status unknown'")
            said = "No success yet of new and job. api is unhealthy, 2 more not healthy; 0 of 3 healthy."
            await tab.until(f"document.getElementById('sentence').textContent === '{said}'")
            tally = "document.querySelector('[data-name={0}] .tally').textContent"
            await tab.until(tally.format("api") + ".startsWith('0.0 % available')")
            assert await tab.evaluate(tally.format("new")) == ""
            assert (
                await tab.evaluate("document.querySelector('[data-name=job] .canary').textContent")
                == "not used"
            )


async def test_a_page_that_loses_the_exporter_says_so_and_reconnects() -> None:
    """Until then it shows nothing as current, and says how old it is."""
    port = free_port()
    async with web() as service, chromium_tab() as tab:
        async with exporter(api(service), port=port) as (url, _):
            await tab.open(url)
            await tab.until("document.title.startsWith('✓ All healthy')")
            assert await tab.evaluate("document.getElementById('cut').hidden")
        await tab.until("document.title.startsWith('⚡ connection lost')")
        assert await tab.evaluate("document.getElementById('overall-word').textContent") == "Not known"
        assert await tab.evaluate("document.getElementById('top').dataset.status") == "unknown"
        assert (
            await tab.evaluate("document.getElementById('cut-what').textContent")
            == "Lost connection to the exporter."
        )
        await tab.until(
            "/status of [0-9:]{8}, \\d+ s ago/.test(document.getElementById('cut-age').textContent)"
        )
        async with exporter(api(service), port=port):
            await tab.until("document.title.startsWith('✓ All healthy')")
            await tab.until("document.getElementById('cut').hidden")
            await tab.until("document.getElementById('link-word').textContent === 'live'")
        assert all(complaint.startswith("network: ") for complaint in tab.complaints)


SATURATION = """
(async () => {
  const image = new Image();
  image.src = "data:image/png;base64,%s";
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let most = 0;
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
    most = Math.max(most, Math.max(red, green, blue) - Math.min(red, green, blue));
  }
  return most;
})()
"""


async def saturation(tab: Tab) -> int:
    """Return the greatest difference between the color channels of any pixel that the tab shows, 0 to 255."""
    picture = base64.b64encode(await tab.picture()).decode()
    return int(await tab.evaluate(SATURATION % picture))


@pytest.mark.parametrize("count", [3, 30], ids=["few", "many"])
async def test_a_page_that_loses_the_exporter_turns_gray(count: int) -> None:
    """With few and with many services, measured in what the screen shows: no color is left, only grays."""
    async with web() as service, chromium_tab() as tab:
        lines = "\n".join(api(service, SLOW, f"s{number}") for number in range(count))
        async with exporter(lines) as (url, _):
            await tab.open(url)
            await tab.look(width=1280, height=1600)
            await tab.until("document.title.startsWith('✓ All healthy')")
            await tab.until("document.querySelectorAll('[data-status=healthy] .badge').length > 2")
            assert await saturation(tab) > 100
        await tab.until("document.title.startsWith('⚡ connection lost')")
        await tab.evaluate(
            "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
        )
        assert await saturation(tab) < 40


async def test_incidents_of_all_services_are_in_one_list() -> None:
    """Newest first, with the worst status, the reason and how long it took."""
    async with web() as service, page(f"{api(service)}\n{api(service, name='other')}") as tab:
        await tab.until("document.title.startsWith('✓ All healthy')")
        await service.stop()
        await tab.until("document.title.startsWith('✕ 2 down')")
        await service.start()
        await tab.until("document.title.startsWith('✓ All healthy')")
        await tab.click("#incidents summary")
        await tab.until("document.querySelectorAll('#incidents-list li').length === 2")
        text = await tab.evaluate("document.getElementById('incidents-list').innerText")
        assert "✕ api" in text
        assert "✕ other" in text
        assert re.search(r"disconnected for \d+ s", text)
        assert "refused" in text
        times = await tab.evaluate(
            "[...document.querySelectorAll('#incidents-list time')].map((time) => [time.dateTime, time.title])"
        )
        assert [at for at, _ in times] == sorted((at for at, _ in times), reverse=True)
        assert all(re.search(r" (UTC|GMT\S*|[A-Z]{3,4})$", title) for _, title in times)


async def test_latency_survives_a_reload() -> None:
    """Nothing is measured after the reload, so that what is drawn is from before it."""
    points = "document.querySelector('.spark path')?.getAttribute('d')?.split('L').length"
    async with web() as service, page(api(service)) as tab:
        await tab.until(f"{points} > 5")
        await service.stop()
        await tab.until("document.title.startsWith('✕ 1 down')")
        await tab.evaluate("window.isOld = true")
        await tab.call("Page.reload")
        await tab.until(f"window.isOld === undefined && {points} > 5")


async def test_a_check_is_forced_by_click_and_by_keyboard() -> None:
    """The service is really asked; a request too soon is answered with the time to wait, and keeps the focus."""
    async with web() as service, page(api(service, SLOW)) as tab:
        await tab.until(f"{STATUS.format('api')} === 'healthy'")
        asked = service.asked
        await tab.click(".card .force")
        await tab.until("document.querySelector('.card .note').textContent.includes('Checked just now')")
        assert service.asked == asked + 1
        await tab.click(".card .force")
        await tab.until("document.querySelector('.card .force').textContent.startsWith('Wait')")
        await tab.until("document.querySelector('.card .force').textContent === 'Force check'")
        await tab.evaluate("document.querySelector('.card .force').focus()")
        service.status = "500 Internal Server Error"
        await tab.press("Enter", code=13, text="\r")
        await tab.until(f"{STATUS.format('api')} === 'unhealthy'")
        assert service.asked == asked + 2
        await tab.until("document.activeElement?.getAttribute('aria-label') === 'Force check api'")
        tab.complaints[:] = [one for one in tab.complaints if "429" not in one]


async def test_all_checks_are_forced_at_once() -> None:
    """By the keyboard alone: the button is reached with Tab."""
    async with web() as service:
        two = f"{api(service, SLOW)}\n{api(service, SLOW, 'other')}"
        async with page(two) as tab:
            await tab.until("document.querySelectorAll('[data-status=healthy].card').length === 2")
            asked = service.asked
            for _ in range(4):
                await tab.press("Tab", code=9)
                if await tab.evaluate("document.activeElement.id") == "force-all":
                    break
            await tab.press("Enter", code=13, text="\r")
            await tab.until(
                "document.getElementById('force-all-note').textContent === 'All services were checked.'"
            )
            assert service.asked == asked + 2


async def test_a_message_that_holds_html_is_shown_as_text() -> None:
    """Whatever a service says, the page shows it and does not obey it."""
    html = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while commands := await reader.read(1000):
            writer.write(f"-ERR {html}\r\n".encode() * len(re.findall(rb"(?m)^\*\d", commands)))
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with page(f"cache: {{kind: redis, url: 'redis://127.0.0.1:{port}/0', {QUICK}}}") as tab:
            await tab.until("document.querySelector('.message')?.textContent.includes('<img src=x')")
            await tab.evaluate("document.querySelector('.card details').open = true")
            await tab.until("document.querySelector('.changes')?.textContent.includes('<script>')")
            assert await tab.evaluate("document.querySelectorAll('.card img, .card script').length") == 0
            assert "owned" not in await tab.evaluate("document.title")


async def test_many_services_stay_readable() -> None:
    """The problem is first and whole, the others are a line each, and the filter finds one."""
    async with web() as service:
        lines = [api(service, SLOW, f"s{number}") for number in range(200)]
        lines[150] = "bad: {kind: http, url: 'http://127.0.0.1:1/', retries: 1, canary: off}"
        async with page("\n".join(lines)) as tab:
            await tab.until("document.querySelectorAll('#problems .card').length === 1", seconds=20)
            assert await tab.evaluate("document.querySelector('.card').dataset.name") == "bad"
            assert await tab.evaluate("document.querySelectorAll('#groups .compact').length") == 199
            assert "199" in await tab.evaluate("document.getElementById('chips').textContent")
            await tab.press("/", text="/")
            await tab.until("document.activeElement.id === 'filter'")
            await tab.call("Input.insertText", text="s42")
            await tab.until("[...document.querySelectorAll('.card')].filter((c) => !c.hidden).length === 1")
            await tab.press("Escape", code=27)
            await tab.until("[...document.querySelectorAll('.card')].filter((c) => !c.hidden).length === 200")
            await tab.click("[data-name=s0] .more")
            await tab.until("document.querySelector('[data-name=s0] .body')")


async def test_the_page_fits_a_phone_and_names_all_that_can_be_used() -> None:
    """Nothing is wider than the screen, and every control has a name for a screen reader."""
    async with web() as service, page(api(service)) as tab:
        await tab.look(width=390, height=844, dark=True, mobile=True)
        await tab.until("document.querySelector('.strip')")
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 390
        tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
        roles = {node["role"]["value"] for node in tree if not node["ignored"]}
        assert {"banner", "main", "search", "contentinfo", "list", "article", "status"} <= roles
        controls = [
            node for node in tree if node.get("role", {}).get("value") in ("button", "searchbox", "link")
        ]
        assert controls
        assert all(node["name"]["value"].strip() for node in controls)


async def test_the_page_makes_no_other_requests_and_its_policy_allows_no_more() -> None:
    """One answer, one style, one script, and a policy that holds them by their hashes."""
    async with (
        web() as service,
        exporter(api(service)) as (url, _),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        answer = await client.get(url)
    assert answer.text == PAGE
    policy = answer.headers["content-security-policy"]
    assert policy == PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe" not in policy
    assert "*" not in policy
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.]+\.[a-z]+", PAGE))
    assert addresses == {"http://www.w3.org"}
    assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(|\son[a-z]+=", PAGE)


def test_the_colours_are_those_of_the_dashboards() -> None:
    """A colour means the same everywhere: docs/dashboards.md has them."""
    rows = re.findall(
        r"^\| [a-z ]+ `(#[0-9A-F]{6})` \| \S (\w+) \|",
        (ROOT / "docs/dashboards.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 5
    for colour, status in rows:
        assert f"--{status}: {colour};" in CSS


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "card", "button"])
@pytest.mark.parametrize("ink", ["ink", "soft"])
def test_texts_have_enough_contrast(scheme: int, ground: str, ink: str) -> None:
    """WCAG AA: 4.5 to 1, in both schemes; button texts that are not soft, too."""
    values = dict(
        re.findall(
            r"--([a-z]+): (#[0-9a-fA-F]{6});", CSS.split("@media (prefers-color-scheme: dark)")[scheme]
        )
    )
    if (ink, ground) != ("soft", "button"):
        assert contrast(values[ink], values[ground]) >= 4.5


def test_words_on_colours_have_enough_contrast() -> None:
    """The same for the badges."""
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-fA-F]{6});", CSS))
    badges = re.findall(r"--tint: var\(--([a-z]+)\); --on: (#[0-9a-f]{3});", CSS)
    assert len(badges) == 5
    for status, ink in badges:
        assert contrast(colours[status], "#" + "".join(digit * 2 for digit in ink[1:])) >= 4.5


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
