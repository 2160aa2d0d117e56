// scripts/report.py, run for a suite.
#pragma once

#include <string>
#include <vector>

namespace mhmoe::cli {

// Draws the run folders' report into `output` with the scripts/report.py of the source tree that this program lies in,
// and says in the log where it is. Where script or python3 is missing, or the script fails, a warning says how to make
// the report: the runs themselves are done.
void make_report(const std::vector<std::string>& runs, const std::string& output, const std::string& title);

}  // namespace mhmoe::cli
