#include "apps/line_progress.h"

#include <fmt/core.h>

#include <optional>
#include <string>

#include "apps/commands.h"
#include "apps/format.h"
#include "apps/output.h"
#include "apps/progress_line.h"
#include "base/units.h"

namespace ratplus::apps {
namespace {

std::string text_of(const char* verb, const generate::LineProgress& progress) {
  auto text = fmt::format("{}: {} of {}, {} tokens", verb, progress.done, counted(progress.all, "line"),
                          format_count(double(progress.tokens)));
  if (progress.seconds > 0)
    text += fmt::format(" ({}/s)", format_count(double(progress.tokens) / progress.seconds));
  const auto now = progress.done - progress.kept;
  if (now > 0 && progress.done < progress.all) {
    text += fmt::format(
        ", {} left", format_seconds(progress.seconds * double(progress.all - progress.done) / double(now)));
  }
  return text;
}

}  // namespace

int do_lines_with_progress(const generate::LineJob& job, generate::LineWorker& worker,
                           const parallel::World& world, const char* verb,
                           const std::function<void(const nlohmann::ordered_json&)>& each) {
  std::optional<ProgressLine> line;
  if (world.root()) line.emplace();
  generate::LineProgress last;
  bool first = true;
  const bool done = generate::do_lines(
      job, worker, world,
      [&](const generate::LineProgress& progress) {
        if (!world.root()) return;
        if (first && progress.kept > 0)
          fmt::print(stderr, "{} of {} were done before\n", progress.kept, counted(progress.all, "line"));
        first = false;
        last = progress;
        line->update(text_of(verb, progress), progress.done == progress.all);
      },
      each);
  if (line) line->finish();
  if (done) return 0;
  if (world.root()) {
    print_error(fmt::format("interrupted after {} of {}; {}", last.done, counted(last.all, "line"),
                            job.output.empty() ? "give --output FILE to keep results over an interruption"
                                               : "the same command goes on where it stopped"));
  }
  return exit_interrupted;
}

}  // namespace ratplus::apps
