// The text that results of runs were measured on: whether they compare.
#pragma once

#include <string>
#include <vector>

#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// Whether two results are known to be of different text.
bool differ_in_text(const Measurement& a, const Measurement& b);

/// Names two runs whose final results do not compare: of different text, of sequences of different lengths, or an evaluation
/// beside a last validation, which are of different text unless made alike. Empty: there are none.
std::string unlike_results(const std::vector<const RunMetrics*>& runs);
std::string unlike_results(const std::vector<RunMetrics>& runs);

/// "Validation perplexity"; of results of the training split "Training perplexity", of both "Perplexity".
std::string perplexity_title(const std::vector<const RunMetrics*>& runs);

}  // namespace ratplus::report
