"""Finding the machine's Chromium."""

import shutil


def chromium_or_why_not() -> tuple[str | None, str | None]:
    """Return the path of Chromium, or why there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path, None
    return None, "no Chromium on this machine; `apt-get install chromium` has these tests run"
