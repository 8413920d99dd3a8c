"""A recording as one page of HTML, to be looked at or attached to a bug report.

survey      goes through a recording: everything that the page shows, in constant memory
timeline    counts in spans of time that widen as the recording goes on
latency     how long accesses took: a histogram, percentiles, the slowest
hot         registers: how often, how long, when
sample      the events that are shown in full
differences what a replay found to be different, as it wrote it
page        the survey and the files below become one file
page.html, page.css, *.js   what the browser gets; no framework, no other files
"""

from __future__ import annotations

from devicehost_client.recordings.report.differences import BadDifferences, read_differences
from devicehost_client.recordings.report.page import write_report
from devicehost_client.recordings.report.survey import Survey

__all__ = ["BadDifferences", "Survey", "read_differences", "write_report"]
