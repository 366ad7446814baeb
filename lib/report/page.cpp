#include "lib/report/page.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json_dump.h"
#include "lib/report/format.h"
#include "lib/report/measured_text.h"
#include "lib/report/page_assets.h"
#include "lib/report/panel_chart.h"
#include "lib/report/panels.h"
#include "lib/report/svg.h"
#include "lib/report/text_columns.h"
#include "lib/report/warnings.h"

namespace ratplus::report {
namespace {

using Json = nlohmann::json;

constexpr std::size_t points_of_a_curve = 400;  // about a phone's pixels, and twice those of the plot's units

/// Of UTC.
std::string minute(std::time_t time) {
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::gmtime(time));
}

// --- Progress of the runs -------------------------------------------------------------------------------------

/// So many runs have their names shortened in tables and legends, and listed once.
bool are_many(const std::vector<RunMetrics>& runs) {
  return runs.size() >= 5;
}

/// As tables and legends have them: of many runs shortened in the middle, as far as they still differ.
std::vector<std::string> names_of(const std::vector<RunMetrics>& runs) {
  std::size_t longest = 0;
  for (const RunMetrics& run : runs) longest = std::max(longest, columns_of(run.name));
  std::size_t columns = are_many(runs) ? 20 : longest;
  while (true) {
    std::vector<std::string> names;
    for (const RunMetrics& run : runs) names.push_back(shortened_within(run.name, columns));
    const std::set<std::string> different(names.begin(), names.end());
    if (different.size() == names.size() || columns >= longest) return names;
    columns += 4;
  }
}

/// A row of a table: what it is, and a cell a run.
struct Row {
  std::string name;
  std::vector<std::string> cells;
};

/// `text` cells may be long: they stand to the left and are broken.
std::string table(const std::string& corner, const std::vector<RunMetrics>& runs,
                  const std::vector<Row>& rows, bool text) {
  const auto columns = names_of(runs);
  // On a phone the cells of several runs stand below the name of their row, so that none is cut off.
  std::string html = columns.size() > 1
                         ? fmt::format("<div class=\"wide several\" style=\"--runs: {}\">", columns.size())
                         : "<div class=\"wide\">";
  html += "<table>\n<tr><th>" + escape(corner) + "</th>";
  for (std::size_t r = 0; r < columns.size(); ++r) {
    const auto whole = columns[r] == runs[r].name ? "" : fmt::format(" title=\"{}\"", escape(runs[r].name));
    html += fmt::format("<th scope=\"col\"{}{}>{}</th>", text ? " style=\"text-align: left\"" : "", whole,
                        escape(columns[r]));
  }
  html += "</tr>\n";
  for (const Row& row : rows) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", escape(row.name));
    for (const auto& cell : row.cells)
      html += fmt::format("<td{}>{}</td>", text ? " class=\"text\"" : "", escape(cell));
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

/// Broken only after commas: "D = 16" stays in one line.
std::string glued(const std::string& label) {
  std::string text;
  for (const char c : label) {
    const bool glue = c == ' ' && !text.empty() && text.back() != ',';
    text += glue ? std::string("\u00a0") : std::string(1, c);
  }
  return text;
}

/// A pattern's label for the head of a row.
std::string row_label(const std::string& pattern) {
  return glued(pattern_label(pattern));
}

std::string step_cell(const RunMetrics& run) {
  if (!run.last_step) return "-";
  if (run.finished()) return fmt::format("{} (finished)", run.last_step->step);
  const auto word = end_in_a_word(run);
  const auto ended = word.empty() ? "" : ", " + word;
  if (run.steps == 0) return fmt::format("{}{}", run.last_step->step, ended);
  return fmt::format(
      "{} of {} ({:.0f}%){}", run.last_step->step, run.steps,
      std::floor(100.0 * static_cast<double>(run.last_step->step) / static_cast<double>(run.steps)), ended);
}

/// Patterns of all runs, in the order in which they came.
std::vector<std::string> patterns_of(const std::vector<RunMetrics>& runs, bool final_results) {
  std::vector<std::string> patterns;
  for (const RunMetrics& run : runs) {
    const Measurement* measured = final_results   ? run.final_result()
                                  : run.last_step ? &*run.last_step
                                                  : nullptr;
    if (measured == nullptr) continue;
    for (const auto& loss : measured->losses) {
      if (std::ranges::find(patterns, loss.pattern) == patterns.end()) patterns.push_back(loss.pattern);
    }
  }
  return patterns;
}

std::string loss_cell(std::optional<double> loss) {
  return format_value(Unit::nats, loss.value_or(std::numeric_limits<double>::quiet_NaN()));
}

std::string perplexity_cell(std::optional<double> loss) {
  return loss && std::isfinite(*loss) ? fmt::format("{:.2f}", std::exp(*loss)) : "-";
}

/// What should not be overlooked: how runs ended early, and warnings. Of several runs each is named.
std::string notices(const std::vector<RunMetrics>& runs, std::time_t made) {
  std::string items;
  for (const RunMetrics& run : runs) {
    const auto add = [&](const std::string& sentence) {
      const auto name = runs.size() > 1 ? "<b>" + escape(run.name) + "</b>: " : "";
      items += "<li>" + name + escape(sentence) + "</li>\n";
    };
    if (const auto end = describe_end(run); !end.empty()) add(end);
    if (!run.not_its_evaluation.empty()) add(run.not_its_evaluation);
    for (const auto& warning : find_warnings(run, static_cast<double>(made))) add(warning);
  }
  return items.empty() ? "" : "<ul class=\"notices\">\n" + items + "</ul>\n";
}

std::string state_table(const std::vector<RunMetrics>& runs) {
  std::vector<Row> rows;
  const auto add = [&](std::string name, auto&& cell_of) {
    Row row{std::move(name), {}};
    for (const RunMetrics& run : runs) row.cells.push_back(cell_of(run));
    // What no run has measured is no row.
    if (std::ranges::any_of(row.cells, [](const auto& cell) { return cell != "-"; }))
      rows.push_back(std::move(row));
  };
  add("step", step_cell);
  add("tokens", [](const RunMetrics& run) {
    return run.last_step ? format_value(Unit::count, static_cast<double>(run.last_step->tokens)) : "-";
  });
  add("time left, last estimate", [](const RunMetrics& run) {
    return run.finished() || run.end || !(run.seconds_left >= 0) ? "-" : format_seconds(run.seconds_left);
  });
  add("last line (UTC)", [](const RunMetrics& run) {
    return run.time > 0 ? minute(static_cast<std::time_t>(run.time)) : std::string("-");
  });
  add("times resumed", [](const RunMetrics& run) {
    return run.previous_starts > 0 ? fmt::format("{}", run.previous_starts) : "-";
  });
  for (const auto& pattern : patterns_of(runs, false)) {
    add("training loss, " + row_label(pattern), [&](const RunMetrics& run) {
      return loss_cell(loss_of(run.last_step ? &*run.last_step : nullptr, pattern));
    });
  }
  add("tokens a second (median)",
      [](const RunMetrics& run) { return format_value(Unit::count, run.median("tokens_per_second")); });
  add("share of peak (median)",
      [](const RunMetrics& run) { return format_value(Unit::share, run.median("share_of_peak")); });
  add("memory, device",
      [](const RunMetrics& run) { return format_value(Unit::bytes, run.last("memory_bytes")); });
  add("wait for data (median)",
      [](const RunMetrics& run) { return format_value(Unit::share, run.median("data_wait_share")); });
  add("checkpoint holds steps up (median)", [](const RunMetrics& run) {
    return format_value(Unit::seconds, run.median("checkpoint_stall_seconds"));
  });
  return table("", runs, rows, false);
}

/// Rows are patterns: loss and perplexity of each run's final result.
std::string final_results(const std::vector<RunMetrics>& runs) {
  const auto patterns = patterns_of(runs, true);
  if (patterns.empty()) return "";
  std::vector<Row> rows;
  for (const auto& pattern : patterns) {
    Row row{row_label(pattern), {}};
    for (const RunMetrics& run : runs) {
      const auto loss = loss_of(run.final_result(), pattern);
      row.cells.push_back(loss && std::isfinite(*loss) ? loss_cell(loss) + " / " + perplexity_cell(loss)
                                                       : "-");
    }
    rows.push_back(std::move(row));
  }
  const auto note = unlike_results(runs);
  std::string training;
  for (const RunMetrics& run : runs) {
    if (run.final_result() != nullptr && run.final_result()->split == "train")
      training += (training.empty() ? "" : ", ") + run.name;
  }
  std::string html =
      "<h2>Final results: loss / perplexity</h2>\n<p class=\"faint\">Each run's last validation, or its "
      "evaluation over more held-out text where there is one.</p>\n";
  if (!training.empty())
    html += "<p><strong>Of the training split, not of held-out text: " + escape(training) + "</strong></p>\n";
  if (!note.empty()) html += "<p><strong>" + escape(note) + "</strong></p>\n";
  return html + table("pattern", runs, rows, false);
}

// --- Curves ---------------------------------------------------------------------------------------------------

double last_tokens(const std::vector<Panel>& panels) {
  double tokens = 1;
  for (const Panel& panel : panels) {
    for (const PanelLine& line : panel.lines) tokens = std::max(tokens, line.curve.back().x);
  }
  return tokens;
}

/// Labels begin with the name of their run.
std::vector<Panel> with_short_names(std::vector<Panel> panels, const std::vector<RunMetrics>& runs) {
  const auto names = names_of(runs);
  for (Panel& panel : panels) {
    for (PanelLine& line : panel.lines) {
      const std::string& name = runs[line.run].name;
      if (runs.size() > 1 && line.label.starts_with(name))
        line.label.replace(0, name.size(), names[line.run]);
    }
  }
  return panels;
}

std::string legend(const Panel& panel) {
  std::string html = "<ul class=\"lines\">";
  for (const PanelLine& line : panel.lines) {
    const auto dashes = dashes_of(line.dashes);
    html += fmt::format(
        "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><line x1=\"0\" y1=\"5\" x2=\"26\" y2=\"5\" "
        "stroke=\"{}\" "
        "stroke-width=\"3\"{}/></svg><span>{} <b>{}</b></span></li>",
        line_colour(line), dashes.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dashes),
        escape(glued(line.label)), escape(format_value(panel.unit, line.last)));
  }
  return html + "</ul>\n";
}

std::string figure(const Panel& panel, double tokens, const PanelGeometry& geometry) {
  return fmt::format(
      "<figure>\n<figcaption><span>{}</span> <span class=\"at\">last "
      "logged</span></figcaption>\n{}{}</figure>"
      "\n",
      escape(panel.title), legend(panel), draw_panel(panel, tokens, geometry));
}

/// Six digits are more than a picture shows, and short in JSON.
double rounded(double value) {
  return std::stod(fmt::format("{:.6g}", value));
}

Json curves_json(const std::vector<RunMetrics>& runs, const std::vector<Panel>& panels, double tokens,
                 const PanelGeometry& g) {
  bool same_steps = true;
  for (const RunMetrics& run : runs)
    same_steps = same_steps && run.tokens_per_step == runs.front().tokens_per_step;
  Json data = {{"left", g.left},          {"width", g.plot_width()},
               {"picture", g.width},      {"tokens", tokens},
               {"panels", Json::array()}, {"tokens_per_step", same_steps ? runs.front().tokens_per_step : 0}};
  for (const Panel& panel : panels) {
    Json lines = Json::array();
    for (const PanelLine& line : panel.lines) {
      Json xs = Json::array(), ys = Json::array();
      for (const Point& point : line.curve) {
        xs.push_back(std::llround(point.x));
        ys.push_back(rounded(point.y));
      }
      lines.push_back({{"x", std::move(xs)}, {"y", std::move(ys)}});
    }
    data["panels"].push_back({{"unit", to_string(panel.unit)}, {"lines", std::move(lines)}});
  }
  return data;
}

// --- Settings -------------------------------------------------------------------------------------------------

std::string settings(const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs) {
  std::string html = "<h2>Settings</h2>\n";
  if (runs.size() > 1) {
    std::vector<Row> rows;
    for (const auto& key : differing_keys(jobs)) {
      Row row{key, {}};
      for (const JobSettings& job : jobs) row.cells.push_back(job.value_of(key));
      rows.push_back(std::move(row));
    }
    html += rows.empty() ? "<p>All runs have the same settings.</p>\n"
                         : "<p class=\"faint\">The keys in which the runs differ:</p>\n" +
                               table("key", runs, rows, true);
  }
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const bool open = runs.size() == 1;
    const auto& job = jobs[r];
    html += fmt::format("<details{}><summary>{}: job.toml</summary>\n<pre>{}</pre></details>\n",
                        open ? " open=\"open\"" : "", escape(runs[r].directory.string()),
                        escape(job.text.empty() ? job.missing : job.text));
  }
  return html;
}

