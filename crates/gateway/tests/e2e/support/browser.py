"""A headless Chromium, as a person's browser would meet the demo page."""

import contextlib
import pathlib
import re
import shutil
import tempfile

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from .process import Process

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # it cannot be had as root, and the only page is ours
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",  # nothing beyond loopback can be reached
]


class Browser:
    """One window with a profile of its own, `size` in CSS pixels; `scheme` is light or dark."""

    name = "the page"

    def __init__(self, size=(1200, 900), scheme="light"):
        self.size = size
        self.scheme = scheme

    def open(self, url):
        self.driver.get(url)

    def leave(self):
        """Starts afresh. A browser keeps connections for what it might ask next, also of a page that is closed."""
        self.__exit__()
        self.__enter__()

    def each(self, selector, expression):
        """A JavaScript expression of each match, `one`. All in one look: elements may be replaced while one asks."""
        look = f"return [...document.querySelectorAll(arguments[0])].map(one => {expression})"
        return self.driver.execute_script(look, selector)

    def texts(self, selector):
        return self.each(selector, "one.innerText.trim()")

    def text(self, selector):
        (text,) = self.texts(selector)
        return text

    def click(self, selector):
        """Of an element that the page replaces before the click, its successor."""
        while True:
            with contextlib.suppress(StaleElementReferenceException):
                return self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def fill(self, selector, text):
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def choose(self, selector, value):
        Select(self.driver.find_element(By.CSS_SELECTOR, selector)).select_by_value(value)

    def press(self, key, on):
        self.driver.find_element(By.CSS_SELECTOR, on).send_keys(key)

    def console(self):
        """What the console has got since it was last asked for."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self, path):
        assert self.driver.save_screenshot(str(path)), f"cannot write {path}"

    def whole_screenshot(self, path):
        """Of the page to its end, however far one would have to scroll."""
        width, height = self.size
        self._resize(width, max(height, self.driver.execute_script("return document.documentElement.scrollHeight")))
        self.screenshot(path)
        self._resize(width, height)

    def wear(self, scheme):
        """As if the person had switched to light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def log(self):
        """For the report of a failed story, as of a process."""
        try:
            return "\n".join([self.text("body"), *self.console()])
        except WebDriverException as error:
            return f"the browser does not answer: {error}"

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            # What the browser's last helpers still write may stand in the way of cleaning up.
            profile = tempfile.TemporaryDirectory(prefix="causeway-browser-", ignore_cleanup_errors=True)
            self.driver = self._started(stack.enter_context(profile))
            stack.callback(self.driver.quit)
            self._resize(*self.size)
            self.wear(self.scheme)
            Process.running.append(self)
            stack.callback(Process.running.remove, self)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._opened.close()

    def _resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    @staticmethod
    def _started(home):
        options = webdriver.ChromeOptions()
        options.binary_location = installed("chromium")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in [*FLAGS, f"--user-data-dir={home}/profile"]:
            options.add_argument(flag)
        return webdriver.Chrome(options, Driver(pathlib.Path(home)))


class Driver(Process):
    """chromedriver, as Selenium asks for a service, which starts and stops it.

    Selenium's own looks for a free port and hands it over, and a story beside this one could have it by then; here the driver
    takes what the system gives it.
    """

    def __init__(self, home):
        super().__init__("chromedriver", home)
        self.home = home
        # As it is given, Selenium looks for none, neither here nor on the network.
        self.path = installed("chromedriver")

    def env_path(self):
        return None  # no variable names another

    def command(self):
        return ["env", f"HOME={self.home}", f"TMPDIR={self.home}", self.path, "--port=0"]

    def ready(self):
        told = re.search(r"started successfully on port (\d+)", self.stdout.read_text())
        self.service_url = told and f"http://127.0.0.1:{told[1]}"
        return told


def installed(command):
    path = shutil.which(command)
    assert path, f"{command} is not installed"
    return path
