#include "lib/run/run_end.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "lib/run/metrics.h"
#include "lib/run/start_files.h"

namespace ratplus::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using How = RunEnd::How;

constexpr std::array<std::pair<How, std::string_view>, 4> names = {{{How::finished, "finished"},
                                                                    {How::stopped, "stopped"},
                                                                    {How::not_finite, "not_finite"},
                                                                    {How::failed, "failed"}}};

std::string_view to_string(How how) {
  return std::ranges::find(names, how, &std::pair<How, std::string_view>::first)->second;
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

std::string text_in(const Json& entry, const char* field) {
  const auto found = entry.find(field);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

void write_run_end(const fs::path& start_file, const RunEnd& end) {
  const Json entry = {{"how", to_string(end.how)},
                      {"time", wall_time()},
                      {"step", end.step ? Json(*end.step) : Json()},
                      {"signal", text_or_null(end.signal)},
                      {"checkpoint", text_or_null(end.checkpoint)},
                      {"message", text_or_null(end.message)}};
  write_whole_file(end_file(start_file), json_dump(entry, 1) + '\n');
}

namespace {

std::optional<RunEnd> read_end(const fs::path& start_file) {
  std::error_code ignored;
  if (!fs::is_regular_file(end_file(start_file), ignored)) return std::nullopt;
  try {
    const Json entry = parse_json<Json>(read_whole_file(end_file(start_file)));
    const auto how = std::ranges::find(names, entry.at("how").get<std::string>(),
                                       &std::pair<How, std::string_view>::second);
    if (how == names.end()) return std::nullopt;
    RunEnd end{.how = how->first,
               .step = std::nullopt,
               .signal = text_in(entry, "signal"),
               .checkpoint = text_in(entry, "checkpoint"),
               .message = text_in(entry, "message"),
               .time = entry.at("time").get<double>()};
    if (entry.contains("step") && entry["step"].is_number_integer())
      end.step = entry["step"].get<std::int64_t>();
    return end;
  } catch (const Json::exception&) {
  } catch (const Error&) {
  }
  return std::nullopt;  // what is left of the run's files says what there is to say
}

}  // namespace

std::optional<RunEnd> read_run_end(const fs::path& run) {
  const auto start = newest_start_file(run);
  return start ? read_end(*start) : std::nullopt;
}

std::int64_t step_saved_at_end(const fs::path& run) {
  for (const auto& start : start_files(run)) {
    const auto end = read_end(start);
    if (end && end->step && !end->checkpoint.empty()) return *end->step;
  }
  return 0;
}

}  // namespace ratplus::run
