#!/bin/sh
# Chromium for tests/test_browser.py and tests/test_page.py, where it can be installed: Debian and Ubuntu, as root.
# Elsewhere they are skipped, and nothing fails for want of it.
set -u
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 && exit 0
fi
echo "note: no chromium here and none can be installed: the tests in a browser are skipped" >&2
