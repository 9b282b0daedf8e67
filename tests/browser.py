"""A page in Chromium, without a window: the page drives itself, and tells what it found."""

import itertools
import json
import re
import shutil
import subprocess
import threading

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run
--disable-background-networking --disable-component-update --disable-extensions --mute-audio
--autoplay-policy=no-user-gesture-required --enable-logging=stderr --remote-debugging-port=0"""
SCREENS = list(itertools.product((390, 1280), (False, True)))  # width, whether it is dark
SECONDS = 1800  # after which a page is taken to hang


def open_page(address, width, home, is_dark=False):
    """What a page found: (result, lines of its console).

    The page says it by console.log("RESULT " + JSON.stringify(...) + " END"); None if it never did.

    Args:
        address: of the page, a URL.
        width: of the window and the page, pixels; the window's height is 900.
        home: folder for the browser's own files.
        is_dark: whether the page is told that its reader wants dark pages.
    """
    size = f"--window-size={width},900"
    scheme = f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"
    place = [f"--user-data-dir={home}", f"--app={address}"]  # other windows are 500 wide at least
    command = [CHROMIUM, *FLAGS.split(), scheme, size, *place]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    browser = subprocess.Popen(command, text=True, errors="replace", **pipes)
    timer = threading.Timer(SECONDS, browser.kill)
    timer.start()
    console = []
    try:
        for line in browser.stderr:
            if "CONSOLE" in line:
                console.append(line)
                found = re.search(r"RESULT (.*) END", line)
                if found:
                    return json.loads(found[1]), console
    finally:
        timer.cancel()
        browser.kill()
        browser.communicate()
    return None, console
