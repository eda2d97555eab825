"""A report in a headless Chromium, driven through its DevTools protocol.

    test_report.py REPORT.html [PICTURES]

Exits with 77 where there is no browser. With a directory PICTURES it leaves screenshots there.
"""

import base64
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ["chromium-headless-shell", "chromium", "google-chrome", "chrome"]
EVIL = "<script>alert(1)</script>"
KEYS = {"Enter": ("\r", 13), " ": (" ", 32), "Tab": (None, 9)}


class Browser:
    def __init__(self, program, profile):
        # As root, as in containers, there is no sandbox to be had.
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for line in self.process.stderr:
            if "DevTools listening on" in line:
                address = line.split()[-1]
                break
        else:
            raise RuntimeError("the browser ended at once")
        import urllib.request

        port = address.split("/")[2]
        pages = json.load(urllib.request.urlopen(f"http://{port}/json/list"))
        import websocket

        self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60)
        self.number = 0
        self.events = []
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.events.append(message)

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        until = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < until, "the page does not load"

    def key(self, name):
        text, code = KEYS[name]
        common = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def size(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path):
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


def luminance(colour):
    parts = [int(p) / 255 for p in colour[colour.index("(") + 1:-1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    a, b = sorted([luminance(a), luminance(b)])
    return (b + 0.05) / (a + 0.05)


def check_sorting(b):
    columns = b.run("document.querySelectorAll('#runs thead th').length")
    assert columns == 17, columns
    for i in range(columns):
        numeric = b.run(f"document.querySelectorAll('#runs thead th')[{i}].dataset.kind === 'number'")
        for _ in range(2):
            b.run(f"document.querySelectorAll('#runs thead button')[{i}].click()")
            order = b.run(f"document.querySelectorAll('#runs thead th')[{i}].getAttribute('aria-sort')")
            marked = b.run("document.querySelectorAll('#runs [aria-sort]').length")
            assert marked == 1 and order in ["ascending", "descending"], (i, order, marked)
            read = "c.dataset.v" if numeric else "c.textContent.trim().toLowerCase()"
            values = b.run(f"[...document.querySelectorAll('#runs tbody tr')].map(r => r.cells[{i}]).map(c => {read})")
            there = [v for v in values if v != ""]
            assert values[:len(there)] == there, (i, "missing values are last", values)
            keys = [float(v) for v in there] if numeric else there
            assert keys == sorted(keys, reverse=order == "descending"), (i, order, keys)
            assert not numeric or all(math.isfinite(k) for k in keys)
    missing = b.run("[...document.querySelectorAll('#runs tbody td[data-v=\"\"]')].length")
    assert missing > 0, "no column had a missing value to be put last"


def check_filters(b):
    rows = b.run("document.querySelectorAll('#runs tbody tr').length")
    shown = "[...document.querySelectorAll('#runs tbody tr')].filter(r => r.getClientRects().length)"
    says = "document.getElementById('count').textContent"

    def choose(field, value):
        b.run(f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
              f"(document.getElementById('f-{field}'))")

    for field in ["target", "sampler", "state"]:
        for value in b.run(f"[...document.getElementById('f-{field}').options].map(o => o.value)"):
            choose(field, value)
            found = b.run(f"{shown}.map(r => r.dataset.{field})")
            wanted = b.run(f"[...document.querySelectorAll('#runs tbody tr')].map(r => r.dataset.{field})")
            assert sorted(found) == sorted(w for w in wanted if value in ("", w)), (field, value, found)
            count = f"{rows} runs." if len(found) == rows else f"{len(found)} of {rows} runs."
            assert b.run(says) == count, b.run(says)
        choose(field, "")
    choose("text", "BLEW up")
    assert b.run(f"{shown}.map(r => r.dataset.state)") == ["failed"] * 2
    choose("text", "no such word")
    assert b.run(f"{shown}.length") == 0 and b.run(says).startswith("0 of")
    b.run("document.querySelector('#filters button[type=reset]').click()")
    b.run("new Promise(done => setTimeout(done, 50))")
    assert b.run(f"{shown}.length") == rows


def check_keyboard(b):
    for name in ["Enter", " "]:
        b.run("document.querySelectorAll('#runs thead button')[4].focus()")
        before = b.run("document.querySelectorAll('#runs thead th')[4].getAttribute('aria-sort')")
        b.key(name)
        after = b.run("document.querySelectorAll('#runs thead th')[4].getAttribute('aria-sort')")
        assert after and after != before, (name, before, after)
    b.key("Tab")
    focused = b.run("document.activeElement.textContent")
    assert focused == "95 % interval", focused


def check_looks(b, pictures):
    for scheme in ["light", "dark"]:
        b.scheme(scheme)
        pairs = b.run("""[...document.querySelectorAll('body, a, .soft, .badge, th, td, dt, button, summary, pre, h1, figcaption')]
            .map(e => { let g = e, c = 'rgba(0, 0, 0, 0)';
              while (g && c === 'rgba(0, 0, 0, 0)') { c = getComputedStyle(g).backgroundColor; g = g.parentElement; }
              return [e.tagName + '.' + e.className, getComputedStyle(e).color, c]; })""")
        assert len(pairs) > 100
        for name, ink, ground in {tuple(p) for p in pairs}:
            assert contrast(ink, ground) >= 4.5, (scheme, name, ink, ground)
        dark = luminance(b.run("getComputedStyle(document.body).backgroundColor")) < 0.1
        assert dark == (scheme == "dark")
        for width in [360, 1280]:
            b.size(width)
            b.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            wide = b.run("[document.documentElement.scrollWidth, innerWidth, visualViewport.width]")
            assert wide[0] <= width and wide[1] <= width, (width, wide)
            sheet = b.run("(s => getComputedStyle(s).overflowX)(document.querySelector('.scroll'))")
            assert sheet == "auto"
            if pictures:
                b.run("document.querySelectorAll('details').forEach(d => d.open = false)")
                b.run("document.querySelector('details.run').open = true")
                for i, place in enumerate(["h1", "#summary", "details.run", "#cite"]):
                    b.run(f"document.querySelector({json.dumps(place)}).scrollIntoView()")
                    b.picture(pictures / f"{scheme}-{width}-{i}.png")


def check_structure(b):
    assert b.run("document.documentElement.lang") == "en" and b.run("document.title")
    levels = b.run("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:])), levels
    ids = b.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = b.run("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))")
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)
    pictures = b.run("[...document.querySelectorAll('img')].map(i => [i.alt, i.src.slice(0, 26)])")
    assert len(pictures) > 10 and all(alt and src == "data:image/svg+xml;base64," for alt, src in pictures)
    b.run("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    b.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    broken = b.run("Promise.all([...document.querySelectorAll('img')].map(i => i.decode().then(() => '', () => i.alt)))")
    assert not any(broken), broken


def check_escaping(b):
    assert b.run("document.querySelectorAll('script').length") == 1
    assert b.run("document.querySelectorAll('img[onerror]').length") == 0
    text = b.run("document.body.textContent")
    assert text.count(EVIL) > 3
    assert b.run("document.querySelectorAll('#runs tbody tr')[0].dataset.target.length") > 0


def check_copying(b):
    b.run("document.querySelector('#cite .copyable button').click()")
    assert b.run("getSelection().toString()").startswith("@software{")


def check_links(b):
    b.run("document.querySelectorAll('details').forEach(d => d.open = false)")
    b.run("document.querySelector('#runs tbody a').click()")
    b.run("new Promise(done => setTimeout(done, 50))")
    assert b.run("document.getElementById(location.hash.slice(1)).open") is True


def main():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print(f"no browser here (any of {', '.join(NAMES)}): scripts/bootstrap.sh --tests installs one", file=sys.stderr)
        return 77
    report = Path(sys.argv[1]).resolve()
    pictures = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as profile:
        b = Browser(program, profile)
        try:
            b.size(1280)
            b.open(report.as_uri())
            checks = [check_structure, check_sorting, check_filters, check_keyboard, check_escaping, check_copying,
                      check_links]
            if pictures:
                checks = []
            for check in checks:
                check(b)
            check_looks(b, pictures)
            asked = [e["params"]["request"]["url"] for e in b.events if e["method"] == "Network.requestWillBeSent"]
            asked = [url for url in asked if not url.startswith("data:")]
            assert asked == [report.as_uri()], asked
            bad = [e for e in b.events if e["method"] in ["Runtime.exceptionThrown", "Log.entryAdded",
                                                           "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"]]
            assert not bad, bad
            print(f"{len(checks) + 1} groups of checks in {Path(program).name}")
        finally:
            b.process.terminate()
            b.process.wait(timeout=20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