std::string title_of(const std::vector<RunMetrics>& runs) {
  std::string title;
  for (const RunMetrics& run : runs) title += (title.empty() ? "" : ", ") + run.name;
  return title;
}

}  // namespace

std::string make_page(const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs,
                      std::time_t made, const std::string& lead) {
  require(!runs.empty() && runs.size() == jobs.size(), "make_page: {} runs, {} jobs", runs.size(),
          jobs.size());
  const bool several = runs.size() > 1;
  const auto panels = with_short_names(make_panels(runs, points_of_a_curve), runs);
  const double tokens = last_tokens(panels);
  const auto geometry = geometry_for(panels);
  const std::string title = escape(title_of(runs));
  // Many names would fill a phone's screen as a heading.
  const std::string heading =
      are_many(runs) ? fmt::format("<h1>{} runs</h1>\n<p class=\"names\">{}</p>\n", runs.size(), title)
                     : "<h1>" + title + "</h1>\n";

  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light "
      "dark\"/>\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n{3}"
      "<p class=\"faint\">ratplus report, made {2} UTC</p>\n",
      title, page_style, minute(made), heading);
  html += notices(runs, made) + lead;
  html += "<h2>Progress of the " + std::string(several ? "runs" : "run") + "</h2>\n" + state_table(runs);
  html += final_results(runs);
  html +=
      "<h2>Curves</h2>\n<p class=\"faint\">Over tokens; losses in nats a token. Faint lines are as logged, "
      "strong ones averaged. Under the pointer all panels show their values there.</p>\n<div "
      "class=\"panels\">\n";
  for (const Panel& panel : panels) html += figure(panel, tokens, geometry);
  html += "</div>\n" + settings(runs, jobs);
  // The JSON holds numbers and names of units alone, so that nothing in it can end the element.
  html += fmt::format("<script type=\"application/json\" id=\"curves\">{}</script>\n",
                      json_dump(curves_json(runs, panels, tokens, geometry)));
  html += fmt::format("<script>//<![CDATA[{}//]]></script>\n</main>\n</body>\n</html>\n", page_script);
  return html;
}

}  // namespace ratplus::report
