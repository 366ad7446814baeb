// Tables of losses and perplexities, as text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// Rows of cells in aligned columns, as wide as their widest cell: the first to the left, the others to the right. The
/// first row is the head; an empty row is an empty line. `indent` blanks begin each line.
std::string format_table(const std::vector<std::vector<std::string>>& rows, std::size_t indent = 2);
/// A cell of a table in Markdown: a bar, which would end it, or a backslash after a backslash, and a space for each control character.
std::string markdown_cell(std::string_view text);

/// One run's final result: pattern, loss, perplexity.
std::string final_table(const RunMetrics& run);

/// Perplexities of several runs' final results: a row a run, a column a pattern, "-" where there is none. Where that is
/// wider than 80 columns, patterns may be the rows. A note stands above where results are of different text or lengths.
std::string joint_table(const std::vector<RunMetrics>& runs);

/// The gain by adaptation. Columns: dense, and the pattern that each adapted run was trained with. Rows: the
/// pretrained model before; and after it, each pattern by the run adapted to it (dense stays the pretrained
/// one), with a note above as joint_table. Throws Error naming the run that has no result for its column, or a result of
/// sequences of another length than the others.
std::string adaptation_table(const RunMetrics& pretrained, const std::vector<RunMetrics>& adapted);

}  // namespace ratplus::report
