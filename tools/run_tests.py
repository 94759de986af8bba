# SPDX-License-Identifier: Apache-2.0
"""Runs ctest and pytest over a build folder and adds up what they ran.

The last line is "N passed, N failed"; the exit status is 0 when all of at least one test passed.
"""

import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as xml

SOURCE = pathlib.Path(__file__).resolve().parent.parent


def run(command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    subprocess.run(command, check=False, **options)


class Totals:
    def __init__(self):
        self.passed, self.skipped, self.failures = 0, 0, []

    def add(self, name, outcome):
        if outcome == "failed":
            self.failures.append(name)
        elif outcome == "skipped":
            self.skipped += 1
        else:
            self.passed += 1


def add_googletest(totals, path):
    """Every case of one googletest JSON file; the number of failures among them."""
    before = len(totals.failures)
    for suite in json.loads(path.read_text())["testsuites"]:
        for case in suite["testsuite"]:
            outcome = "failed" if "failures" in case else "skipped" if case.get("result") == "SKIPPED" else "passed"
            totals.add(f"{path.stem}: {suite['name']}.{case['name']}", outcome)
    return len(totals.failures) - before


def add_ctest(totals, results):
    for case in xml.parse(results / "ctest.xml").iter("testcase"):
        name, status = case.get("name"), case.get("status")
        counts = results / f"{name}.json"
        if counts.exists():
            failures = add_googletest(totals, counts)
            if status == "fail" and failures == 0:
                totals.add(f"{name}: the program ended abnormally", "failed")
        else:  # no googletest program, or one that died before it could write
            totals.add(name, {"run": "passed", "fail": "failed"}.get(status, "skipped"))


def add_pytest(totals, path):
    if not path.exists():
        totals.add("pytest did not run", "failed")
        return
    for case in xml.parse(path).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if failed else "skipped" if case.find("skipped") is not None else "passed"
        totals.add(f"pytest: {case.get('classname')}.{case.get('name')}", outcome)


def main(build):
    build = pathlib.Path(build).resolve()
    results = build / "test-results"
    results.mkdir(exist_ok=True)
    for old in results.iterdir():
        old.unlink()
    run(["ctest", "--test-dir", build, "--output-on-failure", "-LE", "hours", "--output-junit", results / "ctest.xml"])
    run([sys.executable, "-m", "pytest", "-q", SOURCE / "tests" / "python", f"--junitxml={results / 'pytest.xml'}"],
        env={**os.environ, "HALCYON_BUILD_DIR": str(build)})
    totals = Totals()
    add_ctest(totals, results)
    add_pytest(totals, results / "pytest.xml")
    for name in totals.failures:
        print("FAILED", name)
    if totals.skipped:
        print(f"{totals.skipped} skipped: what this machine does not have (a GPU, ../shared); their reasons are above")
    print(f"{totals.passed} passed, {len(totals.failures)} failed")
    return 1 if totals.failures or totals.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
