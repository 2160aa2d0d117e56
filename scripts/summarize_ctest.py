#!/usr/bin/env python3
"""Prints failed and skipped cases of ctest's JUnit files, each skip with its reason, then `PASSED FAILED SKIPPED`."""
import re
import sys
import xml.etree.ElementTree as ElementTree


def reason(case):
    """What a program whose kernels this CPU lacks says, before all that its cases say, is why it is skipped as a whole;
    GTEST_SKIP() << "why" prints `FILE:LINE: Skipped`, then why; scripts print `skipped: why`."""
    output = case.findtext("system-out") or ""
    found = (re.search(r'(this CPU lacks .*, which the kernels "\w+" are compiled for)', output)
             or re.search(r": Skipped\n(.+)", output) or re.search(r"^skipped: (.+)", output, re.MULTILINE))
    return found.group(1).strip() if found else "no reason given"


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in sys.argv[1:]:
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            state = {"run": "passed", "fail": "failed"}.get(case.get("status"), "skipped")
            counts[state] += 1
            if state == "failed":
                print(f"FAILED: {case.get('name')}")
            elif state == "skipped":
                print(f"skipped: {case.get('name')}: {reason(case)}")
    print(*counts.values())


if __name__ == "__main__":
    main()
