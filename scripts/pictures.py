#!/usr/bin/env python3
"""Take the pictures of the documentation from the live demo: the status page in light and dark, and `watch`.

    make pictures

It monitors the demo's real services for a minute, breaks some of them, and then takes the pictures during a fault, in
headless Chromium (`make browser`). The files are docs/images/status-page-{light,dark}.png and watch.png.
"""

import asyncio
import fcntl
import html
import os
import pty
import struct
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

import pyte
from connection_exporter.app import serving
from connection_exporter.demo.run import Demo, start_demo
from connection_exporter.kinds import load_text
from connection_exporter.web.server import bind

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.chromium import Tab, chromium_tab  # noqa: E402 - the tests' browser, whose folder is added above

IMAGES: Final = ROOT / "docs" / "images"
COLUMNS, ROWS = 118, 14
COLORS: Final = {
    "default": "#d9dce2",
    "brown": "#F0B429",
    "red": "#ff6b4a",
    "green": "#2bd4a0",
    "cyan": "#7CC7F5",
}
BACKGROUND: Final = "#0e1116"
PAGE: Final = (
    f'<!doctype html><meta charset="utf-8"><body style="margin:0;background:{BACKGROUND}">'
    '<pre style="display:inline-block;margin:0;padding:14px;font:15px/1.3 DejaVu Sans Mono,monospace">{}</pre>'
)


async def some_life(demo: Demo) -> None:
    """Break and repair services, so that the pictures show a history. Leaves Redis down."""
    await asyncio.sleep(15)
    await demo.bot.kill()
    await asyncio.sleep(8)
    await demo.bot.start()
    await demo.database.pause()
    await asyncio.sleep(12)
    await demo.database.resume()
    await asyncio.sleep(15)
    await demo.redis.kill()
    await asyncio.sleep(20)


async def picture_of_page(tab: Tab, url: str, *, dark: bool) -> None:
    """Take the status page as it is on a screen of 1280 by 900 pixels."""
    await tab.look(width=1280, height=900, dark=dark)
    await tab.open(url)
    await tab.until("document.querySelectorAll('.strip path').length > 4")
    await asyncio.sleep(2)
    (IMAGES / f"status-page-{'dark' if dark else 'light'}.png").write_bytes(await tab.picture())


async def picture_of_watch(tab: Tab, url: str, demo: Demo) -> None:
    """Run `watch` in a terminal of its own, kill the bot meanwhile, and take what it shows."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connection_exporter", "watch", url),
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True,
    )  # fmt: skip
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: stream.feed(os.read(ours, 65536)))
    await asyncio.sleep(4)
    await demo.bot.kill()
    await asyncio.sleep(8)
    loop.remove_reader(ours)
    process.terminate()
    await process.wait()
    os.close(ours)
    os.close(terminal)
    lines = []
    for row in range(ROWS):
        cells = (screen.buffer[row][column] for column in range(COLUMNS))
        lines.append("".join(cell_as_html(cell) for cell in cells).rstrip())
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(PAGE.format("\n".join(lines)))
        file.flush()
        await tab.open(f"file://{file.name}")
        await tab.until("document.querySelector('pre')")
        size = await tab.evaluate(
            "[document.querySelector('pre').offsetWidth, document.querySelector('pre').offsetHeight]"
        )
        await tab.look(width=size[0], height=size[1], dark=True)
        (IMAGES / "watch.png").write_bytes(await tab.picture())


def cell_as_html(cell: pyte.screens.Char) -> str:
    """Return one character with its color."""
    color = COLORS.get(cell.fg, f"#{cell.fg}" if len(cell.fg) == 6 else COLORS["default"])
    colors = f"background:{color};color:{BACKGROUND}" if cell.reverse else f"color:{color}"
    weight = ";font-weight:bold" if cell.bold else ""
    return f'<span style="{colors}{weight}">{html.escape(cell.data)}</span>'


async def main() -> None:
    """Take all pictures."""
    async with start_demo(print) as demo:
        sockets = bind(["127.0.0.1:0"])
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        async with serving(load_text(demo.config), sockets), chromium_tab() as tab:
            print(f"monitoring {url} for about a minute", flush=True)
            await some_life(demo)
            for dark in (False, True):
                await picture_of_page(tab, url, dark=dark)
            await picture_of_watch(tab, url, demo)
    print(f"wrote {', '.join(sorted(path.name for path in IMAGES.glob('*.png')))} in docs/images")


if __name__ == "__main__":
    asyncio.run(main())
