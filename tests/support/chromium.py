"""Owns a headless Chromium and one tab of it, driven over the DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.asyncio.client import ClientConnection, connect

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
_ROOT: Final = Path(__file__).resolve().parents[2]
_MISSING: Final = (
    "Chromium is neither in PATH nor in .tools/bin: run `make browser`, or `apt-get install chromium`"
)


class Tab:
    """One tab: what it shows, and everything that it complained of."""

    def __init__(self, wire: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._wire = wire
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the protocol. Raises AssertionError with what Chromium says against it."""
        self._last += 1
        number, answer = self._last, asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._wire.send(json.dumps({"id": number, "method": method, "params": params}))
        result: dict[str, Any] = await asyncio.wait_for(answer, 20)
        return result

    async def open(self, url: str) -> None:
        """Go to an address."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, *, seconds: float = 15.0) -> None:
        """Wait until a JavaScript expression is true; what it asks of can still be absent."""
        asked = f"(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()"
        deadline = asyncio.get_running_loop().time() + seconds
        while not await self.evaluate(asked):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {script}\n{text[:2000]}")
            await asyncio.sleep(0.05)

    async def press(self, key: str, *, code: int = 0, text: str = "") -> None:
        """Press a key, as a keyboard does."""
        values = {"key": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    async def click(self, selector: str) -> None:
        """Click into the middle of an element once it has come to rest, as a mouse does."""
        where = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "const [x, y] = [r.x + r.width / 2, r.y + r.height / 2]; "
            "return e.contains(document.elementFromPoint(x, y)) ? [x, y] : null; })()"
        )
        before, found = None, await self.evaluate(where)
        deadline = asyncio.get_running_loop().time() + 15.0
        while found is None or found != before:
            assert asyncio.get_running_loop().time() < deadline, f"{selector} cannot be clicked"
            await asyncio.sleep(0.1)
            before, found = found, await self.evaluate(where)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=found[0], y=found[1], button="left", clickCount=1
            )

    async def look(self, *, width: int, height: int, dark: bool = False, mobile: bool = False) -> None:
        """Set the size of the screen and the colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """Return what the tab shows, as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def listen(self) -> None:
        """Take in answers and complaints, until the connection ends."""
        async for message in self._wire:
            reported = json.loads(message)
            if "id" in reported:
                answer = self._answers.pop(reported["id"])
                if "error" in reported:
                    answer.set_exception(AssertionError(reported["error"]["message"]))
                else:
                    answer.set_result(reported["result"])
            else:
                self._complain(reported["method"], reported["params"])

    def _complain(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {params['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console: {params['args']}")
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")


@asynccontextmanager
async def chromium_tab() -> AsyncIterator[Tab]:
    """Start Chromium with a profile of its own, and give its one tab."""
    search = os.pathsep.join([os.environ.get("PATH", ""), str(_ROOT / ".tools" / "bin")])
    program = shutil.which("chromium", path=search) or shutil.which("chromium-browser", path=search)
    assert program is not None, _MISSING
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with connect(await _tab_address(Path(profile)), max_size=None, proxy=None) as wire:
                tab = Tab(wire)
                listening = asyncio.create_task(tab.listen())
                try:
                    yield tab
                finally:
                    listening.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _tab_address(profile: Path) -> str:
    """Return where the tab's protocol is spoken, once Chromium has written down its port."""
    deadline = asyncio.get_running_loop().time() + 30
    async with httpx.AsyncClient(trust_env=False) as client:
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            written = profile / "DevToolsActivePort"
            if not written.exists() or not (lines := written.read_text().split()):
                continue
            targets = (await client.get(f"http://127.0.0.1:{lines[0]}/json/list")).json()
            for target in targets:
                if target["type"] == "page":
                    return str(target["webSocketDebuggerUrl"])
    raise AssertionError("Chromium did not start within 30 s")
